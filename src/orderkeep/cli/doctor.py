"""`orderkeep doctor`: what is wrong with the set-up, and how to mend it."""

from typing import TYPE_CHECKING

import typer

from orderkeep.cli.environment import read_settings_quietly
from orderkeep.cli.exits import ExitCode
from orderkeep.cli.terminal import AsJson, examples, note_console, print_json, print_text

if TYPE_CHECKING:
    from orderkeep.wiring.doctor.examination import Examination

app = typer.Typer()


@app.command(rich_help_panel="Look", epilog=examples("orderkeep doctor", "orderkeep doctor --json"))
def doctor(*, as_json: AsJson = False) -> None:
    """Examine settings, database, broker and what waits in them; exit with 1 if anything is wrong.

    For each thing it tells a verdict, what was found, and how to mend it. Nothing is changed, and
    no password is told. What is only a warning does not change the exit code.
    """
    import asyncio

    from orderkeep.wiring import chance
    from orderkeep.wiring.doctor.examination import Verdict
    from orderkeep.wiring.doctor.examine import examine

    settings = read_settings_quietly()
    with note_console().status("examining"):
        examinations = asyncio.run(examine(settings, now=chance.now))
    is_well = all(each.verdict is not Verdict.WRONG for each in examinations)
    if as_json:
        print_json({"is_well": is_well, "examinations": [_json_of(each) for each in examinations]})
    else:
        _print(examinations)
    if not is_well:
        raise typer.Exit(ExitCode.WRONG)


def _json_of(examination: "Examination") -> dict[str, object]:
    return {
        "name": examination.name,
        "subject": examination.subject,
        "verdict": examination.verdict.value,
        "found": examination.found,
        "remedy": examination.remedy,
    }


def _print(examinations: "list[Examination]") -> None:
    from orderkeep.wiring.doctor.examination import Verdict

    for each in examinations:
        verdict = each.verdict.value
        shown = verdict.upper() if each.verdict is Verdict.WRONG else verdict
        name = each.name if each.subject is None else f"{each.name} {each.subject}"
        print_text(f"{shown:<7}  {name}: {each.found}")
        for line in (each.remedy or "").splitlines():
            print_text(f"         to do: {line}")
    counts = {verdict: sum(each.verdict is verdict for each in examinations) for verdict in Verdict}
    print_text("")
    print_text(", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count))
