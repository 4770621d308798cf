"""The payment service: opens payments for orders, hears of money, gives money back.

It talks to the order service through queues alone, and can be switched off and replaced by a
foreign service that reads and writes the same ones:

```
payment.order.events ──> what an order owes, whose it is, how it ended
POST /payments       ──> a payment is opened        ──> payment.opened.notify
sandbox, or a channel's signed notification:
                         money came                 ──> payment.success.notify
                         no money will come
payment.refund.request ─> a refund is accepted ─> the channel is asked ─> payment.refund.result
```

The life of a payment stands in `payment.py`. What a channel says of money is believed whenever it
comes: a payment that was closed with its order, or that failed, still succeeds when its money is
there, and every distinct report of money is told to orders, however late, double or odd. Orders
decide what it pays and what goes back; this service decides nothing but whether there is as much to
give back as is asked for.

What happens on a crash, at each step:

- opening, money, failure, the end of an order, the acceptance of a refund: one transaction each,
  with the events it appends; it happened or it did not, and who asks again is answered the same.
- carrying out a refund: between the claim, the channel's answer and the commit of it, the refund is
  `requested` and is asked for again under the same number; see `carry_out_refunds.py`.

Events about one order carry a sequence that rises under the lock of the order's row here, also for
an order of which nothing was heard: a refund may be asked for one.
"""
