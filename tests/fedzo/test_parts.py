"""Settings made of parts are typed, shown and replaced as if they were in one list."""

from dataclasses import dataclass, replace

import pytest

from fedzo.config import build_config, config_values, field_names, require, setting_hints
from fedzo.errors import ConfigError
from fedzo.parts import composed, find_part, has_part, need_part, part


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    num_steps: int = 3
    lr: float = 0.1

    def __post_init__(self) -> None:
        require(self.num_steps >= 1, "num_steps", self.num_steps, "at least 1")


@composed
class Inner:
    steps: Steps = part(Steps, lr=0.5)
    name: str = "inner"


@composed
class Outer:
    inner: Inner = part(Inner)
    flag: bool = False


def test_settings_are_flat_in_the_order_of_parts() -> None:
    assert field_names(Outer) == ["num_steps", "lr", "name", "flag"]
    assert config_values(Outer()) == {"num_steps": 3, "lr": 0.5, "name": "inner", "flag": False}
    assert setting_hints(Outer)["lr"] is float


def test_flat_and_nested_values_reach_the_same_part() -> None:
    flat, nested = (
        Outer(num_steps=7, flag=True),
        Outer(inner=Inner(steps=Steps(num_steps=7, lr=0.5))),
    )
    assert flat.inner == nested.inner
    assert flat.num_steps == flat.inner.steps.num_steps == 7
    assert replace(flat, lr=2.0).inner.steps == Steps(num_steps=7, lr=2.0)
    assert replace(flat, lr=2.0).flag


def test_a_part_is_found_wherever_it_is() -> None:
    assert has_part(Outer, Steps)
    assert not has_part(Inner, Outer)
    assert find_part(Outer(lr=3.0), Steps) == Steps(num_steps=3, lr=3.0)
    assert find_part(Steps(), Inner) is None


def test_the_loader_converts_and_complains_with_the_name_that_was_typed() -> None:
    assert build_config(Outer, {"num_steps": "4", "flag": "true"}, section="outer").num_steps == 4
    with pytest.raises(ConfigError, match=r"^outer.num_steps=0 must be at least 1$"):
        build_config(Outer, {"num_steps": 0}, section="outer")
    with pytest.raises(
        ConfigError, match=r"unknown setting outer.num_step; did you mean outer.num"
    ):
        build_config(Outer, {"num_step": 1}, section="outer")
    with pytest.raises(ConfigError, match=r"outer.lr='fast' is not allowed"):
        build_config(Outer, {"lr": "fast"}, section="outer")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(TypeError, match="speed"):
        Outer(speed=1)


def test_types_are_checked_when_one_is_made() -> None:
    with pytest.raises(ConfigError, match="name=3 must be a text"):
        Inner(name=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"steps=.* must be a Steps"):
        Inner(steps="many")  # type: ignore[arg-type]


def test_a_part_that_is_needed_and_not_there_is_named() -> None:
    assert need_part(Outer(lr=3.0), Steps).lr == 3.0
    with pytest.raises(TypeError, match="Steps has no Inner among its parts"):
        need_part(Steps(), Inner)
