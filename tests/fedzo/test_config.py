"""Settings are typed, ranged, and proposed when mistyped."""

from dataclasses import dataclass
from typing import Literal

import pytest

from fedzo.config import build_config, require, take_config, unknown_key
from fedzo.errors import ConfigError
from fedzo.setting_texts import parse_setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    count: int = 3
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"
    on: bool = False

    def __post_init__(self) -> None:
        require(self.count >= 1, "count", self.count, "at least 1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=3", ("a.b", 3)),
        ("a=0.1", ("a", 0.1)),
        ("a=1e-3", ("a", 1e-3)),
        ("a=true", ("a", True)),
        ("a=word", ("a", "word")),
        ("a=/tmp/x=y.py:f", ("a", "/tmp/x=y.py:f")),
        ("a=[1, 2]", ("a", "[1, 2]")),
        ("a=", ("a", "")),
    ],
)
def test_parsing(text: str, expected: tuple[str, object]) -> None:
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["mu", "=3", " = 3"])
def test_no_key_or_no_value(text: str) -> None:
    with pytest.raises(ConfigError, match="not key=value"):
        parse_setting(text)


def test_types_are_converted_where_nothing_is_lost() -> None:
    assert build_config(Settings, {"rate": 1, "count": 4}, section="s") == Settings(count=4, rate=1)


@pytest.mark.parametrize(("text", "number"), [("8/255", 8 / 255), ("1/4", 0.25), (" 3 / 2", 1.5)])
def test_fractions_are_numbers_but_no_counts(text: str, number: float) -> None:
    assert build_config(Settings, {"rate": text}, section="s").rate == number
    assert build_config(Settings, {"kind": "a", **dict([parse_setting(f"rate={text}")])},
                        section="s").rate == number  # fmt: skip
    with pytest.raises(ConfigError, match=r"s\.count='.*' is not allowed"):
        build_config(Settings, {"count": text}, section="s")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": "8/0"}, r"s\.rate='8/0' is no number; write one such as 0.1, or a fraction"),
        ({"rate": "8/255/3"}, r"s\.rate='8/255/3' is no number"),
        ({"rate": "8/"}, r"s\.rate='8/' is no number"),
        ({"count": 2.5}, r"s\.count=2\.5 is not allowed"),
        ({"count": "many"}, r"s\.count='many' is not allowed"),
        ({"kind": "c"}, r"s\.kind='c' is not allowed: Input should be 'a' or 'b'"),
        ({"count": 0}, r"s\.count=0 must be at least 1"),
        ({"cuont": 1}, r"unknown setting s\.cuont; did you mean s\.count\?"),
    ],
)
def test_bad_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(Settings, values, section="s")  # type: ignore[arg-type]


def test_far_keys_get_the_list() -> None:
    assert "allowed: s.count" in str(unknown_key("zzzzzz", ["s.count"]))


def test_take_ignores_what_is_not_its_own() -> None:
    assert take_config(Settings, {"count": 7, "other": 1}) == Settings(count=7)
