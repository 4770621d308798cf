"""Programs in C that a measurement needs, compiled where there is a compiler."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

_PROGRAMS = Path(__file__).parents[1] / "build"


class CannotCompileError(Exception):
    """There is no compiler, or what a program is compiled with is missing."""


@cache
def compile_c(source: Path, *libraries: str) -> Path:
    """Compile a program, once in a process, and return it.

    Args:
        source: Ends in `.c`.
        libraries: Linked with it, by name.

    Raises:
        CannotCompileError: with what is missing.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        message = "no C compiler"
        raise CannotCompileError(message)
    _PROGRAMS.mkdir(exist_ok=True)
    program = _PROGRAMS / source.stem
    # Under a name of our own: another process may run what is there, or compile it as well.
    fresh = program.with_name(f"{program.name}-{os.getpid()}")
    finished = subprocess.run(  # noqa: S603 (the compiler, our own source)
        [compiler, "-O2", "-o", str(fresh), str(source), *(f"-l{name}" for name in libraries)],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise CannotCompileError(finished.stderr.partition("\n")[0])
    return fresh.replace(program)
