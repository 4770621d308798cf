"""The cart service: what a user means to buy, one line for each SKU.

It knows no order and no price. A user adds, changes and removes lines over HTTP; when an order
takes lines over, the order service says so on the queue `cart-sync`, one message for each line, and
this service removes them. A shop with a cart of its own switches this one off and reads `cart-sync`
itself.

```
POST /cart/items ─┐
PATCH, DELETE ────┼─> CartDesk ──> change_cart ──> carts, cart_items
queue cart-sync ──┴─> consumer ──────┘
```

Invariants: a user has at most one line for a SKU, at most 100 lines, and at most 9999 pieces on
each; a line is seen, changed and removed by its own user only. Whoever adds takes the user's row
in `carts` first, so the limits hold however many add at once. Nothing here leaves by the outbox but
the kernel's own retries.
"""
