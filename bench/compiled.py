"""Programs in C that a measurement needs, compiled where there is a compiler."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

_PROGRAMS = Path(__file__).parents[1] / "build"


class CannotCompileError(Exception):
    """There is no compiler, or what a program is compiled with is missing."""


def has_compiler() -> bool:
    """Return whether there is a compiler."""
    return _find_compiler() is not None


@cache
def compile_c(source: Path, *libraries: str) -> Path:
    """Compile a program, once in a process, and return it.

    Args:
        source: Ends in `.c`.
        libraries: Linked with it, by name.

    Raises:
        CannotCompileError: with what is missing.
    """
    compiler = _find_compiler()
    if compiler is None:
        message = "no C compiler"
        raise CannotCompileError(message)
    _PROGRAMS.mkdir(exist_ok=True)
    program = _PROGRAMS / source.stem
    finished = subprocess.run(  # noqa: S603 (the compiler, our own source)
        [compiler, "-O2", "-o", str(program), str(source), *(f"-l{name}" for name in libraries)],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise CannotCompileError(finished.stderr.partition("\n")[0])
    return program


def _find_compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")
