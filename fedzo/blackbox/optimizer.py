"""Ask for points, evaluate them wherever you like, tell what came out.

    opt = Optimizer(bounds=[(-5, 5)] * 10, budget=200, seed=0)
    while not opt.stop:
        points = opt.ask()
        opt.tell(points, [f(x) for x in points])
    print(opt.result())

A method proposes points in batches (fedzo.blackbox.method) and learns from a batch once all of it
was told, in the order in which it was asked for; so points may be told in any order and in any
portions, and the search is the same. Points asked for while a batch is under way are drawn around
the place where the method searches: they are counted and may be the best, but the method does not
learn from them.
"""

import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedzo.blackbox.evaluations import FAILED, INFEASIBLE, RANKED, TOLD, UNDER_WAY, Evaluations
from fedzo.blackbox.method import Ground
from fedzo.blackbox.methods import make_ground, make_method
from fedzo.blackbox.result import Result, make_result
from fedzo.blackbox.saved import Batch, Saved, read_search, write_search
from fedzo.blackbox.space import Points, Space, make_space, restore_space
from fedzo.blackbox.told import Told, as_ranking, as_told, check_what_is_told, require_whole
from fedzo.errors import ConfigError
from fedzo.objectives.box import project
from fedzo.randomness import stream
from fedzo.records.storage import require_place

LIMITS = ("seed", "budget", "parallel", "constrained")
"""What a saved search knows of its ground beside the space."""


