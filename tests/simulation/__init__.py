"""The whole service in one thread and in no time: seeded worlds that replay exactly.

A world is the product's own code, several processes of it, on an event loop whose clock jumps to
the next timer, over a simulated broker and a simulated database that misbehave as a seed says.
`python -m tests.simulation --seeds 1..100` runs a hundred of them; `--seed 7 --trace` shows one.

- `virtual_loop.py` is the event loop; `dice.py` draws all that is left to chance.
- `database_server.py` and `database_client.py` are the database, `broker_server.py` and
  `broker_client.py` the broker, `bank.py` the payment channel.
- `process.py` is one process of the service; `shopper.py` and `operator_work.py` are people;
  `faults.py` and `nemesis.py` are what goes wrong.
- `watch.py` looks at every commit, `product_log.py` at what the product logs, `invariants.py` at
  the end; `world.py` puts it together.
- `run.py` runs one seed, `seed_range.py` many; `report.py` adds them up.
"""
