"""A stage of the user's: any function of vectors [n, d] that returns one vector [d].

    def middle(vectors, *, num_byzantine, keep=3):      # strategy.aggregator=mine.py:middle(keep=5)
        return vectors.sort(dim=0).values[...].mean(dim=0)

The first parameter gets the vectors; `num_byzantine`, `generator` (numpy's) and `start` (the last
aggregate, or None) come where the function has parameters of these names; all others are options.
Before other stages it may return any number of vectors [m, d]. It gets copies, which it may change.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from fedzo.calls import Call, make_call
from fedzo.config import Scalar
from fedzo.errors import ConfigError, RunError
from fedzo.failure import failure_of
from fedzo.randomness import stream
from fedzo.user_code import load_kept


def own_stage(
    name: str, options: Mapping[str, Scalar], *, last: bool, given: Collection[str]
) -> Call:
    """Return the stage that a reference names, tried once on five vectors of two numbers.

    Raises ConfigError for what is no function of vectors, unknown options, and a result of another
    shape.
    """
    function = load_kept(name, what="aggregator")
    if not callable(function) or inspect.isclass(function):
        raise ConfigError(
            f"aggregator {name} is {function!r:.60}; name a function of vectors [n, d]"
        )
    parameters = list(inspect.signature(function).parameters)
    if not parameters:
        raise ConfigError(f"aggregator {name} takes nothing; its first parameter gets the vectors")
    stage = make_call(name, options, _telling(name, function), {*given, parameters[0]})
    some = torch.tensor([[0.0, 1.0], [1.0, -2.0], [2.0, 7.0], [4.0, 5.0], [9.0, 0.5]]).double()
    known = {"num_byzantine": 0, "generator": stream(0, "try out"), "start": None}
    try:
        made = stage.function(some, **{n: known[n] for n in known.keys() & parameters}, **options)
    except RunError as error:
        raise ConfigError(
            f"{error}, on five vectors of two numbers, with num_byzantine=0"
        ) from error
    wanted = "[2]" if last else "[m, 2]"
    fits = isinstance(made, Tensor) and made.shape[-1:] == (2,) and made.dim() == (1 if last else 2)
    if not fits:
        found = list(made.shape) if isinstance(made, Tensor) else f"{made!r:.60}"
        raise ConfigError(
            f"aggregator {name} returned {found} for five vectors of two numbers; return a tensor"
            f" {wanted}" + ("" if last else ", for another stage comes after it")
        )
    return stage


def _telling(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, in the type of the vectors; a RunError says in which line it failed."""

    @functools.wraps(function)
    def called(*vectors: Tensor, **more: Any) -> Any:
        try:
            told = function(*(each.clone() for each in vectors), **more)
        except Exception as error:  # the user's code may raise anything
            raise RunError(f"aggregator {name}: {failure_of(error)}") from error
        return told.to(vectors[0].dtype) if isinstance(told, Tensor) else told

    return called
