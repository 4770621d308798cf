"""Runs one part: makes its faults in lanes, heals everything, waits for rest, and judges."""

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable

from tests.acceptance.fleet_journal import Outcome
from tests.acceptance.fleet_stage import say
from tests.acceptance.fleet_verdict import rest, seconds_until, settle_unknown
from tests.faults.parts import FAULTS
from tests.faults.races import count_races
from tests.faults.schedule import draw_faults
from tests.faults.shop import NotMadeError, Part, Servers, Shop, opened_shop
from tests.faults.tally import BOUNDS_S, CANCELS, CASES, PAYMENTS, REFUNDS, RESTOCKS, Tally
from tests.faults.verdict import Told, Verdict, count, judge

# What is measured may take longer than it should, so that one learns how long it took.
REST_S_MAX = 240.0

_PROGRESS_S = 15.0
_LOOK_S = 0.1

# What is held for a later try waits as long; and the broker counts every five seconds.
_QUEUES_S_MAX = 120.0
_LANE_END_S_MAX = 180.0

_WRITES, DRAINED, CLOSINGS = BOUNDS_S

# Wiped before the last third of a part: what was lost then has come back by its end.
_WIPE_UNTIL = 0.67

_LATENESS = """
    select coalesce(max(closed_at - greatest(expires_at, $1::bigint)), 0)
    from orders where closed_at > $1::bigint"""


def _never(_shop: Shop) -> bool:
    return False


def run_part(
    servers: Servers,
    part: Part,
    *,
    seed: int,
    seconds: float,
    commit: str = "",
    has_seen_enough: Callable[[Shop], bool] = _never,
) -> tuple[Tally, Shop]:
    """Run a part, and return what it came to; the shop is closed, its books are not.

    Args:
        servers: Of this part alone; the broker is empty.
        part: What is done.
        seed: Draws it.
        seconds: How long at most.
        commit: What is tested.
        has_seen_enough: Asked all the time; no further fault is begun once it says so.
    """
    started_s = time.monotonic()
    tally = Tally(name=part.name, seed=seed, commit=commit)
    say(f"{part.name}: {part.says}")
    with opened_shop(servers, part, seed=seed) as shop:
        looks_before_count = shop.watcher.seen.looks_count
        _make_faults(shop, seed=seed, seconds=seconds, has_seen_enough=has_seen_enough)
        last_fault_s, last_fault_at = time.monotonic(), shop.books.now()
        tally.faults_s = last_fault_s - shop.started_s
        tally.looks_during_faults = shop.watcher.seen.looks_count - looks_before_count
        shop.supervisor.settle()
        shop.operators.stop()
        shop.load.stop()
        _come_to_rest(shop, tally, last_fault_s=last_fault_s)
        lateness_us = shop.books.rows(_LATENESS, last_fault_at)[0][0]
        shop.recoveries_s[CLOSINGS].append(lateness_us / 1_000_000)
        _judge(shop, tally)
    tally.elapsed_s = time.monotonic() - started_s
    return tally, shop


def _make_faults(
    shop: Shop, *, seed: int, seconds: float, has_seen_enough: Callable[[Shop], bool]
) -> None:
    """Make faults in every lane for so long; then heal all but the processes."""
    shop.seconds = seconds
    over_at_s = shop.started_s + seconds
    lanes = [
        threading.Thread(target=_run_lane, args=(shop, lane), kwargs={"seed": seed}, name=lane)
        for lane in shop.part.lanes
    ]
    for lane in lanes:
        lane.start()
    told_s = time.monotonic()
    while (left_s := over_at_s - time.monotonic()) > 0 and not has_seen_enough(shop):
        shop.is_over.wait(min(left_s, _LOOK_S))
        if time.monotonic() - told_s < _PROGRESS_S:
            continue
        told_s = time.monotonic()
        say(f"{shop.part.name}: {max(over_at_s - time.monotonic(), 0.0):.0f} s left, {_far(shop)}")
    shop.is_over.set()
    for lane in lanes:
        lane.join(_LANE_END_S_MAX)
        if lane.is_alive():
            shop.wrong.append(f"the lane {lane.name} does not end")
    for way in (shop.database_way, shop.broker_way):
        way.heal()
    for server in (shop.servers.postgresql, shop.servers.rabbitmq):
        if not server.is_alive:
            server.start()


