"""The files of this repository, and copies of it to plant violations in."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

# The commands that were installed beside the Python that runs the tests.
BIN = Path(sys.executable).parent


def repository_files(pattern: str) -> list[Path]:
    """Return every file that is, or would be, in the repository and matches the glob."""
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "--",
            f":(glob){pattern}",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [ROOT / name for name in sorted(set(listed.stdout.splitlines()))]
    return [path for path in paths if path.is_file()]


def commit_of_checkout() -> str:
    """Return the commit that is tested, with a `+` where the sources were changed since."""
    told = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
        for command in (
            ["git", "rev-parse", "--short=12", "HEAD"],
            ["git", "status", "--porcelain", "--untracked-files=no", "--", "src"],
        )
    ]
    return (told[0].strip() or "unknown") + ("+" if told[1].strip() else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A command that ran to its end."""

    exit_code: int
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """The sources and the rules, in a folder of their own or in the repository itself."""

    root: Path

    def plant(self, name: str, text: str) -> Path:
        """Append the text to a file of the sources, or make one of it; return its path."""
        path = self.root / "src" / "orderkeep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text)
        return path

    def run(self, *command: str) -> Finished:
        """Run an installed command in the checkout, so that it finds the checkout's own rules."""
        finished = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=self.root,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PYTHONPATH": str(self.root / "src"), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        )
        return Finished(exit_code=finished.returncode, output=finished.stdout)


def copy_of_sources(folder: Path) -> Checkout:
    """Return a copy of the package and of `pyproject.toml` in the folder."""
    shutil.copytree(
        ROOT / "src",
        folder / "src",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(ROOT / "pyproject.toml", folder)
    return Checkout(root=folder)


def rules_alone(folder: Path) -> Checkout:
    """Return a checkout with the rules and an empty package, for what looks at one file only."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    checkout = Checkout(root=folder)
    checkout.plant("__init__.py", '"""Planted."""\n')
    return checkout
