"""Runs the shoppers for a while, side by side, and returns what they saw."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import httpx

from orderkeep.demo.catalogue import SKUS, stock_shelves
from orderkeep.demo.shop_client import ShopClient, VisitCutShortError
from orderkeep.demo.shopper import DRAWN_COUNT, plan_visit
from orderkeep.demo.tally import Latency, Tally
from orderkeep.demo.visits import AcknowledgedOrder, Shopper

SHOPPER_COUNT_MAX = 1_000

# A request that takes longer counts as a time-out.
_REQUEST_TIMEOUT_S = 10.0

# A shopper who was cut short comes back after this.
_COME_BACK_S = 0.2

_PROGRESS_INTERVAL_S = 0.2

# The operator scope of the contract.
_OPERATOR_SCOPES = ("operator",)

# user id, scopes -> bearer token
Tokens: TypeAlias = Callable[[str, tuple[str, ...]], str]


class Draw(Protocol):
    """Where random values come from; a `random.Random` is one.

    Two runs against one service must not draw the same: user ids and keys come from here.
    """

    def random(self) -> float:
        """Return a number of at least 0.0 and below 1.0."""

    def getrandbits(self, k: int, /) -> int:
        """Return a number of `k` random bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is."""

    elapsed_s: float
    order_count: int
    visit_count: int
    surprise_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What to run.

    Attributes:
        url: Where the service listens, such as `http://127.0.0.1:8080`.
        duration_s: Shoppers begin no new visit after this.
        is_resilient: Repeat what got no answer with the same key, for up to `patience_s`: so a
            service may be killed and started again under load without losing a shopper.
        on_acknowledged: Told of each order as soon as the service has answered it.
        on_progress: Told a few times a second how far the run is.
        transport: Instead of the network.
    """

    url: str
    shopper_count: int = 20
    duration_s: float = 10.0
    is_resilient: bool = False
    patience_s: float = 30.0
    on_acknowledged: Callable[[AcknowledgedOrder], None] | None = None
    on_progress: Callable[[Progress], None] | None = None
    transport: httpx.AsyncBaseTransport | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be run.

        Raises:
            ValueError: a number is out of its range.
        """
        if not 1 <= self.shopper_count <= SHOPPER_COUNT_MAX:
            message = f"shoppers must be 1 to {SHOPPER_COUNT_MAX}"
            raise ValueError(message)
        if self.duration_s <= 0 or self.patience_s <= 0:
            message = "seconds must be more than 0"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary:
    """What the shoppers saw.

    Attributes:
        visits: How often each story was lived.
        answers: For each step, how often each status or problem code was answered;
            `connection_error` and `timeout` where nothing was.
        statuses: The shoppers' orders by status, when the run was over. An order that nobody paid
            is still pending if the service gives more time than the run took.
        surprises: What no client should ever see; the first few of `surprise_count`.
    """

    shopper_count: int
    elapsed_s: float
    visits: Mapping[str, int]
    answers: Mapping[str, Mapping[str, int]]
    latencies: Mapping[str, Latency]
    order_count: int
    orders_per_s: float
    statuses: Mapping[str, int]
    surprise_count: int
    surprises: tuple[str, ...]


async def run_demo(
    options: DemoOptions, *, tokens: Tokens, draw: Draw, clock: Callable[[], float]
) -> DemoSummary:
    """Put goods on the shelves, let the shoppers loose, and count.

    Args:
        tokens: Makes the bearer token of a user; asked again for each visit, so a run may outlast
            the life of a token.
        clock: Rising seconds, such as `time.monotonic`.

    Raises:
        CatalogueError: the service does not take the demo's goods.
        VisitCutShortError: it could not be reached at the start.
    """
    run = _Run(options=options, tokens=tokens, draw=draw, clock=clock)
    async with httpx.AsyncClient(
        base_url=options.url,
        transport=options.transport,
        timeout=_REQUEST_TIMEOUT_S,
        limits=httpx.Limits(max_connections=options.shopper_count),
        trust_env=False,  # the service is local: a proxy of the environment cannot reach it
    ) as http:
        return await run.through(http)


class _Run:
    def __init__(
        self, *, options: DemoOptions, tokens: Tokens, draw: Draw, clock: Callable[[], float]
    ) -> None:
        self._options = options
        self._tokens = tokens
        self._draw = draw
        self._clock = clock
        self._tally = Tally()
        self._tag = f"{draw.getrandbits(40):010x}"
        self._started = 0.0
        self._over_at = 0.0

    async def through(self, http: httpx.AsyncClient) -> DemoSummary:
        operator = self._client(http, user_id="demo-operator", scopes=_OPERATOR_SCOPES)
        await stock_shelves(operator, run_tag=self._tag)
        self._started = self._clock()
        self._over_at = self._started + self._options.duration_s
        reporter = asyncio.create_task(self._report())
        try:
            async with asyncio.TaskGroup() as group:
                shoppers = [
                    group.create_task(self._shop(http, f"demo-{self._tag}-{index}"))
                    for index in range(self._options.shopper_count)
                ]
            elapsed_s = self._clock() - self._started
            await asyncio.gather(*(self._count_orders(task.result()) for task in shoppers))
        finally:
            reporter.cancel()
        return self._summary(elapsed_s)

    async def _shop(self, http: httpx.AsyncClient, user_id: str) -> Shopper:
        shopper = Shopper(
            user_id=user_id,
            client=self._client(http, user_id=user_id),
            new_key=lambda: f"{self._draw.getrandbits(128):032x}",
            on_acknowledged=self._options.on_acknowledged or _ignore,
            over_at=self._over_at,
            orders={},
        )
        while self._clock() < self._over_at:
            shopper.client = self._client(http, user_id=user_id)
            drawn = [self._draw.random() for _ in range(DRAWN_COUNT)]
            visit = plan_visit(drawn, sku_ids=[sku.sku_id for sku in SKUS])
            try:
                await shopper.visit(visit)
            except VisitCutShortError:
                self._tally.visits["cut_short"] += 1
                await asyncio.sleep(_COME_BACK_S)
            else:
                self._tally.visits[visit.story] += 1
        return shopper

    async def _count_orders(self, shopper: Shopper) -> None:
        shopper.client = self._client(shopper.client.http, user_id=shopper.user_id)
        try:
            await shopper.count_orders()
        except VisitCutShortError:
            self._tally.surprise(f"the orders of {shopper.user_id} cannot be listed")

    async def _report(self) -> None:
        while self._options.on_progress is not None:
            self._options.on_progress(
                Progress(
                    elapsed_s=self._clock() - self._started,
                    order_count=self._tally.order_count,
                    visit_count=self._tally.visits.total(),
                    surprise_count=self._tally.surprise_count,
                )
            )
            await asyncio.sleep(_PROGRESS_INTERVAL_S)

    def _client(
        self, http: httpx.AsyncClient, *, user_id: str, scopes: tuple[str, ...] = ()
    ) -> ShopClient:
        return ShopClient(
            http=http,
            bearer=self._tokens(user_id, scopes),
            tally=self._tally,
            clock=self._clock,
            is_resilient=self._options.is_resilient,
            patience_s=self._options.patience_s,
        )

    def _summary(self, elapsed_s: float) -> DemoSummary:
        tally = self._tally
        return DemoSummary(
            shopper_count=self._options.shopper_count,
            elapsed_s=round(elapsed_s, 2),
            visits=dict(tally.visits.most_common()),
            answers={step: dict(codes.most_common()) for step, codes in tally.answers.items()},
            latencies=tally.latencies(),
            order_count=tally.order_count,
            orders_per_s=round(tally.order_count / elapsed_s, 1),
            statuses=dict(tally.statuses.most_common()),
            surprise_count=tally.surprise_count,
            surprises=tuple(tally.surprises),
        )


def _ignore(_order: AcknowledgedOrder) -> None:
    return
