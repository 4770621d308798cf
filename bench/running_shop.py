"""A real service that answers: one `orderkeep run`, or `orderkeep serve` with `orderkeep work`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.own_command import free_port, running_command
from bench.stage import JWT_SECRET
from bench.watching import Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningShop:
    """A service that answers.

    Attributes:
        watch: Looks into its database from outside.
    """

    port: int
    watch: Watch


@contextmanager
def running_shop(
    data_dir: Path, *, environment: Mapping[str, str] | None = None
) -> Iterator[RunningShop]:
    """Run the whole service on the directory until the context ends."""
    port = free_port()
    settings = {
        "ORDERKEEP_DATA_DIR": str(data_dir),
        "ORDERKEEP_HTTP_PORT": str(port),
        "ORDERKEEP_JWT_SECRET": JWT_SECRET,
        **(environment or {}),
    }
    with (
        running_command(
            "run", port=port, environment=settings, log_path=data_dir.with_suffix(".log")
        ) as check,
        closing(Watch(data_dir / "orderkeep.db", check=check)) as watch,
    ):
        yield RunningShop(port=port, watch=watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPair:
    """A `serve` and a `work` on the same servers.

    Attributes:
        port: Where `serve` answers.
        check: Raises if one of the two no longer runs.
    """

    port: int
    check: Callable[[], None]


@contextmanager
def serve_and_work(folder: Path, *, environment: Mapping[str, str]) -> Iterator[RunningPair]:
    """Run one of each until the context ends.

    Args:
        folder: Takes their logs.
        environment: Names the database and the broker.
    """
    serve_port, work_port = free_port(), free_port()
    settings = {
        "ORDERKEEP_DATA_DIR": str(folder / "data"),
        "ORDERKEEP_HTTP_PORT": str(serve_port),
        "ORDERKEEP_WORK_HTTP_PORT": str(work_port),
        "ORDERKEEP_JWT_SECRET": JWT_SECRET,
        **environment,
    }
    with ExitStack() as stack:
        # `work` first: it makes the queues that what `serve` accepts goes to.
        checks = [
            stack.enter_context(
                running_command(
                    name, port=port, environment=settings, log_path=folder / f"{name}.log"
                )
            )
            for name, port in (("work", work_port), ("serve", serve_port))
        ]

        def check() -> None:
            for one in checks:
                one()

        yield RunningPair(port=serve_port, check=check)
