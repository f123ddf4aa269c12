"""Text that others chose, without what it could do to a terminal or a figure."""

_LONGEST = 60


def visible(text: str) -> str:
    """Return a text with every character that cannot be seen written as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return a text without its middle where it is too long."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[: half - 1]}…{text[-half:]}"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a path that is no text
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()
