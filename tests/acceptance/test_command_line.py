"""The commands as a person starts them: real processes, exit codes, and what they print."""

import json
import os
import pty
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.acceptance.running import (
    STOP_S_MAX,
    RunningShop,
    clean_environment,
    command_line,
    run_command,
    start_shop,
    variables,
)
from tests.servers.own_process import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    """A shop that every test of this module may use, and none may stop."""
    with start_shop(tmp_path_factory.mktemp("shop")) as running:
        running.put_sku("tea", stock=1000)
        yield running


def settings_for(folder: Path, **settings: object) -> dict[str, str]:
    return variables(data_dir=folder / "data", http_port=free_port(), **settings)


def execute(path: Path, statement: str, *parameters: object) -> None:
    """Change a database that nobody serves, as no command would."""
    with closing(sqlite3.connect(path)) as connection, connection:
        changed = connection.execute(statement, parameters)
        assert changed.rowcount != 0, "the statement changes nothing"


def told_in_one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("orderkeep: ")
    return done.stderr


# run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_says_where_it_serves_and_ends_in_peace_when_told_to(
    tmp_path: Path, number: signal.Signals
) -> None:
    with start_shop(tmp_path) as shop:
        shop.wait_until(lambda: shop.log_events("nothing_for_sale_yet"), "the hint is logged")
        assert shop.process is not None
        shop.process.send_signal(number)
        exit_code = shop.process.wait(STOP_S_MAX)

        (serving,) = shop.log_events("serving")
        names = [event["event"] for event in shop.log_events()]

    assert exit_code == 0
    assert (serving["url"], serving["docs"]) == (shop.url, f"{shop.url}/docs")
    assert names[-2:] == ["shutting_down", "stopped"]
    assert all(line.startswith("{") for line in shop.log_text().splitlines())


def test_a_second_signal_ends_a_run_that_still_waits_for_a_request(tmp_path: Path) -> None:
    with start_shop(tmp_path) as shop, socket.create_connection(("127.0.0.1", shop.port)) as slow:
        assert shop.process is not None
        head = (
            f"POST /api/v1/orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n"
            f"Authorization: Bearer {shop.token('ann')}\r\nExpect: 100-continue\r\n\r\n"
        )
        slow.sendall(head.encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 100")  # it waits for the body now

        shop.process.send_signal(signal.SIGTERM)
        shop.wait_until(lambda: shop.log_events("shutting_down"), "it shuts down")
        shop.process.send_signal(signal.SIGTERM)
        exit_code = shop.process.wait(STOP_S_MAX)

    assert exit_code == -signal.SIGTERM
    assert shop.log_events("stopped") == []


def test_a_second_run_on_the_same_data_is_refused(shop: RunningShop) -> None:
    done = shop.command("run", environment=variables(http_port=free_port()))

    assert done.returncode == 2
    assert f"{shop.data_dir} is in use" in told_in_one_line(done)
    assert shop.is_alive


def test_a_port_in_use_is_refused(shop: RunningShop, tmp_path: Path) -> None:
    done = run_command(
        "run", environment={**settings_for(tmp_path), **variables(http_port=shop.port)}
    )

    assert done.returncode == 2
    assert f"port {shop.port} on 127.0.0.1 is in use" in told_in_one_line(done)


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")  # nobody, not even root, makes a directory under a file

    done = run_command("run", environment=variables(data_dir=tmp_path / "file" / "data"))

    assert done.returncode == 2
    assert "cannot be written" in told_in_one_line(done)


def test_a_database_from_a_newer_release_is_refused(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    run_command("migrate", environment=settings)
    execute(tmp_path / "data" / "orderkeep.db", "update alembic_version set version_num = '9999'")

    done = run_command("run", environment=settings)

    assert done.returncode == 2
    assert "install" in told_in_one_line(done)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "orderkeep.db").write_text("not a database at all\n" * 100)

    done = run_command("run", environment=settings)

    assert done.returncode == 2
    assert "not a database" in told_in_one_line(done)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        # The discard port: nobody listens there.
        (
            {"database_url": "postgresql://shop:sesame@127.0.0.1:9/orders"},
            "cannot connect to PostgreSQL",
        ),
        (
            {"broker_url": "amqp://shop:sesame@127.0.0.1/?heartbeat=sometimes"},
            "ORDERKEEP_BROKER_URL",
        ),
        (
            {"broker_url": "amqp://shop:sesame@127.0.0.1/?colour=red"},
            "ORDERKEEP_BROKER_URL",
        ),
    ],
)
def test_a_server_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    done = run_command("run", environment=settings_for(tmp_path, **settings))

    assert done.returncode == 2
    assert words in (told := told_in_one_line(done))
    assert "sesame" not in told


