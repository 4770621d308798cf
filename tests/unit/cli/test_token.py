"""The token that `orderkeep token` prints."""

import time
from pathlib import Path

import jwt
import pytest

from tests.unit.cli.conftest import Invoke

SECRET = "a secret of more than thirty-two bytes"


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERKEEP_JWT_SECRET", SECRET)


def claims_of(printed: str) -> dict:
    assert printed.count("\n") == 1
    return jwt.decode(printed.strip(), SECRET, algorithms=["HS256"], audience="orderkeep")


def test_a_token_stands_for_its_user_for_an_hour(invoke: Invoke) -> None:
    result = invoke("token", "--user", "ann")

    claims = claims_of(result.stdout)
    lasts_s = claims.pop("exp") - time.time()  # noqa: TID251 (a token is dated by the wall clock)
    assert claims == {"sub": "ann", "aud": "orderkeep"}
    assert 3500 < lasts_s <= 3600
    assert result.stderr == ""


def test_scopes_and_life_are_as_asked(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERKEEP_JWT_ISSUER", "shop")

    result = invoke(
        "token", "--user", "bob", "--scope", "operator", "--scope", "messages", "--ttl", "60"
    )

    claims = claims_of(result.stdout)
    lasts_s = claims.pop("exp") - time.time()  # noqa: TID251 (a token is dated by the wall clock)
    expected = {"sub": "bob", "aud": "orderkeep", "iss": "shop", "scope": "operator messages"}
    assert claims == expected
    assert 0 < lasts_s <= 60


def test_a_scope_nobody_knows_is_warned_of_beside_the_token(invoke: Invoke) -> None:
    result = invoke("token", "--user", "bob", "--scope", "operators")

    assert claims_of(result.stdout)["scope"] == "operators"
    assert "'operators' opens nothing" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--user", "not a name"],
        ["--user", ""],
        ["--user", "ann", "--scope", "two words"],
        ["--user", "ann", "--ttl", "0"],
        ["--user", "ann", "--ttl", "-5"],
        ["--user", "ann", "--ttl", "1.5"],
        [],
    ],
)
def test_wrong_usage_prints_no_token(invoke: Invoke, arguments: list[str]) -> None:
    result = invoke("token", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")


def test_without_a_setting_the_secret_is_made_in_the_data_directory(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ORDERKEEP_JWT_SECRET")

    result = invoke("token", "--user", "ann")

    secret = (tmp_path / "data" / "jwt-secret").read_text()
    assert jwt.decode(result.stdout.strip(), secret, algorithms=["HS256"], audience="orderkeep")
    assert f"a new one was made in {tmp_path}/data/jwt-secret" in result.stderr
    assert invoke("token", "--user", "ann").stderr == ""


def test_a_secret_beside_a_database_server_is_warned_of(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "jwt-secret").write_text(SECRET)
    monkeypatch.delenv("ORDERKEEP_JWT_SECRET")
    monkeypatch.setenv("ORDERKEEP_DATABASE_URL", "postgresql://shop@127.0.0.1:9/orders")

    result = invoke("token", "--user", "ann")

    assert claims_of(result.stdout)["sub"] == "ann"
    assert f"the secret in {tmp_path}/data/jwt-secret" in result.stderr
    assert "ORDERKEEP_JWT_SECRET" in result.stderr


def test_no_secret_is_made_up_where_others_serve(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ORDERKEEP_JWT_SECRET")
    monkeypatch.setenv("ORDERKEEP_DATABASE_URL", "postgresql://shop@127.0.0.1:9/orders")

    result = invoke("token", "--user", "ann")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "ORDERKEEP_JWT_SECRET" in result.stderr
    assert not (tmp_path / "data").exists()
