"""Those who made their orders before a flood, and cancel or pay them while it lasts."""

import threading
import time
from collections.abc import Callable
from typing import Any, Self

import httpx

from bench.figures import quantile
from bench.servers import count_of
from bench.stage import JWT_SECRET
from orderkeep.instant import after
from orderkeep.web.tokens import TokenKey, sign_token
from orderkeep.wiring import chance
from tests.servers.postgresql import PostgresServer

_PAUSE_S = 0.2
_TOKEN_LIFE_S = 3600

# Whoever is told to come again does so; more often than that nobody is told.
_TRIES_MAX = 5
_ANSWER_S_MAX = 30.0
_SETTLED_S_MAX = 30.0

# More than any flood lasts for.
_UNPAID = (
    "SELECT order_no, user_id FROM orders WHERE status = 'pending_payment'"
    " ORDER BY order_no LIMIT 2000"
)


class Bystanders:
    """Cancels one order and pays another, again and again, while its context is open."""

    def __init__(self, server: PostgresServer, name: str, *, port: int) -> None:
        """Take orders that are unpaid in the named database.

        Args:
            port: Where the service answers.
        """
        self._server, self._name = server, name
        self._orders = [
            (row["order_no"], row["user_id"]) for row in server.query(_UNPAID, database=name)
        ]
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api/v1", timeout=_ANSWER_S_MAX, trust_env=False
        )
        self._done: dict[str, list[str]] = {"cancels": [], "payments": []}
        self._tried_counts = {"cancels": 0, "payments": 0}
        self._latencies_ms: dict[str, list[float]] = {"cancels": [], "payments": []}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._act)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Finish what is under way."""
        self._stop.set()
        self._thread.join()
        self._client.close()

    @property
    def are_all_served(self) -> bool:
        """Whether some were tried, and all of those succeeded."""
        return all(
            len(self._done[what]) == tried_count > 0
            for what, tried_count in self._tried_counts.items()
        )

    def check(self) -> None:
        """Wait until the orders stand where the answers say.

        Raises:
            TimeoutError: some do not.
        """
        give_up_at_s = time.monotonic() + _SETTLED_S_MAX
        for what, status in (("cancels", "cancelled"), ("payments", "paid")):
            while (found := self._count(status)) != len(self._done[what]):
                if time.monotonic() > give_up_at_s:
                    message = f"{len(self._done[what])} {what} were served, {found} are {status}"
                    raise TimeoutError(message)
                threading.Event().wait(_PAUSE_S)

    def results(self) -> dict[str, Any]:
        """Return, for cancels and payments, how many were tried and served, and in what time."""
        return {
            what: {
                "tried": self._tried_counts[what],
                "done": len(self._done[what]),
                "ms": {"p50": quantile(taken, 0.5), "p99": quantile(taken, 0.99)} if taken else {},
            }
            for what, taken in self._latencies_ms.items()
        }

    def _count(self, status: str) -> int:
        count: int = count_of(
            self._server,
            self._name,
            f"SELECT count(*) FROM orders WHERE status = '{status}'",  # noqa: S608 (our own words)
        )
        return count

    def _act(self) -> None:
        acts: dict[str, Callable[[str, str], bool]] = {
            "cancels": self._cancel,
            "payments": self._pay,
        }
        while self._orders and not self._stop.wait(_PAUSE_S):
            for what, act in acts.items():
                order_no, user_id = self._orders.pop()
                self._tried_counts[what] += 1
                begun_at_s = time.perf_counter()
                if act(order_no, _token(user_id)):
                    self._done[what].append(order_no)
                    self._latencies_ms[what].append(1000 * (time.perf_counter() - begun_at_s))

    def _cancel(self, order_no: str, token: str) -> bool:
        return self._post(f"/orders/{order_no}/cancel", {}, token=token) is not None

    def _pay(self, order_no: str, token: str) -> bool:
        opened = self._post(
            "/payments", {"order_no": order_no, "pay_channel": "sandbox"}, token=token
        )
        if opened is None:
            return False
        path = f"/payments/{opened['payment_no']}/sandbox"
        return self._post(path, {"result": "succeeded"}, token=token) is not None

    def _post(self, path: str, body: dict[str, str], *, token: str) -> dict[str, Any] | None:
        for _ in range(_TRIES_MAX):
            try:
                answer = self._client.post(
                    path, json=body, headers={"Authorization": f"Bearer {token}"}
                )
            except httpx.TransportError:
                continue
            if answer.is_success:
                found: dict[str, Any] = answer.json()
                return found
            self._stop.wait(float(answer.headers.get("Retry-After", "1")))
        return None


def _token(user_id: str) -> str:
    key = TokenKey(secret=JWT_SECRET, audience="orderkeep")
    expires_at = after(chance.now(), seconds=_TOKEN_LIFE_S)
    return sign_token(key, user_id=user_id, scopes=(), expires_at=expires_at)
