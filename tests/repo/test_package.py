"""The package can be locked, built, installed and started."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.repo.checkout import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-bench.lock"]


def pins(lock: str) -> dict[str, Version]:
    found = re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {name: Version(version) for name, version in found}


def wanted(requirements: list[str]) -> list[Requirement]:
    return [Requirement(text) for text in requirements]


def unmet(requirements: list[Requirement], *, lock: str) -> list[str]:
    pinned = pins(lock)
    return [
        str(requirement)
        for requirement in requirements
        if (name := re.sub(r"[-_.]+", "-", requirement.name).lower()) not in pinned
        or pinned[name] not in requirement.specifier
    ]


def test_the_lock_serves_what_the_project_asks_for() -> None:
    assert unmet(wanted(PROJECT["project"]["dependencies"]), lock="requirements.lock") == []


def test_the_lock_for_development_serves_what_developers_ask_for() -> None:
    requirements = wanted(
        PROJECT["project"]["dependencies"]
        + PROJECT["dependency-groups"]["dev"]
        + PROJECT["build-system"]["requires"]
    )

    assert unmet(requirements, lock="requirements-dev.lock") == []


def test_the_lock_for_benchmarks_serves_what_their_peers_ask_for() -> None:
    requirements = wanted(PROJECT["dependency-groups"]["bench"])

    assert unmet(requirements, lock="requirements-bench.lock") == []


def test_a_peer_has_the_versions_that_the_service_has() -> None:
    service = pins("requirements.lock")
    peer = pins("requirements-bench.lock")

    shared = service.keys() & peer.keys()

    assert {"sqlalchemy", "uvicorn", "uvloop"} <= shared
    assert {name: peer[name] for name in shared} == {name: service[name] for name in shared}


def test_a_requirement_that_the_lock_does_not_serve_is_found() -> None:
    requirements = wanted(["litestar>=99", "no-such-thing", "rich"])

    assert unmet(requirements, lock="requirements.lock") == ["litestar>=99", "no-such-thing"]


def test_both_locks_pin_the_same_versions() -> None:
    developers = pins("requirements-dev.lock")

    assert pins("requirements.lock").items() <= developers.items()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash_and_no_line_names_an_index(lock: str) -> None:
    text = (ROOT / lock).read_text()

    for pin in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in pin, pin
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (path,) = folder.glob("orderkeep-*.whl")
    return path


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-index"],
        check=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )


def run_alone(command: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where it sees neither the sources nor a path to them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [command, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=command.parent,
        env={**environment, "COLUMNS": "100", "NO_COLOR": "1"},
    )


@pytest.mark.slow
def test_the_wheel_holds_the_package_the_types_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    tops = {name.partition("/")[0] for name in names}
    assert tops == {"orderkeep", "orderkeep-0.1.0.dist-info"}
    assert {"orderkeep/py.typed", "orderkeep/database/migrations/env.py"} <= names
    assert "orderkeep-0.1.0.dist-info/licenses/LICENSE" in names


@pytest.mark.slow
def test_the_command_starts_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    scheme = {"base": str(environment), "platbase": str(environment)}
    site_packages = Path(sysconfig.get_path("purelib", vars=scheme))
    # The libraries are the ones that run the tests; the package itself is not among them, since
    # the link to the sources is a .pth file of its own, and those do not nest.
    (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip("--python", str(environment), "install", "--no-deps", str(wheel))

    bin_folder = environment / "bin"
    shown = run_alone(bin_folder / "orderkeep", "--help")
    found = run_alone(bin_folder / "python", "-c", "import orderkeep; print(orderkeep.__file__)")

    assert shown.returncode == 0, shown.stderr
    assert "Usage: orderkeep" in shown.stdout
    assert found.stdout.startswith(str(site_packages)), found
