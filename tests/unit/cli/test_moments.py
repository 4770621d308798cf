"""Moments as a person types them."""

import pytest

from orderkeep.cli.exits import WrongUsageError
from orderkeep.cli.moments import read_moment

# 2024-01-01T00:00:00Z
AT = 1_704_067_200_000_000
HOUR = 3_600_000_000


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (None, None),
        ("2024-01-01", AT),
        ("2024-01-01T10:00:00", AT + 10 * HOUR),
        ("2024-01-01 10:00:00.5", AT + 10 * HOUR + 500_000),
        ("2024-01-01T10:00:00Z", AT + 10 * HOUR),
        ("2024-01-01T10:00:00+08:00", AT + 2 * HOUR),
    ],
)
def test_a_date_is_its_beginning_and_what_has_no_zone_is_utc(
    text: str | None, moment: int | None
) -> None:
    assert read_moment("--from", text) == moment


@pytest.mark.parametrize("text", ["soon", "", "2024-02-30", "2024-01-01T10", "2024-01-01T25:00:00"])
def test_what_is_no_moment_is_wrong_usage(text: str) -> None:
    with pytest.raises(WrongUsageError, match="--from"):
        read_moment("--from", text)