def _run_lane(shop: Shop, lane: str, *, seed: int) -> None:
    faults = draw_faults(
        seed,
        f"{shop.part.name} {lane}",
        weights=shop.part.lanes[lane],
        pause_s_max=shop.part.pauses[lane],
    )
    began_s = time.monotonic()
    for fault in faults:
        if shop.is_over.wait(fault.pause_s):
            return
        if fault.kind == "wipe_rabbitmq" and _is_late(shop, began_s=began_s):
            continue
        try:
            FAULTS[fault.kind](shop, fault.strength)
        except NotMadeError as error:
            shop.done_counts[f"{fault.kind}: {error}"] += 1
        except Exception as error:  # noqa: BLE001 (the other lanes have something to tell as well)
            say("".join(traceback.format_exception(error)))
            shop.wrong.append(f"{fault.kind} broke: {error!r}"[:500])
            _stand_up(shop, lane)
        else:
            shop.done_counts[fault.kind] += 1


def _is_late(shop: Shop, *, began_s: float) -> bool:
    return time.monotonic() - began_s > _WIPE_UNTIL * shop.seconds


def _stand_up(shop: Shop, lane: str) -> None:
    """Start the server that a fault of the lane left dead; the others are for their own lanes."""
    postgresql, rabbitmq = shop.servers.postgresql, shop.servers.rabbitmq
    if lane == "database" and not postgresql.is_alive:
        postgresql.start()
    if lane == "broker" and not rabbitmq.is_alive:
        rabbitmq.start()


def _come_to_rest(shop: Shop, tally: Tally, *, last_fault_s: float) -> None:
    """Wait until nothing is under way; ask again for what nobody knows, and wait once more."""
    try:
        rest(shop.books, shop.observer, within_s=REST_S_MAX, tell=lambda left: say(f"left {left}"))
    except TimeoutError as error:
        tally.stuck = sum(shop.books.under_way().values())
        tally.findings.append(f"STUCK: {error}")
    shop.recoveries_s[DRAINED].append(time.monotonic() - last_fault_s)
    say(f"{shop.part.name}: at rest after {shop.recoveries_s[DRAINED][-1]:.1f} s")
    settled, wrong = settle_unknown(shop.fleet.fronts, shop.journal, shop.books)
    tally.recovered = settled.made_count
    for line in wrong:
        kind = "doubled" if "stood for" in line else "unexpected"
        setattr(tally, kind, getattr(tally, kind) + 1)
        tally.findings.append(f"{kind.upper()}: {line}")
    try:
        rest(shop.books, shop.observer, within_s=REST_S_MAX)
    except TimeoutError as error:
        tally.stuck = sum(shop.books.under_way().values())
        tally.findings.append(f"STUCK: {error}")
    _empty_queues(shop, tally)


def _empty_queues(shop: Shop, tally: Tally) -> None:
    """Wait until nothing lies in a queue of the broker, in anybody's hand, or held for later."""
    lying: dict[str, int] = {}

    def are_empty() -> bool:
        nonlocal lying
        lying = shop.servers.rabbitmq.queue_lengths()
        return not lying

    try:
        seconds_until(are_empty, "all queues are empty", within_s=_QUEUES_S_MAX)
    except TimeoutError as error:
        tally.stuck += sum(lying.values())
        tally.findings.append(f"STUCK: {error}: {lying}")


