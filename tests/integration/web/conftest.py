"""A small application for each test."""

import pytest

from tests.unit.web.small_shop import Shop


@pytest.fixture
def shop() -> Shop:
    return Shop()
