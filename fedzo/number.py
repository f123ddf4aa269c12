"""A number as people type it: 0.1, 1e-3, or a fraction of numbers such as 8/255."""

from fedzo.errors import ConfigError


def read_number(text: str, *, name: str) -> float:
    """Return the number that a text says; raises ConfigError, naming the setting, for no number."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"{name}={text!r} is no number; write one such as 0.1, or a fraction such as 8/255"
        ) from error
