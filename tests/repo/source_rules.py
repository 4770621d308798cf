"""The rules of CONTRIBUTING.md that no linter holds, as functions from a file to what is wrong.

Each returns sentences that begin with the path and line, and nothing where all is well.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

FILE_LINE_COUNT_MAX = 400
TEST_FILE_LINE_COUNT_MAX = 800
FUNCTION_LINE_COUNT_MAX = 70

# Words that name no thing of ordering: whatever they hold has a name of its own.
BANNED_WORDS = frozenset(
    {
        "base",
        "bases",
        "common",
        "core",
        "handler",
        "handlers",
        "helper",
        "helpers",
        "impl",
        "manager",
        "managers",
        "misc",
        "processor",
        "processors",
        "util",
        "utils",
    }
)

# What serves is a part of ours, so the word may tell whose (`ServiceTables`), but it is no answer
# to what a thing is (`OrderService`).
BANNED_LAST_WORDS = frozenset({"service", "services"})

# The publishing half of the dispatcher, and behind it the port and what implements it.
PUBLISHERS = frozenset(
    {
        "messaging/publishing.py",
        "messaging/broker.py",
        "messaging/database_queue.py",
        "messaging/rabbitmq/broker.py",
    }
)

# Homes and work folders. These patterns are put together so that this file keeps its own rules.
_FOLDER = "/"
MACHINE_PATH = re.compile(rf"(?<![\w.:}}>-]){_FOLDER}(?:work|root|home|Users){_FOLDER}[\w.]")

_DOT = r"\."
INDEX_ADDRESS = re.compile(
    rf"pypi{_DOT}org|pythonhosted{_DOT}org|npmjs{_DOT}(?:org|com)|--(?:extra-)?index-url[= ]"
)

Rule = Callable[[Path], Iterator[str]]


def file_length(path: Path) -> Iterator[str]:
    """At most 400 lines in a file, 800 in one of tests."""
    line_count = len(path.read_text().splitlines())
    line_count_max = TEST_FILE_LINE_COUNT_MAX if "tests" in path.parts else FILE_LINE_COUNT_MAX
    if line_count > line_count_max:
        yield f"{path}: {line_count} lines, at most {line_count_max}"


def function_length(path: Path) -> Iterator[str]:
    """At most 70 lines in a function, its docstring included."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            line_count = (node.end_lineno or node.lineno) - node.lineno + 1
            if line_count > FUNCTION_LINE_COUNT_MAX:
                yield (
                    f"{path}:{node.lineno}: {node.name} has {line_count} lines,"
                    f" at most {FUNCTION_LINE_COUNT_MAX}"
                )


def module_docstring(path: Path) -> Iterator[str]:
    """A module says what it is for; an empty one has nothing to say."""
    tree = _tree(path)
    if tree.body and not ast.get_docstring(tree):
        yield f"{path}: no docstring"


def file_name(path: Path) -> Iterator[str]:
    """No part of a module's name, or of its folder's, is a word that says nothing."""
    for part in (path.parent.name, path.stem):
        if words := _banned_words(part.lower().split("_")):
            yield f"{path}: {', '.join(words)} in the name says nothing"


def class_names(path: Path) -> Iterator[str]:
    """No class is named by a word that says nothing, nor as `Abstract…` or `I…`."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ClassDef):
            words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", node.name)
            banned = _banned_words([word.lower() for word in words])
            if banned or "Abstract" in words or re.match(r"I[A-Z][a-z]", node.name):
                yield f"{path}:{node.lineno}: the class name {node.name} says nothing"


def publish_calls(path: Path) -> Iterator[str]:
    """Nothing publishes but the dispatcher: no other module even names the method."""
    if path.as_posix().partition("src/orderkeep/")[2] in PUBLISHERS:
        return
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Attribute) and node.attr == "publish":
            yield f"{path}:{node.lineno}: publishes; append to the outbox instead"


def environment_reads(path: Path) -> Iterator[str]:
    """Only the command line and the wiring read the environment, once, for the settings."""
    if path.parent.name in {"cli", "wiring"}:
        return
    for node in ast.walk(_tree(path)):
        match node:
            case ast.ImportFrom(module="os", names=names, lineno=line_number):
                read = {alias.name for alias in names}
            case ast.Attribute(value=ast.Name(id="os"), attr=attr, lineno=line_number):
                read = {attr}
            case _:
                continue
        if read & {"environ", "environb", "getenv"}:
            yield f"{path}:{line_number}: reads the environment; take the value as an argument"


def type_ignore_reasons(path: Path) -> Iterator[str]:
    """Beside each `type: ignore` or `cast` stands the reason."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        if re.search(r"# type: ignore\[[^\]]*\]\s*$", line):
            yield f"{path}:{number}: type: ignore without a reason"
    for node in ast.walk(_tree(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "cast"
        ):
            around = lines[max(node.lineno - 2, 0) : node.end_lineno]
            if not any("#" in line for line in around):
                yield f"{path}:{node.lineno}: cast without a reason"


def machine_paths(path: Path) -> Iterator[str]:
    """No path of the machine it was written on."""
    yield from _matches(path, MACHINE_PATH, "a path of one machine")


def index_addresses(path: Path) -> Iterator[str]:
    """No address of a package index: everybody's pip knows its own."""
    yield from _matches(path, INDEX_ADDRESS, "an address of a package index")


def _banned_words(words: list[str]) -> list[str]:
    return [
        *(word for word in words if word in BANNED_WORDS),
        *(word for word in words[-1:] if word in BANNED_LAST_WORDS),
    ]


def _matches(path: Path, pattern: re.Pattern[str], what: str) -> Iterator[str]:
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if pattern.search(line):
            yield f"{path}:{number}: {what}"


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))
