"""Runs a document's commands as its reader would: from top to bottom, in one session of bash.

What stands in a document between fences is one of these, by the word behind the first fence:

    bash    commands; they are run. `<!-- not run: REASON -->` on the line above leaves them out
    python  a file, which is written; `<!-- file: NAME -->` on the line above names it
    output  what the commands above it print, shortened: every line must be there, in this order
    json    an example
    text    anything else, such as a drawing

In what is shown of an output, `…` stands for any text, also none, and spaces count as one.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# A walk takes a few seconds; on a machine where starting Python takes several, much longer.
WALK_S_MAX = 400.0

RUN_LANGUAGES = frozenset({"bash", "python"})
OTHER_LANGUAGES = frozenset({"output", "json", "text"})

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>.*)$")
_COMMENT = re.compile(r"^<!-- (?P<kind>not run|file): (?P<words>.+?) -->$")

# A reason says more than "no".
_REASON_LENGTH_MIN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What stands between two fences.

    Attributes:
        line: Of the first fence, in its document.
        reason: Why it is not run; None where it is.
        file: What a file of Python is called.
    """

    line: int
    language: str
    text: str
    reason: str | None = None
    file: str | None = None

    @property
    def is_run(self) -> bool:
        """Whether a walk runs it, or writes it for other blocks to run."""
        return self.language in RUN_LANGUAGES and self.reason is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """A session that ran to its end, or to where it failed.

    Attributes:
        exit_code: 0, or that of the command that failed; None if it took too long.
        outputs: What each block printed, by the block's line; none for blocks behind a failure.
    """

    exit_code: int | None
    outputs: Mapping[int, str]

    @property
    def last(self) -> str:
        """What was printed by the block at which the session ended."""
        return self.outputs[max(self.outputs)] if self.outputs else ""


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of a document, from top to bottom."""
    blocks: list[Block] = []
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        end = next(
            (at for at in range(number + 1, len(lines)) if lines[at].strip() == "```"),
            len(lines),
        )
        comment = _COMMENT.match(lines[number - 1]) if number else None
        words = {comment["kind"]: comment["words"]} if comment else {}
        blocks.append(
            Block(
                line=number + 1,
                language=opening["language"].strip()
                if not opening["indent"]
                else "an indented one",
                text="\n".join(lines[number + 1 : end]),
                reason=words.get("not run"),
                file=words.get("file"),
            )
        )
        number = end + 1
    return blocks


def flaws_of(blocks: Sequence[Block]) -> Iterator[str]:
    """Yield what keeps a document's blocks from being run and compared."""
    previous: Block | None = None
    for block in blocks:
        where = f"line {block.line}"
        if block.language not in RUN_LANGUAGES | OTHER_LANGUAGES:
            yield f"{where}: {block.language or 'a block without a language'} is never run"
        if block.reason is not None and len(block.reason) < _REASON_LENGTH_MIN:
            yield f"{where}: {block.reason!r} is no reason"
        if block.language == "python" and block.reason is None:
            if block.file is None:
                yield f"{where}: the file has no name"
            elif not any(
                block.file in other.text
                for other in blocks
                if other.language == "bash" and other.is_run
            ):
                yield f"{where}: no command runs {block.file}"
        if block.language == "output" and not (previous and previous.is_run):
            yield f"{where}: it is the output of nothing that is run"
        previous = block


def walk(blocks: Sequence[Block], *, folder: Path, environment: Mapping[str, str]) -> Walked:
    """Run the blocks in one session that ends at the first command that fails.

    Args:
        blocks: Of one document.
        folder: Where the session begins. What is still running when it ends is killed.
        environment: All of it.
    """
    script, output = folder / ".walk.sh", folder / ".walk.out"
    script.write_text(_script(block for block in blocks if block.is_run))
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["bash", str(script)],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        exit_code: int | None
        try:
            exit_code = process.wait(WALK_S_MAX)
        except subprocess.TimeoutExpired:
            exit_code = None
        finally:
            _end_session(process)
    return Walked(exit_code=exit_code, outputs=_outputs(output.read_text(errors="replace")))


def find_missing(expected: str, *, actual: str) -> str | None:
    """Return the first expected line that the output lacks, or has in another place, or None."""
    lines = iter([_spaced(line) for line in actual.split("\n")])
    for wanted in map(_spaced, expected.split("\n")):
        if wanted in {"", "…"}:
            continue
        pattern = re.compile(".*".join(map(re.escape, wanted.split("…"))))
        if not any(pattern.fullmatch(line) for line in lines):
            return wanted
    return None


def _script(blocks: Iterator[Block]) -> str:
    parts = ["set -euo pipefail"]
    for block in blocks:
        parts.append(f"printf '\\n%s\\n' '{_mark(block.line)}'")
        if block.file is None:
            parts.append(block.text)
        else:
            parts.append(f"cat > {block.file} <<'THE-END-OF-THE-FILE'\n{block.text}")
            parts.append("THE-END-OF-THE-FILE")
    return "\n".join(parts) + "\n"


def _mark(line: int) -> str:
    return f"=== the block at line {line} ==="


def _outputs(text: str) -> dict[int, str]:
    parts = re.split(r"^=== the block at line (\d+) ===$", text, flags=re.MULTILINE)
    return {
        int(line): printed.strip("\n")
        for line, printed in zip(parts[1::2], parts[2::2], strict=True)
    }


def _spaced(line: str) -> str:
    return " ".join(line.split())


def _end_session(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended, and left nothing running
    finally:
        process.wait()
