"""The order service that most teams would write: FastAPI, SQLAlchemy's ORM, Celery on RabbitMQ.

It does the job that is measured with the durability that Orderkeep has, each part set up as its own
documentation advises:

- `web` is FastAPI with plain functions, which it runs in its pool of threads, and a session for
  each request: SQLAlchemy's ORM and Celery's publishing both block. Coroutines over asyncpg, with
  only the publishing in a thread, were slower. One worker of uvicorn, with uvloop and httptools.
- `tasks` is Celery on quorum queues: publishes are confirmed, tasks are acknowledged late, and the
  thirty minutes of a countdown pass in the broker ("native delayed delivery"), not in a worker.
- `relay` is the outbox that is polled, for the second way to run it.

Without the outbox a task is published after the commit, before the answer. A crash between the two
loses it: that is the peer's own flaw, and makes it no slower.

What Orderkeep writes and this does not: movements of stock, and the sequence of events.
"""
