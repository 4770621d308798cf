"""From an environment to the text of each setting, and the words for one that is wrong."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

PREFIX = "ORDERKEEP_"
FILE_SUFFIX = "_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongSetting:
    """One setting that cannot be used; its words never hold a secret."""

    variable: str
    wrong: str
    allowed: str


class SettingsError(Exception):
    """One or more settings are wrong; the text names every one of them."""

    def __init__(self, wrong: Collection[WrongSetting]) -> None:
        """Tell of every wrong setting, in the given order."""
        self.wrong = tuple(wrong)
        lines = [f"  {one.variable} {one.wrong}; allowed: {one.allowed}" for one in self.wrong]
        count = "1 setting is" if len(lines) == 1 else f"{len(lines)} settings are"
        super().__init__("\n".join([f"{count} wrong:", *lines]))


def variable_of(field_name: str) -> str:
    """Return the variable that holds the field."""
    return PREFIX + field_name.upper()


def texts_of(
    environ: Mapping[str, str], field_names: Collection[str]
) -> tuple[dict[str, str], list[WrongSetting]]:
    """Return the text of each field that is set, and what could not be read.

    `ORDERKEEP_X_FILE` names a file that holds the text of `ORDERKEEP_X`. An empty variable counts
    as unset. A variable with the prefix that belongs to no field is a typing error, and wrong.
    """
    fields_by_variable = {variable_of(name): name for name in field_names}
    texts: dict[str, str] = {}
    wrong: list[WrongSetting] = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or not environ[variable].strip():
            continue
        plain = variable.removesuffix(FILE_SUFFIX)
        if variable in fields_by_variable:
            texts[fields_by_variable[variable]] = environ[variable].strip()
        elif plain not in fields_by_variable:
            wrong.append(_unknown_variable(variable, fields_by_variable))
        elif environ.get(plain, "").strip():
            wrong.append(
                WrongSetting(
                    variable=plain,
                    wrong=f"is given as well as {variable}",
                    allowed="one of the two",
                )
            )
        else:
            try:
                texts[fields_by_variable[plain]] = _content_of(Path(environ[variable]))
            except (OSError, ValueError) as error:
                wrong.append(
                    WrongSetting(
                        variable=variable,
                        wrong=f"cannot be read: {error}",
                        allowed="the path of a readable UTF-8 file that is not empty",
                    )
                )
    return texts, wrong


def _content_of(path: Path) -> str:
    content = path.read_text(encoding="utf-8").strip()
    if not content:
        message = f"the file {path} is empty"
        raise ValueError(message)
    return content


def _unknown_variable(variable: str, known: Collection[str]) -> WrongSetting:
    close = difflib.get_close_matches(variable, known, n=1)
    return WrongSetting(
        variable=variable,
        wrong="is not a setting",
        allowed=f"did you mean {close[0]}?" if close else "leave it unset",
    )
