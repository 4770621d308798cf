"""The migrations in their order, and the SQL of one.

Every command asks which version is the newest, and hardly any migrates: so Alembic, which takes a
tenth of a command's time to load, is loaded by whoever does.
"""

from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config

_SCRIPTS = Path(__file__).parent / "migrations"


def alembic_config(output: StringIO | None = None) -> "Config":
    """Return what Alembic needs to know; `output` takes SQL that it does not run itself."""
    from alembic.config import Config

    config = Config() if output is None else Config(output_buffer=output)
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@lru_cache(maxsize=1)
def versions() -> tuple[str, ...]:
    """Return all versions, the oldest first: what the names of the scripts begin with."""
    names = [path.name for path in (_SCRIPTS / "versions").glob("[0-9]*.py")]
    return tuple(sorted(name.partition("_")[0] for name in names))


def following_version(version: str | None) -> str | None:
    """Return the version that the next migration leads to, or None where there is none.

    Args:
        version: None is before the first; behind one that this release does not know, none follows.
    """
    if version is not None and version not in versions():
        return None
    index = 0 if version is None else versions().index(version) + 1
    return versions()[index] if index < len(versions()) else None


def upgrade_sql(version: str | None, following: str) -> str:
    """Return the statements of one migration, and of the new version, for PostgreSQL."""
    from alembic import command

    output = StringIO()
    command.upgrade(alembic_config(output), f"{version or 'base'}:{following}", sql=True)
    return output.getvalue()