class Optimizer:
    """A search by asking and telling; fedzo minimizes.

    x0: the start, an array [d]. bounds: a pair (low, high) for each number, or one pair for all
    with x0; None or infinity where there is no bound; or typed variables (Float, Log, Int, Choice),
    by name or in a list, and points are dicts or lists of their values. method: auto, fzoos, fedzo,
    cma or random, with options as in `cma(popsize=20)`. budget: how many points ask gives at most,
    None for no end. seed: the same gives the same points. step: how far from x0 the best point is
    expected, in units of x, 0.3 of the box by default, 1 without one. parallel: how many points you
    evaluate at a time; batches are at least as large where the method allows that. constrained: you
    will tell violations of constraints too; of a point that is not allowed no value is needed.

    Raises ConfigError for what makes no search, naming the value and the remedy.
    """

    def __init__(
        self,
        x0: Any = None,
        bounds: Any = None,
        *,
        method: str = "auto",
        budget: int | None = None,
        seed: int = 0,
        step: float | None = None,
        parallel: int = 1,
        constrained: bool = False,
    ) -> None:
        space = make_space(x0, bounds, step)
        ground = make_ground(
            space, seed=seed, budget=budget, parallel=parallel, constrained=constrained
        )
        self._begin(space, ground, method)

    def _begin(self, space: Space, ground: Ground, method: str) -> None:
        self._space, self._ground, self._text = space, ground, method
        self._method = make_method(method, ground)
        self._state = self._method.init()
        self._table = Evaluations(ground.dim)
        self._batch = Batch()
        self._keys: list[Hashable] = []
        self._best, self._reason, self._ended, self._extra, self.free = -1, "", "", 0, 0

    @property
    def asked(self) -> int:
        """How many points were asked for."""
        return len(self._keys)

    def __repr__(self) -> str:
        return f"{'asked for:':<13}{self.asked} points\n{self.result()!r}"

    def _repr_html_(self) -> str:
        return self.result()._repr_html_()

    @property
    def constrained(self) -> bool:
        """Whether violations of constraints are told."""
        return self._ground.constrained

    @property
    def best_value(self) -> float:
        """The lowest value so far; inf before the first success, NaN where points were ranked."""
        return float(self._table.values[self._best]) if self._best >= 0 else math.inf

    @property
    def stop(self) -> str:
        """Why there is nothing more to ask for; empty while there is."""
        if self._ended:
            return self._ended
        spent = self._ground.budget is not None and self.asked >= self._ground.budget + self.free
        return "budget" if spent and not self._table.under_way else ""

    def ask(self, n: int | None = None) -> Points:
        """Return the next n points; without n, the rest of what the method wants at a time.

        Returns fewer where the budget ends or the search has ended, so maybe none. Raises
        ConfigError where n is missing and all of a batch is under way.
        """
        if n is not None:
            require_whole("n", n, 1)
        first = self.asked
        if not self._ended:
            self._propose(first, n)
            self._hand_out(self._within(first, n))
        return self._space.points(self._table.points[first : self.asked])

    def _within(self, first: int, n: int | None) -> int:
        """Return the number up to which points are given out now."""
        end = self._table.count if n is None else first + n
        return end if self._ground.budget is None else min(end, self._ground.budget + self.free)

    def _propose(self, first: int, n: int | None) -> None:
        """Have enough points in the table: a new batch, or points beside one under way."""
        if first == self._table.count and not self._batch.open:
            self._state, points = self._method.propose(self._state)
            self._batch = Batch(first=first, size=len(points), open=True)
            self._table.add(points.numpy())
        elif n is None and first == self._table.count and self._within(first, 1) > first:
            raise ConfigError(
                f"all {self._batch.size} points of this batch are under way: tell their values, or"
                " ask(n) for n more"
            )
        end = self._within(first, n)
        if end > self._table.count:
            self._draw(end - self._table.count)

    def _draw(self, count: int) -> None:
        """Add points around where the method searches."""
        center, spread = self._method.around(self._state)
        drawn = stream(self._ground.seed, "extra", self._extra).standard_normal(
            (count, len(center))
        )
        points = center + spread * torch.from_numpy(drawn)
        self._table.add(project(points, self._ground.lower, self._ground.upper).numpy())
        self._extra += 1

    def _hand_out(self, end: int) -> None:
        for point in self._space.points(self._table.points[self.asked : end]):
            key = self._space.key(point)
            self._table.ask(self.asked, key)
            self._keys.append(key)

    def tell(
        self,
        points: Any,
        values: Any = None,
        *,
        ranking: Any = None,
        failures: Any = None,
        violations: Any = None,
    ) -> None:
        """Tell what became of points that were asked for, in any order.

        values: a number a point; None, NaN and infinities are failures. ranking: positions of the
        points from the best to the worst, where nobody has values: of a whole batch, for cma and
        random. failures: why the points have failed, a text or exception for each or one for all.
        violations: with `constrained`, for each point a number or those of its constraints, at most
        0 where it is allowed; then values count only for allowed points, and may be None for
        others, or missing where none is allowed.

        Raises ConfigError, with nothing changed, for points that are not under way and for answers
        that do not fit.
        """
        check_what_is_told(points, values, ranking, failures, violations)
        if violations is not None and not self.constrained:
            raise ConfigError("violations need Optimizer(..., constrained=True)")
        keys = [self._space.key(point) for point in points]
        numbers = self._table.find(keys)
        if ranking is not None:
            self._rank(numbers, as_ranking(ranking, len(keys)))
            return
        told = as_told(len(keys), values, failures, violations)
        if RANKED in self._table.status and any(point.value is not None for point in told):
            raise ConfigError("points of this search were ranked before; go on with rankings")
        for number, point in zip(numbers, told, strict=True):
            self._note(number, point)
        self._learn()

    def _note(self, number: int, told: Told) -> None:
        key, value = self._keys[number], told.value
        if told.violation > 0:
            self._table.tell(number, key, told.violation, INFEASIBLE)
        elif value is None:
            self._table.tell(number, key, math.nan, FAILED)
            self._reason = self._reason or told.reason or "no finite value"
        else:
            self._table.tell(number, key, value, TOLD)
            if value < self.best_value or (value == self.best_value and number < self._best):
                self._best = number

    def _rank(self, numbers: list[int], order: list[int]) -> None:
        """Take in an order of a whole batch: the method gets ranks for values."""
        batch = self._batch
        if not self._method.ranks or TOLD in self._table.status:
            why = "values were told" if self._method.ranks else "rankings suffice cma and random"
            raise ConfigError(f"method={self._text!r} needs values here: {why}; tell values")
        end = self._within(batch.first, batch.size)
        if sorted(numbers) != list(range(batch.first, end)):
            raise ConfigError(
                f"a ranking of {len(numbers)} points is none of the whole batch of"
                f" {end - batch.first}; rank what one ask() gives together"
            )
        if batch.size == 1:
            raise ConfigError("one point has no ranking; ask for several, with parallel=8")
        ranks = np.empty(len(numbers))
        ranks[np.array(numbers)[order] - batch.first] = np.arange(len(order))
        for number in numbers:
            self._table.tell(number, self._keys[number], math.nan, RANKED)
        if (whole := end == batch.first + batch.size) or self._best < 0:  # a few say little
            self._best = numbers[order[0]]
        if whole:  # or the budget ends here, and the search with it
            lower_than_before = float(end)  # else cma finds no progress, and ends
            self._absorb(torch.from_numpy(ranks - lower_than_before))

    def _learn(self) -> None:
        """Let the method learn from its batch where all of that was told."""
        batch = self._batch
        own = slice(batch.first, batch.first + batch.size)
        if batch.open and self.asked >= own.stop and UNDER_WAY not in self._table.status[own]:
            self._absorb(torch.from_numpy(self._table.to_learn(own)))

    def _absorb(self, values: torch.Tensor) -> None:
        own = slice(self._batch.first, self._batch.first + self._batch.size)
        points = torch.from_numpy(self._table.points[own].copy())
        self._state = self._method.absorb(self._state, points, values)
        self._batch = Batch()
        self._ended = self._method.finished(self._state)

    def result(self) -> Result:
        """Return what was found so far."""
        return make_result(
            self._space,
            self._table,
            best=self._best,
            first_failure=self._reason,
            method=self._text,
            why=getattr(self._state, "why", f"{self._method.name}, because it was asked for"),
            stop=self.stop,
            seed=self._ground.seed,
        )

    def save(self, path: str | Path) -> None:
        """Write the search to a file, whole or not at all, points that are under way included.

        Raises ConfigError where there is no such folder, StorageError or OSError where the system
        does not let us.
        """
        require_place(Path(path))
        saved = Saved(
            space=dict(self._space.facts()),
            method=self._text,
            **{name: getattr(self._ground, name) for name in LIMITS},
            asked=self.asked,
            best=self._best,
            extra=self._extra,
            reason=self._reason,
            ended=self._ended,
            batch=self._batch,
        )
        write_search(Path(path), saved, self._table, self._state)

    @classmethod
    def load(cls, path: str | Path) -> "Optimizer":
        """Return the search of a file, which goes on at the same bits.

        Raises CheckpointError for a file that is missing, damaged or of something else.
        """
        saved, table = read_search(Path(path))
        made = cls.__new__(cls)
        space = restore_space(saved.space)
        limits = {name: getattr(saved, name) for name in LIMITS}
        made._begin(space, make_ground(space, **limits), saved.method)
        made._state = table.state(made._state)
        made._table.add(table.points)
        made._hand_out(saved.asked)
        for number in np.flatnonzero(table.status[: saved.asked] != UNDER_WAY).tolist():
            status = int(table.status[number])
            made._table.tell(number, made._keys[number], float(table.values[number]), status)
        made._batch, made._best, made._extra = saved.batch, saved.best, saved.extra
        made._reason, made._ended = saved.reason, saved.ended
        return made
