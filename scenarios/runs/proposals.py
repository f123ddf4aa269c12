"""Which settings a sweep tries next: a function of the seed and the trials of the groups before.

    grid     all combinations, in order
    random   drawn independently (Bergstra & Bengio, JMLR 2012), or of values alone a random order
    tpe      by Optuna: tree-structured Parzen estimators (Bergstra et al., NeurIPS 2011)

Trials run in groups of four, and those of a group do not know of each other. So a sweep that is
killed and resumed, on more processes or fewer, proposes the same.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from fedzo.config import Scalar
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.runs.spaces import Choices, Space, combinations

Search = Literal["auto", "grid", "random", "tpe"]
SEARCHES: tuple[Search, ...] = get_args(Search)
GROUP = 4
_IN_ORDER = 1 << 16


@runtime_checkable
class Tried(Protocol):
    """What proposals are made of."""

    @property
    def settings(self) -> Mapping[str, Scalar]: ...

    @property
    def score(self) -> float: ...

    @property
    def partial(self) -> bool: ...


def resolved(search: str, spaces: Mapping[str, Space], trials: int | None) -> tuple[Search, int]:
    """Return the search and the number of trials; "auto" is a grid where it is affordable.

    Raises ConfigError for grids of ranges, and where nobody says how many trials there may be.
    """
    count = combinations(spaces)
    if search not in SEARCHES:
        raise ConfigError(f"--search {search} must be {', '.join(SEARCHES)}")
    if search == "auto":
        search = "random" if count is None or (trials or count) < count else "grid"
    if search == "grid":
        if count is None:
            raise ConfigError("--search grid needs values, KEY=V,V,...; use random or tpe")
        if trials is not None and trials < count:
            raise ConfigError(f"--trials {trials} is fewer than the {count} of the grid; raise it")
        return "grid", count
    if trials is None or trials < 1:
        raise ConfigError(f"--search {search} needs --trials with a number of 1 or more")
    if search == "tpe":
        _optuna()
    return search, trials  # type: ignore[return-value]


def proposed(
    search: Search, spaces: Mapping[str, Space], before: Sequence[Tried], count: int, seed: int
) -> list[dict[str, Scalar]]:
    """Return the settings of the next trials, `count` of them, after those tried `before`."""
    first = len(before)
    if search == "grid":
        choices = [space.values for space in spaces.values() if isinstance(space, Choices)]
        chosen = itertools.islice(itertools.product(*choices), first, first + count)
        return [dict(zip(spaces, values, strict=True)) for values in chosen]
    if search == "tpe":
        return _by_optuna(spaces, before, count, seed)
    few = combinations(spaces)
    if few is not None and few <= _IN_ORDER:
        return _in_random_order(spaces, seed, before, count)
    return [_drawn(spaces, seed, index) for index in range(first, first + count)]


def _drawn(spaces: Mapping[str, Space], seed: int, index: int) -> dict[str, Scalar]:
    generator = stream(seed, "sweep", index)
    return {name: space.draw(generator) for name, space in spaces.items()}


def _in_random_order(
    spaces: Mapping[str, Space], seed: int, before: Sequence[Tried], count: int
) -> list[dict[str, Scalar]]:
    """Return combinations at random, none twice before all have been tried."""
    choices = [space.values for space in spaces.values() if isinstance(space, Choices)]
    every = [dict(zip(spaces, values, strict=True)) for values in itertools.product(*choices)]
    order = [every[number] for number in stream(seed, "sweep").permutation(len(every))]
    tried = [dict(one.settings) for one in before]
    again = itertools.islice(itertools.cycle(order), len(before), len(before) + count)
    return [*(settings for settings in order if settings not in tried), *again][:count]


def _by_optuna(
    spaces: Mapping[str, Space], before: Sequence[Tried], count: int, seed: int
) -> list[dict[str, Scalar]]:
    """Return what a study proposes that has seen the trials before; failed ones are bad ones."""
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    number = int(stream(seed, "tpe", len(before)).integers(2**32))
    sampler = optuna.samplers.TPESampler(seed=number, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    kinds = {name: _distribution(optuna, space) for name, space in spaces.items()}
    finite = [trial for trial in before if math.isfinite(trial.score)]
    known = [trial for trial in finite if not trial.partial] or finite
    worst = max((trial.score for trial in known), default=0.0)
    for tried in before:
        score = tried.score if tried in known else worst
        made = optuna.trial.create_trial(
            params=_indexed(tried.settings, spaces), distributions=kinds, value=score
        )
        study.add_trial(made)
    asked = [study.ask(kinds).params for _ in range(count)]
    return [{name: _value(spaces[name], params[name]) for name in spaces} for params in asked]


def _distribution(optuna: Any, space: Space) -> Any:
    if isinstance(space, Choices):
        return optuna.distributions.CategoricalDistribution(list(range(len(space.values))))
    if space.kind == "int":
        return optuna.distributions.IntDistribution(int(space.low), int(space.high))
    return optuna.distributions.FloatDistribution(space.low, space.high, log=space.kind == "log")


def _indexed(settings: Mapping[str, Scalar], spaces: Mapping[str, Space]) -> dict[str, Any]:
    return {
        name: list(space.values).index(settings[name])
        if isinstance(space, Choices)
        else settings[name]
        for name, space in spaces.items()
    }


def _value(space: Space, told: Any) -> Scalar:
    return space.values[told] if isinstance(space, Choices) else space.cut(told)


def _optuna() -> Any:
    """Return Optuna; raises ConfigError where it is not installed."""
    try:
        import optuna  # an extra
    except ImportError as error:
        raise ConfigError(
            "--search tpe needs Optuna: pip install 'fedzo[sweep]', or use --search random"
        ) from error
    return optuna
