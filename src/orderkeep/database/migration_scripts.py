"""The migrations in their order, and the SQL of one."""

from functools import lru_cache
from io import StringIO
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

_SCRIPTS = Path(__file__).parent / "migrations"


def alembic_config(output: StringIO | None = None) -> Config:
    """Return what Alembic needs to know; `output` takes SQL that it does not run itself."""
    config = Config() if output is None else Config(output_buffer=output)
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@lru_cache(maxsize=1)
def versions() -> tuple[str, ...]:
    """Return all versions, the oldest first."""
    scripts = ScriptDirectory.from_config(alembic_config())
    return tuple(reversed([script.revision for script in scripts.walk_revisions()]))


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
    output = StringIO()
    command.upgrade(alembic_config(output), f"{version or 'base'}:{following}", sql=True)
    return output.getvalue()
