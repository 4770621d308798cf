"""A run for a person's eyes, with Rich, and for a program's, as plain JSON values."""

from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from orderkeep.demo.run import DemoSummary
from orderkeep.demo.run import Progress as DemoProgress


def summary_json(summary: DemoSummary) -> dict[str, Any]:
    """Return the summary as plain values, with the names of `DemoSummary`."""
    return asdict(summary)


def summary_tables(summary: DemoSummary) -> Group:
    """Return the summary as tables to print."""
    parts: list[Table | Text] = [
        _headline(summary),
        _counts(summary),
        _answers(summary),
        _latencies(summary),
    ]
    parts.extend(Text(f"surprise: {text}", style="bold red") for text in summary.surprises)
    return Group(*parts)


class DemoProgressBar:
    """Shows how far a run is, for as long as it is entered; hidden where no person looks."""

    def __init__(self, console: Console, *, duration_s: float) -> None:
        self._duration_s = duration_s
        self._bar = Progress(
            TextColumn("shoppers are busy"),
            BarColumn(),
            TextColumn("{task.fields[orders]} orders"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("demo", total=duration_s, orders=0)

    def __enter__(self) -> Callable[[DemoProgress], None]:
        """Return what to give to `DemoOptions.on_progress`."""
        self._bar.start()
        return self._show

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()

    def _show(self, progress: DemoProgress) -> None:
        self._bar.update(
            self._task,
            completed=min(progress.elapsed_s, self._duration_s),
            orders=progress.order_count,
        )


def _headline(summary: DemoSummary) -> Text:
    return Text(
        f"{summary.order_count} orders by {summary.shopper_count} shoppers in "
        f"{summary.elapsed_s:.1f} s: {summary.orders_per_s:.1f} orders/s"
    )


def _counts(summary: DemoSummary) -> Table:
    table = Table(title="Visits, and where the orders stand", title_justify="left")
    table.add_column("what")
    table.add_column("count", justify="right")
    for story, count in summary.visits.items():
        table.add_row(f"visit: {story}", str(count))
    for status, count in summary.statuses.items():
        table.add_row(f"order: {status}", str(count))
    return table


def _answers(summary: DemoSummary) -> Table:
    table = Table(title="Answers", title_justify="left")
    table.add_column("step")
    table.add_column("answer")
    table.add_column("count", justify="right")
    for step, codes in summary.answers.items():
        for code, count in codes.items():
            table.add_row(step, code, str(count))
    return table


def _latencies(summary: DemoSummary) -> Table:
    table = Table(title="Latencies in ms", title_justify="left")
    table.add_column("step")
    for name in ("count", "p50", "p95", "p99", "max"):
        table.add_column(name, justify="right")
    for step, latency in summary.latencies.items():
        table.add_row(
            step,
            str(latency.count),
            f"{latency.p50_ms:.1f}",
            f"{latency.p95_ms:.1f}",
            f"{latency.p99_ms:.1f}",
            f"{latency.max_ms:.1f}",
        )
    return table
