"""Where the shop's servers are, from its environment."""

import os

DATABASE_URL = os.environ["PEER_DATABASE_URL"]
BROKER_URL = os.environ["PEER_BROKER_URL"]
JWT_SECRET = os.environ["PEER_JWT_SECRET"]
PAYMENT_TIMEOUT_S = int(os.environ.get("PEER_PAYMENT_TIMEOUT_S", "1800"))

# Tasks are written with the order, and `relay` publishes them.
HAS_OUTBOX = os.environ.get("PEER_HAS_OUTBOX") == "1"

# Of the web's threads: FastAPI runs forty at once, and each may need a connection to the database
# and one to the broker.
THREAD_COUNT = 40