def test_every_wrong_setting_is_named_in_one_message(tmp_path: Path) -> None:
    settings = variables(
        data_dir=tmp_path / "data",
        http_port="eighty",
        order_timeout_s=-1,
        late_payment_policy="shrug",
        webhook_urls="https://hooks.example",
        unused_queues="no.such.queue",
        colour="red",
    )

    done = run_command("run", environment=settings)

    assert (done.returncode, done.stdout) == (2, "")
    first, *lines = done.stderr.splitlines()
    assert first == "orderkeep: 6 settings are wrong:"
    assert [line.split()[0] for line in lines] == [
        "ORDERKEEP_COLOUR",
        "ORDERKEEP_HTTP_PORT",
        "ORDERKEEP_LATE_PAYMENT_POLICY",
        "ORDERKEEP_ORDER_TIMEOUT_S",
        "ORDERKEEP_UNUSED_QUEUES",
        "ORDERKEEP_WEBHOOK_SECRETS",
    ]
    assert not (tmp_path / "data").exists()


def test_on_a_terminal_log_lines_are_made_for_people(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command_line("run"),
        env={**clean_environment(), **settings, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        while b"nothing_for_sale_yet" not in shown:
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        shown += rest_of(ours)
        process.wait(STOP_S_MAX)
    os.close(ours)

    lines = shown.decode().splitlines()
    (serving,) = [line for line in lines if "serving" in line]
    assert f"http://127.0.0.1:{settings['ORDERKEEP_HTTP_PORT']}/docs" in serving
    assert "{" not in shown.decode()
    assert process.returncode == 0


def rest_of(terminal: int) -> bytes:
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # as Linux tells that nobody holds the other end
            return shown


# The answers of commands ----------------------------------------------------------------------


def test_a_printed_token_opens_the_api_for_its_user_alone(shop: RunningShop) -> None:
    printed = shop.command("token", "--user", "eve")
    headers = {"Authorization": f"Bearer {printed.stdout.strip()}"}
    with httpx.Client(base_url=f"{shop.url}/api/v1", headers=headers, trust_env=False) as eve:
        own, admin = eve.get("/orders"), eve.get("/admin/status")

    assert (printed.returncode, printed.stderr) == (0, "")
    assert (own.status_code, admin.status_code) == (200, 403)


def test_the_openapi_document_is_the_served_one(shop: RunningShop) -> None:
    printed = shop.command("openapi")
    served = httpx.get(f"{shop.url}/openapi.json", trust_env=False)

    document = json.loads(printed.stdout)
    assert document == served.json()
    assert "/api/v1/orders" in document["paths"]


def test_a_reader_that_has_gone_is_no_error(shop: RunningShop) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        command_line("openapi"),
        env=shop.environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (141, b"")


def test_an_argument_that_is_no_text_is_refused(shop: RunningShop) -> None:
    done = shop.command("orders", "show", os.fsdecode(b"\xff"))

    assert done.returncode == 2
    assert "not UTF-8" in told_in_one_line(done)


def test_a_terminal_of_few_characters_shows_the_others_as_numbers(
    shop: RunningShop, tmp_path: Path
) -> None:
    done = shop.command("dead-letters", "--help", environment={"PYTHONIOENCODING": "latin-1"})
    shop.put_sku("cha", stock=1)
    file = tmp_path / "skus.csv"
    file.write_text("sku_id,title,price,currency\ncha,茶,12.00,CNY\n", encoding="utf-8")
    shop.command("skus", "import", str(file))
    with shop.client("drinker") as drinker:
        order_no = shop.place_order(drinker, "cha")["order_no"]

    shown = shop.command("orders", "show", order_no, environment={"PYTHONIOENCODING": "latin-1"})

    assert done.returncode == 0
    assert (shown.returncode, shown.stderr) == (0, "")
    assert r"\u8336" in shown.stdout


def test_an_interrupted_command_ends_quietly(shop: RunningShop) -> None:
    before = newest_order_no(shop)
    with subprocess.Popen(
        command_line("demo", "--seconds", "60", "--shoppers", "2"),
        env=shop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever runs the tests in the background has the interrupt ignored by all they start.
        preexec_fn=_heed_interrupts,  # noqa: PLW1509 (no thread of the tests holds a lock here)
    ) as demo:
        shop.wait_until(lambda: newest_order_no(shop) != before, "the shoppers have begun")
        demo.send_signal(signal.SIGINT)
        answer, noise = demo.communicate(timeout=STOP_S_MAX)

    assert demo.returncode == 130
    assert (answer, noise) == (b"", b"")


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def newest_order_no(shop: RunningShop) -> str | None:
    with shop.operator() as operator:
        newest = operator.get("/admin/orders", params={"limit": 1}).json()["items"]
    return newest[0]["order_no"] if newest else None


def test_a_demo_tells_what_its_shoppers_saw(shop: RunningShop) -> None:
    summary = shop.command_json("demo", "--seconds", "1", "--shoppers", "3")

    assert summary["shopper_count"] == 3
    assert summary["order_count"] > 0
    assert summary["surprises"] == []


def test_a_demo_without_a_service_is_refused(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)

    done = run_command("demo", "--seconds", "1", environment=settings)

    assert done.returncode == 2
    assert f":{settings['ORDERKEEP_HTTP_PORT']}" in told_in_one_line(done)


def test_a_demo_that_the_service_does_not_know_says_what_to_do(
    shop: RunningShop, tmp_path: Path
) -> None:
    done = run_command("demo", "--url", shop.url, environment=settings_for(tmp_path))

    assert done.returncode == 2
    assert "ORDERKEEP_JWT_SECRET" in told_in_one_line(done)


# orders ---------------------------------------------------------------------------------------


def test_orders_are_listed_page_by_page_and_shown(shop: RunningShop) -> None:
    with shop.client("pager") as pager:
        numbers = [shop.place_order(pager, "tea")["order_no"] for _ in range(3)][::-1]
        served = pager.get(f"/orders/{numbers[0]}").json()

    first = shop.command_json("orders", "list", "--user", "pager", "--limit", "2")
    rest = shop.command_json(
        "orders", "list", "--user", "pager", "--all", "--cursor", first["next_cursor"]
    )
    shown = shop.command_json("orders", "show", numbers[0])
    timeline = shop.command_json("orders", "timeline", numbers[0])

    assert [item["order_no"] for item in first["items"]] == numbers[:2]
    assert [item["order_no"] for item in rest["items"]] == numbers[2:]
    assert rest["next_cursor"] is None
    assert shown == {**served, "user_id": "pager"}
    assert timeline["items"][0]["kind"] == "state"
    assert timeline["items"][0]["to_status"] == "pending_payment"


def test_orders_are_shown_to_a_person_with_all_that_matters(shop: RunningShop) -> None:
    with shop.client("reader") as reader:
        order_no = shop.place_order(reader, "tea", quantity=3)["order_no"]

    listed = shop.command("orders", "list", "--user", "reader")
    shown = shop.command("orders", "show", order_no)
    told = shop.command("orders", "timeline", order_no)

    assert listed.stdout.splitlines()[1].split()[:5] == [
        order_no,
        "pending_payment",
        "reader",
        "30.00",
        "CNY",
    ]
    assert "The tea" in shown.stdout
    assert "type=order.created" in told.stdout
    assert [done.returncode for done in (listed, shown, told)] == [0, 0, 0]


def test_an_order_is_cancelled_once_and_again_without_harm(shop: RunningShop) -> None:
    with shop.client("canceller") as canceller:
        order_no = shop.place_order(canceller, "tea")["order_no"]

        first = shop.command("orders", "cancel", order_no, "--reason", "asked by phone")
        again = shop.command("orders", "cancel", order_no)

        order = canceller.get(f"/orders/{order_no}").json()
        timeline = canceller.get(f"/orders/{order_no}/timeline").json()["items"]

    assert (first.returncode, again.returncode) == (0, 0)
    assert (order["status"], order["close_reason"], order["version"]) == (
        "cancelled",
        "operator",
        2,
    )
    (change,) = [item for item in timeline if item.get("to_status") == "cancelled"]
    assert change["note"] == "asked by phone"
    assert change["actor"].startswith("cli:")


def test_an_order_that_is_paid_cannot_be_cancelled(shop: RunningShop) -> None:
    with shop.client("payer") as payer, shop.operator() as operator:
        order_no = shop.place_order(payer, "tea")["order_no"]
        operator.post(
            "/queues/payment.success.notify/messages",
            json={"order_no": order_no, "trade_no": f"T-{order_no}", "amount": 10.00},
        )
        shop.wait_until(
            lambda: payer.get(f"/orders/{order_no}").json()["status"] == "paid", "it is paid"
        )

    done = shop.command("orders", "cancel", order_no)

    assert done.returncode == 1
    assert "is paid" in told_in_one_line(done)


# verify ---------------------------------------------------------------------------------------


def test_verify_tells_breaches_from_lateness(tmp_path: Path) -> None:
    with start_shop(tmp_path) as shop:
        shop.put_sku("tea", stock=10)
        with shop.client() as ann:
            order_no = shop.place_order(ann, "tea")["order_no"]
        verified = shop.command_json("verify")
        assert verified.items() >= {"is_clean": True, "breaches": [], "warnings": []}.items()
        shop.stop()

        execute(shop.database_path, "update orders set expires_at = 1 where order_no = ?", order_no)
        late = shop.command_json("verify")
        at_rest = shop.command("verify", "--quiesced")
        execute(shop.database_path, "update stock set available = available + 1")
        broken = shop.command("verify", "--json")
        told = shop.command("verify")

    assert late["is_clean"] is True
    assert [(each["invariant"], each["subjects"]) for each in late["warnings"]] == [
        ("closed-in-time", [order_no])
    ]
    assert at_rest.returncode == 1
    assert order_no in at_rest.stdout
    assert broken.returncode == 1
    (breach,) = json.loads(broken.stdout)["breaches"]
    assert (breach["invariant"], breach["subjects"]) == ("stock-equals-movements", ["tea"])
    assert told.returncode == 1
    assert "stock-equals-movements" in told.stdout
    assert breach["remedy"] in told.stdout


# outbox ---------------------------------------------------------------------------------------


def test_parked_events_are_retried_or_given_up(tmp_path: Path) -> None:
    with start_shop(tmp_path) as shop:
        shop.put_sku("tea", stock=10)
        with shop.client() as ann:
            for _ in range(2):
                shop.place_order(ann, "tea")
        shop.wait_until(lambda: not outbox_rows(shop, "pending"), "everything is sent")
        shop.stop()
        execute(
            shop.database_path,
            "update order_outbox set state = 'failed', sent_at = null where type = 'order.created'",
        )

        failed = shop.command_json("outbox", "list", "--state", "failed")["items"]
        newer, older = [row["id"] for row in failed]
        shown = shop.command("outbox", "show", newer)
        raw = shop.command("outbox", "show", newer, "--raw")
        missing = shop.command("outbox", "show", "order-999")
        waiting = shop.command("outbox", "discard", "--state", "pending", "--yes")
        discarded = shop.command("outbox", "discard", newer, "--yes")
        retried = shop.command("outbox", "retry", "--all")
        shop.restart()
        shop.wait_until(
            lambda: older in outbox_rows(shop, "sent"), "the retried event is sent once more"
        )

    assert [(done.returncode, done.stdout.split()) for done in (discarded, retried)] == [
        (0, ["id", "is", newer, "discarded"]),
        (0, ["id", "is", older, "retried"]),
    ]
    assert shown.stdout.split()[:2] == ["id", newer]
    assert {"state", "failed", "order.created"} <= set(shown.stdout.split())
    assert json.loads(raw.stdout)["event_type"] == "order.created"
    assert json.loads(raw.stdout)["order_no"] in shown.stdout
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "there is no event order-999" in missing.stderr
    assert (waiting.returncode, waiting.stdout) == (0, "")


def outbox_rows(shop: RunningShop, state: str) -> list[str]:
    with shop.operator() as operator:
        page = operator.get("/admin/outbox", params={"state": state, "limit": 100}).json()
    return [row["id"] for row in page["items"]]


# dead-letters ---------------------------------------------------------------------------------


def test_any_bytes_are_set_aside_shown_again_exactly_replayed_and_closed(
    shop: RunningShop,
) -> None:
    poison = b"\x00\xff{\xc3(\n\x1b[31m\xed\xa0\x80"
    queue = "payment.success.notify"
    with shop.operator() as operator:
        answer = operator.post(f"/queues/{queue}/messages", content=poison)
    assert answer.status_code == 202

    (letter,) = shop.wait_until(lambda: open_letters(shop, queue), "it is set aside")
    raw = subprocess.run(
        command_line("dead-letters", "show", letter["id"], "--raw"),
        env=shop.environment,
        capture_output=True,
        check=True,
    )
    replayed = shop.command("dead-letters", "replay", letter["id"])
    shop.wait_until(lambda: open_letters(shop, queue), "it is set aside once more")
    closed = shop.command("dead-letters", "discard", letter["id"], "--yes")
    listed = shop.command_json("dead-letters", "list", "--queue", queue, "--state", "discarded")

    assert raw.stdout == poison
    assert letter["reason"] == "malformed_json"
    assert [done.returncode for done in (replayed, closed)] == [0, 0]
    assert [each["id"] for each in listed["items"]] == [letter["id"]]
    assert open_letters(shop, queue) == []


def open_letters(shop: RunningShop, queue: str) -> list[dict]:
    with shop.operator() as operator:
        return operator.get("/admin/dead-letters", params={"queue": queue}).json()["items"]


# skus -----------------------------------------------------------------------------------------


def test_a_catalogue_is_imported_beside_a_running_service(
    shop: RunningShop, tmp_path: Path
) -> None:
    shop.put_sku("lid", stock=5)
    file = tmp_path / "skus.csv"
    file.write_text(
        "sku_id,title,price,currency,stock\npot,Pot,99.00,CNY,3\nlid,Better lid,12.00,CNY,\n"
    )

    imported = shop.command_json("skus", "import", str(file))
    again = shop.command_json("skus", "import", str(file))
    with shop.operator() as operator:
        pot, lid = operator.get("/admin/skus/pot").json(), operator.get("/skus/lid").json()

    assert imported == {"created": 1, "updated": 1}
    assert (pot["available"], pot["price"]) == (3, "99.00")
    assert (lid["title"], lid["price"], lid["available"]) == ("Better lid", "12.00", 5)
    assert again == {"created": 0, "updated": 2}
