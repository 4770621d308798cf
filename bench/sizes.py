"""How large a measurement is: what `run` of a program takes, as arguments of its command line."""

import argparse


def arguments_of(description: str | None, **defaults: float) -> dict[str, float]:
    """Return what the command line says of each size, such as `--measured-s 5`.

    Args:
        description: What the program asks; its first line is shown as help.
        defaults: The sizes by name; whole numbers stay whole.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    for name, default in defaults.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help="%(default)s"
        )
    return vars(parser.parse_args())
