"""The table of methods by the name that a user types, with options: `cma(popsize=20)`."""

from collections.abc import Callable
from typing import Any

from fedzo.blackbox.auto import AutoSearch
from fedzo.blackbox.cma_es import CmaSearch, CmaSettings
from fedzo.blackbox.method import Ground, Method
from fedzo.blackbox.random_search import RandomSearch
from fedzo.blackbox.slope_search import SlopeSearch, SlopeSettings
from fedzo.blackbox.space import Space
from fedzo.blackbox.told import require_whole
from fedzo.blackbox.two_point import TwoPointSearch, TwoPointSettings
from fedzo.calls import split_calls
from fedzo.config import build_config, unknown_key
from fedzo.errors import ConfigError

METHODS: dict[str, tuple[Callable[..., Method[Any]], type | None]] = {
    "auto": (AutoSearch, None),
    "fzoos": (SlopeSearch, SlopeSettings),
    "fedzo": (TwoPointSearch, TwoPointSettings),
    "cma": (CmaSearch, CmaSettings),
    "random": (RandomSearch, None),
}
"""What makes a method on a ground, and its settings."""


def make_ground(
    space: Space, *, seed: int, budget: int | None, parallel: int, constrained: bool
) -> Ground:
    """Return where a method searches a space; raises ConfigError for counts that are none."""
    require_whole("seed", seed, 0)
    require_whole("parallel", parallel, 1)
    if budget is not None:
        require_whole("budget", budget, 1)
    return Ground(
        start=space.start,
        lower=space.lower,
        upper=space.upper,
        least=space.least,
        seed=int(seed),
        budget=None if budget is None else int(budget),
        parallel=int(parallel),
        constrained=bool(constrained),
    )


def make_method(text: str, ground: Ground) -> Method[Any]:
    """Return the method that a text names.

    Raises ConfigError for an unknown name or option, and for a method of slopes where coordinates
    move in steps.
    """
    try:
        [(name, options)] = split_calls(text)
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"method={text!r} is not understood; allowed: {', '.join(METHODS)}, with options as in"
            " cma(popsize=20)"
        ) from error
    if name not in METHODS:
        raise unknown_key(name, METHODS, what="method")
    make, settings = METHODS[name]
    if settings is None and options:
        raise ConfigError(f"method={text!r}: {name} has no options; write {name!r}")
    if name in ("fzoos", "fedzo") and not ground.is_real:
        raise ConfigError(
            f"method={text!r} needs slopes, which whole numbers and choices lack; use auto or cma"
        )
    if name in ("fzoos", "fedzo") and ground.constrained:
        raise ConfigError(
            f"method={text!r} needs values, which infeasible points lack; use auto, cma or random"
        )
    if settings is None:
        return make(ground)
    return make(ground, build_config(settings, options, section=name))
