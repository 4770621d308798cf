"""The reference of settings says what the code says."""

from orderkeep.settings import Settings, describe, load_settings
from orderkeep.settings_values import Allowed
from tests.repo.written_tables import REFERENCE, check_part, code, table


def allowed_texts() -> dict[str, str]:
    """Return what each variable may be, in the words of the message for a wrong one."""
    return {
        f"ORDERKEEP_{name.upper()}": next(
            (each.text for each in field.metadata if isinstance(each, Allowed)), ""
        )
        for name, field in Settings.model_fields.items()
    }


def test_every_setting_stands_in_the_reference_with_its_default() -> None:
    allowed = allowed_texts()
    rows = [
        (code(each.variable), code(each.value), each.meaning, allowed[each.variable])
        for each in describe(load_settings({}))
    ]

    check_part(
        REFERENCE / "settings.md",
        writer=__file__,
        text=table(("variable", "default", "meaning", "may be"), rows),
    )
