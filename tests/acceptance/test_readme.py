"""What the README and the other documents tell their reader to do, done as printed."""

import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.acceptance.running import clean_environment, start_shop
from tests.acceptance.walks import (
    WALK_S_MAX,
    Walked,
    blocks_of,
    find_missing,
    flaws_of,
    walk,
)
from tests.servers.availability import fresh_vhost, rabbitmq_server
from tests.servers.own_process import free_port

ROOT = Path(__file__).parents[2]

README = ROOT / "README.md"

# In these the reader has started a shop elsewhere; the others start their own.
WITH_A_SHOP = {README, ROOT / "docs" / "how-to" / "operate.md"}

# In these the reader has a RabbitMQ.
WITH_A_BROKER = {ROOT / "docs" / "how-to" / "connect-your-services.md"}

DOCUMENTS = [README, *sorted((ROOT / "docs").rglob("*.md"))]

# Those who only want to run the tests need neither; those who follow a page need both.
needs_a_shell = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="bash or curl is missing"
)

WALKS = [path for path in DOCUMENTS if any(block.is_run for block in blocks_of(path.read_text()))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def make_checkout(folder: Path) -> Path:
    """Make a folder that looks to a reader like this repository after `make install`."""
    folder.mkdir()
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def environment(**ports: int) -> dict[str, str]:
    """Return a reader's environment; addresses are the only thing that differs from the page."""
    return {
        **clean_environment(),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        **{name.upper(): str(port) for name, port in ports.items()},
    }


def walk_document(path: Path, *, checkout: Path) -> Walked:
    """Follow a document to its end, beside a shop where the document takes one for granted."""
    blocks = blocks_of(path.read_text())
    if path not in WITH_A_SHOP:
        ports = environment(orderkeep_http_port=free_port(), receiver_port=free_port())
        if path not in WITH_A_BROKER:
            return walk(blocks, folder=checkout, environment=ports)
        with fresh_vhost(rabbitmq_server()) as url:
            broker = {"ORDERKEEP_BROKER_URL": url}
            return walk(blocks, folder=checkout, environment=ports | broker)
    with start_shop(checkout, data_dir=checkout / "orderkeep-data") as shop:
        port = int(shop.environment["ORDERKEEP_HTTP_PORT"])
        return walk(blocks, folder=checkout, environment=environment(orderkeep_http_port=port))


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Walked]:
    """Follows a document; asked for the same one again, it tells of the walk there was."""

    @cache
    def follow(path: Path) -> Walked:
        checkout = make_checkout(tmp_path_factory.mktemp(path.stem) / "checkout")
        return walk_document(path, checkout=checkout)

    return follow


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_command_of_a_document_is_run_or_says_why_not(path: Path) -> None:
    assert list(flaws_of(blocks_of(path.read_text()))) == []


@needs_a_shell
@pytest.mark.slow
@pytest.mark.timeout(WALK_S_MAX + 60)
@pytest.mark.parametrize("path", WALKS, ids=name_of)
def test_a_document_can_be_followed_as_printed(
    path: Path, walked: Callable[[Path], Walked]
) -> None:
    blocks = blocks_of(path.read_text())

    session = walked(path)

    assert session.exit_code == 0, session.last
    for shown, block in zip(blocks[1:], blocks[:-1], strict=True):
        if shown.language == "output":
            printed = session.outputs[block.line]
            missing = find_missing(shown.text, actual=printed)
            assert missing is None, f"line {shown.line}: {missing!r} is not in:\n{printed}"


@needs_a_shell
@pytest.mark.slow
@pytest.mark.timeout(WALK_S_MAX + 60)
def test_the_tour_shows_what_it_promises(walked: Callable[[Path], Walked]) -> None:
    session = walked(README)

    printed = "\n".join(session.outputs.values())
    assert printed.count("HTTP/1.1 201 Created") == 2
    assert printed.count("idempotent-replayed: true") == 1
    assert '{"items":[]}' in printed.split("\n")
    assert '"status":"paid"' in printed
    assert '"code":"order_not_pending"' in printed
    assert '"available":8,"reserved":0,"sold":2' in printed
    assert "cause=buyer actor=alice" in printed
    assert "malformed_json" in printed
    assert session.last.split("\n")[0] == "Every guarantee holds."
    assert "no dead letters" in session.last.split("\n")


PLANTED = [
    ("```sh\nrm -r orderkeep-data\n```", "line 1: sh is never run"),
    ("```\nmake run\n```", "line 1: a block without a language is never run"),
    ("  ```bash\n  make run\n  ```", "line 1: an indented one is never run"),
    ("<!-- not run: because -->\n```bash\nmake run\n```", "line 2: 'because' is no reason"),
    ("```python\nprint()\n```", "line 1: the file has no name"),
    ("<!-- file: a.py -->\n```python\nprint()\n```", "line 2: no command runs a.py"),
    ("```output\n3\n```", "line 1: it is the output of nothing that is run"),
]


@pytest.mark.parametrize(("text", "flaw"), PLANTED)
def test_a_block_that_would_not_be_run_is_found(text: str, flaw: str) -> None:
    assert list(flaws_of(blocks_of(text))) == [flaw]


@needs_a_shell
def test_a_block_that_says_why_is_let_be(tmp_path: Path) -> None:
    text = "<!-- not run: it would serve until it is stopped -->\n```bash\nexit 1\n```"

    walked = walk(blocks_of(text), folder=tmp_path, environment=clean_environment())

    assert list(flaws_of(blocks_of(text))) == []
    assert walked == Walked(exit_code=0, outputs={})


@needs_a_shell
def test_a_walk_is_one_session_that_ends_where_it_fails(tmp_path: Path) -> None:
    text = (
        "```bash\nname=one\n```\n"
        "<!-- file: two.py -->\n```python\nprint('two')\n```\n"
        "```bash\necho $name; python3 two.py\n```\n"
        "```bash\necho three; false\necho four\n```\n"
        "```bash\necho five\n```"
    )

    walked = walk(blocks_of(text), folder=tmp_path, environment=clean_environment())

    assert walked == Walked(exit_code=1, outputs={1: "", 5: "", 8: "one\ntwo", 11: "three"})


@pytest.mark.parametrize(
    ("expected", "missing"),
    [
        ("id  is\norder-…  open", None),
        ("…\norder-1 open\n…", None),
        ("order-… open", None),
        ("order-2 open", "order-2 open"),
        ("order-1", "order-1"),
        ("order-1 open\nid is", "id is"),
    ],
)
def test_an_output_is_compared_line_by_line(expected: str, missing: str | None) -> None:
    actual = "id       is\norder-1  open\n"

    assert find_missing(expected, actual=actual) == missing
