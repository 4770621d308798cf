"""What `orderkeep config` shows."""

import json

import pytest

from tests.unit.cli.conftest import Invoke


def test_every_setting_is_listed_with_its_value_and_meaning(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERKEEP_ORDER_TIMEOUT_S", "2.5")

    result = invoke("config", "--json")

    items = {item["variable"]: item for item in json.loads(result.stdout)["items"]}
    assert items["ORDERKEEP_ORDER_TIMEOUT_S"] == {
        "variable": "ORDERKEEP_ORDER_TIMEOUT_S",
        "value": "2.5",
        "is_default": False,
        "meaning": "payment deadline; fractions allowed",
    }
    assert items["ORDERKEEP_HTTP_PORT"]["value"] == "8080"
    assert items["ORDERKEEP_HTTP_PORT"]["is_default"] is True


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_no_secret_and_no_password_is_shown(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    monkeypatch.setenv("ORDERKEEP_JWT_SECRET", "sesame-" * 6)
    monkeypatch.setenv("ORDERKEEP_DATABASE_URL", "postgresql://shop:sesame@db/orders")
    monkeypatch.setenv("ORDERKEEP_BROKER_URL", "amqp://shop:sesame@broker/")
    monkeypatch.setenv("ORDERKEEP_WEBHOOK_URLS", "https://shop:sesame@hooks.example/")
    monkeypatch.setenv("ORDERKEEP_WEBHOOK_SECRETS", "whsec_c2VzYW1lc2VzYW1lc2VzYW1lc2VzYW1l")

    result = invoke("config", *flags)

    assert result.exit_code == 0
    assert "sesame" not in result.stdout
    assert "c2VzYW1l" not in result.stdout
    assert "postgresql://shop:***@db/orders" in result.stdout
