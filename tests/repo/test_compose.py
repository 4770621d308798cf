"""What `compose.yaml` and the Dockerfile name exists; nothing here needs Docker."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]  # it brings no types

from orderkeep.cli import app
from orderkeep.settings import load_settings
from tests.repo.checkout import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())

SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

OURS = sorted(name for name, service in SERVICES.items() if service.get("build"))

SECRETS = "/run/secrets/"


def environment_of(service: dict[str, Any], *, folder: Path) -> dict[str, str]:
    """Return a service's variables, with each secret in a file of the folder."""
    contents = {
        "database_url": "postgresql://shop:pw@postgresql/shop",
        "migration_database_url": "postgresql://owner:pw@postgresql/shop",
        "broker_url": "amqp://shop:pw@rabbitmq-1/shop,amqp://shop:pw@rabbitmq-2/shop",
        "jwt_secret": "0123456789abcdef0123456789abcdef",
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
    return {
        name: str(value).replace(SECRETS, f"{folder}/")
        for name, value in service.get("environment", {}).items()
    }


def mounted_files() -> Iterator[tuple[str, str]]:
    """Yield each file or folder of ours that a service mounts, with where it is seen."""
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            if source.startswith("./"):
                yield source, target


def test_the_set_up_is_the_one_that_is_promised() -> None:
    commands = [(SERVICES[name]["command"][0]) for name in OURS]

    assert sorted(commands) == ["doctor", "migrate", "serve", "serve", "work", "work"]
    assert {name for name in SERVICES if re.fullmatch(r"rabbitmq-\d", name)} == {
        "rabbitmq-1",
        "rabbitmq-2",
        "rabbitmq-3",
    }
    assert "postgresql" in SERVICES


@pytest.mark.parametrize("name", OURS)
def test_every_setting_of_a_service_is_known_and_allowed(name: str, tmp_path: Path) -> None:
    environ = environment_of(SERVICES[name], folder=tmp_path)

    settings = load_settings(environ)

    assert environ.keys() == {each for each in environ if each.startswith("ORDERKEEP_")}
    assert not settings.is_embedded
    assert not settings.is_sandbox_on
    assert (settings.jwt_secret is not None) is (
        SERVICES[name]["command"][0] in {"serve", "doctor"}
    )


@pytest.mark.parametrize("name", OURS)
def test_every_command_of_a_service_exists(name: str) -> None:
    commands = getattr(typer.main.get_command(app), "commands", {})

    assert SERVICES[name]["command"][0] in commands


def test_every_secret_of_a_service_is_declared_and_drawn() -> None:
    drawn = (ROOT / "deploy" / "make-secrets.sh").read_text()

    for name, service in SERVICES.items():
        used = {
            str(value).removeprefix(SECRETS)
            for value in service.get("environment", {}).values()
            if str(value).startswith(SECRETS)
        }
        assert used <= set(service.get("secrets", [])), name
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys(), name
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
        assert re.search(rf"\b{name}\b", drawn), name


def test_every_file_that_is_mounted_exists() -> None:
    mounted = list(mounted_files())

    assert len(mounted) >= 6
    assert [source for source, _target in mounted if not (ROOT / source).exists()] == []


def test_every_file_that_is_run_inside_is_mounted() -> None:
    targets = {target: source for source, target in mounted_files()}
    run = {
        word
        for service in SERVICES.values()
        for word in [*service.get("entrypoint", []), *service.get("command", [])]
        if str(word).startswith("/deploy/")
    }

    assert run == {"/deploy/with-cookie.sh", "/deploy/permissions.sh"}
    assert run <= targets.keys()
    # The image runs it by its place.
    init = (ROOT / targets["/docker-entrypoint-initdb.d/10-orderkeep.sh"]).read_text()
    assert "/deploy/postgresql/roles.sql" in init
    assert targets["/deploy/postgresql"] == "./deploy/postgresql"


def test_every_service_that_is_waited_for_exists() -> None:
    for name, service in SERVICES.items():
        assert service.get("depends_on", {}).keys() <= SERVICES.keys(), name
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]


@pytest.mark.parametrize(("command", "port"), [("serve", 8080), ("work", 8081)])
def test_health_is_asked_where_it_is_answered(command: str, port: int) -> None:
    asked = [
        service["healthcheck"]["test"][-1]
        for service in SERVICES.values()
        if service.get("command") == [command]
    ]

    assert len(asked) == 2
    for program in asked:
        assert f"http://127.0.0.1:{port}/health/ready" in program
        compile(program, "healthcheck", "exec")


def test_a_service_has_longer_to_stop_than_it_takes() -> None:
    for name in OURS:
        grace_s = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > load_settings({}).shutdown_s


def test_nodes_are_named_as_they_look_for_each_other() -> None:
    conf = (ROOT / "deploy" / "rabbitmq" / "rabbitmq.conf").read_text()
    sought = re.findall(
        r"^cluster_formation\.classic_config\.nodes\.\d = (.+)$", conf, re.MULTILINE
    )

    assert sought == [
        f"rabbit@{SERVICES[f'rabbitmq-{number}']['hostname']}" for number in (1, 2, 3)
    ]
    assert SERVICES["rabbitmq-user"]["environment"]["RABBITMQ_NODENAME"] in sought


def test_only_this_machine_reaches_what_is_opened() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert len(ports) == len(set(ports)) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_is_built_of_files_that_exist_and_are_sent() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    sent = (ROOT / ".dockerignore").read_text().splitlines()

    copied = [
        source
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for source in shlex.split(line)[1:-1]
    ]
    (entry,) = (line.removeprefix("ENTRYPOINT ") for line in lines if line.startswith("ENTRYPOINT"))

    assert copied == ["requirements.lock", "pyproject.toml", "README.md", "LICENSE", "src"]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert [source for source in copied if f"!{source}" not in sent] == []
    assert json.loads(entry) == ["orderkeep"]


def test_secrets_stay_out_of_the_repository() -> None:
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
