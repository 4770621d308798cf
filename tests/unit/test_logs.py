"""Log lines: one line each, whoever's text is in them; text or JSON; libraries included."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from orderkeep.logs import configure_logging

FORGED = "01\r\n2026-01-01 info order_paid\x1b[2J\x9b\u2028"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("alembic", "asyncio", "httpcore", "httpx", "litestar", "uvicorn"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines_of(stream: io.StringIO) -> list[str]:
    return stream.getvalue().split("\n")[:-1]


def test_a_machine_gets_one_json_object_a_line() -> None:
    stream = io.StringIO()
    configure_logging("info", log_format="auto", stream=stream)

    structlog.get_logger().info("order_paid", order_no=FORGED, amount_minor=100, note="订单")

    [line] = lines_of(stream)
    document = json.loads(line)
    assert document.pop("timestamp").endswith("Z")
    assert document == {
        "level": "info",
        "event": "order_paid",
        "order_no": FORGED,
        "amount_minor": 100,
        "note": "订单",
    }
    assert line.isprintable()


def test_a_person_at_a_terminal_gets_colored_text() -> None:
    stream = Terminal()
    configure_logging("info", log_format="auto", stream=stream)

    structlog.get_logger().info("order_paid", order_no="17")

    [line] = lines_of(stream)
    assert "\x1b[32minfo   \x1b[0m" in line
    assert "\x1b[36morder_no\x1b[0m=17" in line


def test_text_into_a_file_has_no_colors() -> None:
    stream = io.StringIO()
    configure_logging("info", log_format="text", stream=stream)

    structlog.get_logger().info("order_paid", order_no="17", note="two words")

    [line] = lines_of(stream)
    assert line.partition("Z ")[2] == (
        'info    order_paid                   order_no=17 note="two words"'
    )


@pytest.mark.parametrize("value", [FORGED, [FORGED], {"key": FORGED}, {FORGED: 1}, (FORGED,)])
def test_no_value_makes_a_second_line_or_moves_the_cursor(value: object) -> None:
    stream = io.StringIO()
    configure_logging("info", log_format="text", stream=stream)

    structlog.get_logger().info("order_paid", value=value)

    [line] = lines_of(stream)
    assert line.isprintable()
    assert r"01\r\n2026-01-01 info order_paid\x1b[2J\x9b\u2028" in line


def test_a_traceback_is_indented_and_printable() -> None:
    stream = io.StringIO()
    configure_logging("info", log_format="text", stream=stream)

    try:
        int(FORGED)
    except ValueError as error:
        error.args = (FORGED,)
        structlog.get_logger().exception("order_failed", order_no="17")

    first, *rest = lines_of(stream)
    assert first.endswith("order_no=17")
    assert "    Traceback (most recent call last):" in rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_what_is_less_severe_than_the_level_is_left_out() -> None:
    stream = io.StringIO()
    configure_logging("warning", log_format="json", stream=stream)

    structlog.get_logger().info("order_paid")
    logging.getLogger("anything").info("hello")
    structlog.get_logger().warning("order_late")

    assert [json.loads(line)["event"] for line in lines_of(stream)] == ["order_late"]


def test_lines_of_libraries_take_the_same_way() -> None:
    stream = io.StringIO()
    configure_logging("info", log_format="json", stream=stream)

    logging.getLogger("uvicorn.error").warning("hello %s", "wor\nld")
    logging.getLogger("uvicorn.error").info("Started server process")
    try:
        {"order_no": "17"}["sku"]
    except KeyError:
        logging.getLogger("library").exception("broken")

    first, second = (json.loads(line) for line in lines_of(stream))
    assert (first["event"], first["logger"], first["level"]) == (
        "hello wor\nld",
        "uvicorn.error",
        "warning",
    )
    assert (second["event"], second["logger"]) == ("broken", "library")
    assert "KeyError: 'sku'" in second["exception"]


def test_configuring_again_does_not_double_the_lines() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("info", log_format="json", stream=first)
    configure_logging("info", log_format="json", stream=second)

    logging.getLogger("library").warning("once")

    assert lines_of(first) == []
    assert len(lines_of(second)) == 1
