"""Rows that are shown of a result: numbers, and where virtual seconds went."""

from collections.abc import Iterator

from fedzo.records.virtual_time import VirtualTime

Row = tuple[str, str]


def number(value: float | None) -> str:
    """Return a number of six digits, "-" where it is not known."""
    return "-" if value is None else f"{value:.6g}"


def virtual_rows(took: VirtualTime | None, bias: float | None) -> Iterator[Row]:
    """Say how long a run would have taken, for what, and who was heard less; nothing unclocked."""
    if took is None:
        return
    named = [(name, getattr(took, name)) for name in ("down", "compute", "up", "waiting")]
    yield "virtual seconds", f"{took.seconds:,.1f}"
    if took.seconds > 0:
        yield "of these", ", ".join(f"{name} {s / took.seconds:.0%}" for name, s in named)
    if took.wasted:
        yield "wasted answers", f"{took.wasted:,}"
    if bias is not None:
        yield "participation bias", f"{bias:+.2f}"
