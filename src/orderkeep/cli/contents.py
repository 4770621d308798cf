"""What was sent or received, printed as it is: text as lines, anything else as a dump."""

from orderkeep.cli.terminal import print_text

_DUMP_WIDTH = 16


def print_body(raw: bytes) -> None:
    """Print a body of any bytes, with its length."""
    title = f"body, {len(raw)} bytes"
    text = _plain_text(raw)
    if text is not None:
        print_lines(title, text)
        return
    print_text(f"{title}, which are no plain text (--raw writes them):")
    for line in dump_lines(raw):
        print_text(f"  {line}")


def print_lines(title: str, text: str) -> None:
    """Print a title, and the text's lines below it."""
    print_text(f"{title}:")
    for line in text.split("\n"):
        print_text(f"  {line}")


def _plain_text(raw: bytes) -> str | None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if all(line.isprintable() for line in text.split("\n")) else None


def dump_lines(raw: bytes) -> list[str]:
    """Return the bytes as lines of offset, hexadecimal digits and characters."""
    return [
        f"{start:08x}  {raw[start : start + _DUMP_WIDTH].hex(' '):<{3 * _DUMP_WIDTH}} "
        + "".join(
            chr(byte) if 0x20 <= byte < 0x7F else "."  # noqa: PLR2004 (what ASCII prints)
            for byte in raw[start : start + _DUMP_WIDTH]
        )
        for start in range(0, len(raw), _DUMP_WIDTH)
    ]
