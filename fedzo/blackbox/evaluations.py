"""What was asked and what was told: a table of points that grows, and finds them again.

A point is known by its number, in the order in which points were asked for. Points that are under
way are found by what the user holds; of several equal ones, the first.
"""

from collections import defaultdict, deque
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from fedzo.errors import ConfigError

UNDER_WAY, TOLD, FAILED, RANKED, INFEASIBLE = range(5)

INFEASIBLE_FROM = 1e200
"""Above any value of a function that means something."""


class Evaluations:
    """Coordinates [n, d], values [n] and what became of each point.

    A value is NaN where there is none, and the violation of an infeasible point.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self._points = np.empty((64, dim))
        self._values = np.full(64, np.nan)
        self._status = np.zeros(64, dtype=np.int64)
        self._waiting: dict[Hashable, deque[int]] = defaultdict(deque)
        self.under_way = 0

    @property
    def points(self) -> NDArray[np.float64]:
        """The coordinates of all points that were asked for."""
        return self._points[: self.count]

    @property
    def values(self) -> NDArray[np.float64]:
        """Their values."""
        return self._values[: self.count]

    @property
    def status(self) -> NDArray[np.int64]:
        """What became of them."""
        return self._status[: self.count]

    def add(self, points: NDArray[np.float64]) -> None:
        """Note points that are to be asked for."""
        end = self.count + len(points)
        while end > len(self._points):
            self._points = np.concatenate([self._points, np.empty_like(self._points)])
            self._values = np.concatenate([self._values, np.full_like(self._values, np.nan)])
            self._status = np.concatenate([self._status, np.zeros_like(self._status)])
        self._points[self.count : end] = points
        self.count = end

    def ask(self, number: int, key: Hashable) -> None:
        """Note that a point is under way."""
        self._waiting[key].append(number)
        self.under_way += 1

    def find(self, keys: list[Hashable]) -> list[int]:
        """Return the numbers of points under way; raises ConfigError for one that is not."""
        seen: dict[Hashable, int] = defaultdict(int)
        found: list[int] = []
        for place, key in enumerate(keys):
            numbers = self._waiting.get(key, ())
            if seen[key] >= len(numbers):
                raise ConfigError(
                    f"point {place} of {len(keys)} is not under way: it was not asked for, or was"
                    " told before; tell points as ask gave them, once"
                )
            found.append(numbers[seen[key]])
            seen[key] += 1
        return found

    def tell(self, number: int, key: Hashable, value: float, status: int) -> None:
        """Note what became of a point under way."""
        self._waiting[key].remove(number)
        if not self._waiting[key]:
            del self._waiting[key]
        self.under_way -= 1
        self._values[number], self._status[number] = value, status

    def objective(self) -> NDArray[np.float64]:
        """Return the values of the function [n], NaN where there is none."""
        return np.where(self.status == INFEASIBLE, np.nan, self.values)

    def to_learn(self, rows: slice) -> NDArray[np.float64]:
        """Return what a method learns of points: values, inf for failures, and what orders.

        An infeasible point is above all feasible ones, the more the further it is from allowed:
        the feasibility rules of Deb, Computer Methods in Applied Mechanics and Engineering 2000.
        """
        values = self.values[rows]
        with np.errstate(over="ignore"):  # of those that are allowed, which are not taken
            above = INFEASIBLE_FROM * (1 + values)
        told = np.where(self.status[rows] == INFEASIBLE, above, values)
        return np.where(np.isnan(told), np.inf, told)
