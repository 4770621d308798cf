"""The one collection of tables, and the column types that mean the same on every engine."""

from sqlalchemy import BigInteger, Integer, MetaData
from sqlalchemy.types import TypeEngine

# Names are fixed so that a migration can name what it changes on every engine.
METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# A row number: SQLite only numbers rows by itself in a column of exactly INTEGER.
ROW_NUMBER: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")

# An instant: microseconds since 1970 UTC; see orderkeep.instant.
INSTANT: TypeEngine[int] = BigInteger()

# Money in minor units (hundredths); the currency stands in a column beside it.
AMOUNT_MINOR: TypeEngine[int] = BigInteger()