def _judge(shop: Shop, tally: Tally) -> None:
    journal, supervisor, seen = shop.journal, shop.supervisor, shop.watcher.seen
    told = told_of(shop)
    verdict = judge(shop.books, journal, told=told, observer=shop.observer)
    verdict.add({"a process that ended by itself": supervisor.unexpected})
    verdict.add({"something that went wrong meanwhile": [*shop.wrong, *shop.operators.wrong]})
    verdict.add({"an order closed while its deadline was to come": sorted(seen.early_nos)})
    _add(tally, verdict)
    tally.attempted = len(journal.orders)
    accepted = journal.with_outcome(Outcome.ACCEPTED)
    statuses = shop.books.statuses()
    by_key = shop.books.orders_by_key()
    tally.acknowledged = len(accepted)
    tally.found = sum(
        note.order_no in statuses and by_key.get((note.user_id, note.key)) == note.order_no
        for note in accepted
    )
    tally.refused = sum(note.was_refused for note in journal.orders)
    tally.unreached = len(journal.with_outcome(Outcome.REFUSED)) - tally.refused
    tally.told = _told_counts(shop)
    for event, number in shop.fleet.error_counts().items():
        # What a library logs may name an address in memory.
        tally.errors[event.partition(" <")[0]] += number
    tally.requests, tally.not_now = journal.total(), len(journal.refused_at_s)
    tally.statuses = Counter(statuses.values())
    tally.oversold = seen.breaches_count
    tally.findings += [f"OVERSOLD: {line}" for line in seen.breaches[:5]]
    tally.snapshots, tally.snapshots_with_orders = seen.snapshots_count, seen.orders_count
    tally.points = supervisor.fired_counts
    _count_faults(shop, tally)
    tally.races = count_races(
        shop.books, close_nos=journal.raced_nos["close"], cancel_nos=journal.raced_nos["cancel"]
    )
    tally.recoveries_s = dict(shop.recoveries_s)
    verified = shop.fleet.front.command("verify", "--quiesced")
    tally.verify_exit_codes = [verified.returncode]
    if verified.returncode:
        tally.findings.append(f"verify: {verified.stdout} {verified.stderr}")


def told_of(shop: Shop) -> Told:
    """Return what others than the buyers of a shop were told."""
    return Told(
        trade_nos=shop.operators.trade_nos,
        case_ids=sorted(shop.operators.resolved_ids),
        restock_keys=shop.operators.restock_keys,
        planted=shop.planted,
        wiped_ids=frozenset(shop.wiped_ids),
        webhooks=None if shop.receiver is None else shop.receiver.by_order(),
    )


def _told_counts(shop: Shop) -> Counter[str]:
    """Return how much was acknowledged besides orders."""
    given_back = "select count(*) from order_refunds where status = 'succeeded'"
    return Counter(
        {
            PAYMENTS: len(shop.journal.paid_nos),
            CANCELS: len(shop.journal.cancelled_nos),
            REFUNDS: shop.books.rows(given_back)[0][0],
            CASES: len(shop.operators.resolved_ids),
            RESTOCKS: sum(shop.operators.restock_keys.values()),
        }
    )


def _add(tally: Tally, verdict: Verdict) -> None:
    tally.lost += count(verdict.lost)
    tally.doubled += count(verdict.doubled)
    tally.unexpected += count(verdict.unexpected)
    tally.findings += verdict.lines


def _count_faults(shop: Shop, tally: Tally) -> None:
    servers = {"postgresql": ("kill_postgresql",), "rabbitmq": ("kill_rabbitmq", "wipe_rabbitmq")}
    supervisor = shop.supervisor
    tally.kills = Counter(supervisor.killed_counts)
    for role, number in supervisor.fired_by_role.items():
        tally.kills[f"{role} at a failure point"] = number
    for server, kinds in servers.items():
        tally.kills[server] = sum(shop.done_counts[kind] for kind in kinds)
    for way in (shop.database_way, shop.broker_way):
        for why, number in way.cut_counts.items():
            tally.cuts[f"{way.name}: {why}"] += number
    tally.faults = Counter(shop.done_counts)
    tally.faults["started without a database"] = supervisor.without_database_count


def _far(shop: Shop) -> str:
    supervisor = shop.supervisor
    return (
        f"{len(shop.journal.orders)} orders, {supervisor.killed_counts.total()} killed,"
        f" {supervisor.fired_counts.total()} died at points,"
        f" {shop.done_counts.total()} other faults,"
        f" {shop.watcher.seen.snapshots_count} snapshots, {len(shop.wrong)} wrong"
    )
