"""Sizes that no machine has, refused before anything is allocated."""

import os
import re
from collections.abc import Mapping
from itertools import pairwise

from fedzo.config import Scalar, require
from fedzo.errors import ConfigError

MOST_CLIENTS, MOST_ROUNDS, LARGEST = 1_000_000, 1_000_000_000, 1 << 53
_FLOAT = 8
_FIRST_LAYER = 8
"""Inputs of a network, at least; which data there are is not known here."""


def check_counts(num_rounds: int, num_clients: int, query_budget: int | None) -> None:
    """Raise ConfigError for counts that no run reaches."""
    require(num_rounds <= MOST_ROUNDS, "rounds", num_rounds, f"at most {MOST_ROUNDS:,}")
    require(num_clients <= MOST_CLIENTS, "clients", num_clients, f"at most {MOST_CLIENTS:,}")
    budget = query_budget or 0
    require(
        budget <= LARGEST, "query_budget", budget, f"at most {LARGEST:,}; leave it out for none"
    )


def check_memory(num_clients: int, settings: Mapping[str, Scalar]) -> None:
    """Raise ConfigError where one vector of each client, or one client's directions, do not fit.

    It is less than a run needs, so nothing that could run is refused.
    """
    for name, value in settings.items():
        if isinstance(value, int):
            require(abs(value) <= LARGEST, name, value, f"at most {LARGEST:,}")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    dim, told = _least_dim(settings)
    rows = {"clients": num_clients}
    for name in ("client.num_directions", "client.num_features"):
        rows[name] = int(settings.get(name, 1))
    for name, count in rows.items():
        if _FLOAT * dim * count > memory:
            raise ConfigError(
                f"{told} with {name}={count} takes {_FLOAT * dim * count / 1e9:,.0f} GB, and this"
                f" machine has {memory / 1e9:,.0f}; lower one of them"
            )


def _least_dim(settings: Mapping[str, Scalar]) -> tuple[int, str]:
    """Return the least number of parameters that the settings can mean, and what says so."""
    hidden = settings.get("scenario.hidden")
    if hidden is None or settings.get("scenario.model") == "cnn":
        dim = int(settings.get("scenario.dim", 1))
        return dim, f"scenario.dim={dim}"
    units = [_FIRST_LAYER, *(int(text) for text in re.findall(r"\d{1,15}", str(hidden)))]
    return sum(below * above for below, above in pairwise(units)), f"scenario.hidden={hidden}"
