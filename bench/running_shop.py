"""A real service that answers: one `orderkeep run`, or `orderkeep serve` with `orderkeep work`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
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
        ) as running,
        closing(Watch(data_dir / "orderkeep.db", check=running.check)) as watch,
    ):
        yield RunningShop(port=port, watch=watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProcesses:
    """A `serve`, and a `work` unless it was left out, on the same servers.

    Attributes:
        port: Where `serve` answers.
        check: Raises if one of them no longer runs.
        process_ids: By the name of the command.
    """

    port: int
    check: Callable[[], None]
    process_ids: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def running_processes(
    folder: Path, *, environment: Mapping[str, str], names: Sequence[str] = ("work", "serve")
) -> Iterator[RunningProcesses]:
    """Run one of each until the context ends.

    Args:
        folder: Takes their logs.
        environment: Names the database and the broker.
        names: Of the commands. `work` first: it makes the queues that what `serve` accepts goes to.
    """
    ports = {name: free_port() for name in ("serve", "work")}
    settings = {
        "ORDERKEEP_DATA_DIR": str(folder / "data"),
        "ORDERKEEP_HTTP_PORT": str(ports["serve"]),
        "ORDERKEEP_WORK_HTTP_PORT": str(ports["work"]),
        "ORDERKEEP_JWT_SECRET": JWT_SECRET,
        **environment,
    }
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(
                running_command(
                    name, port=ports[name], environment=settings, log_path=folder / f"{name}.log"
                )
            )
            for name in names
        }

        def check() -> None:
            for one in running.values():
                one.check()

        yield RunningProcesses(
            port=ports["serve"],
            check=check,
            process_ids={name: one.process_id for name, one in running.items()},
        )
