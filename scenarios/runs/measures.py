"""Which end of a measure is the better one, where one is.

Words: `final_value`, or `lowest:mine` and `highest:mine` for a metric of which fedzo does not know.
"""

import difflib
from dataclasses import dataclass

from fedzo.errors import ConfigError

LOWER_IS_BETTER = frozenset({
    "value", "final_value", "best_value", "gap", "test_loss", "disagreement", "gradient_norm_sq",
    "sufficiency", "victim_goals", "mean_queries", "mean_rounds", "peer_floats", "rounds",
    "queries", "gradients", "examples", "floats_up", "floats_down", "bytes_up", "bytes_down",
    "wall_s", "virtual_s", "virtual_seconds", "wasted", "epsilon", "clients_failed",
})  # fmt: skip
HIGHER_IS_BETTER = frozenset({
    "test_accuracy", "success", "success_rate", "transfer", "transfer_rate", "found",
    "comprehensiveness", "agent_goals",
})  # fmt: skip
_HIGHER_BEGIN = ("all_rows_", "f1_", "precision_", "recall_", "jaccard_")
"""Those of the scenario `metric`, also of each class; a loss or an error of that name is none."""
_LOWER_END = ("_loss", "_error", "_cost")
ENDS = {"lowest": False, "highest": True}
"""Which may be said to be the better one -> whether more is better then."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A name, and whether more of it is better."""

    name: str
    higher: bool

    @property
    def end(self) -> str:
        """The better end."""
        return "highest" if self.higher else "lowest"


def measure_of(words: str) -> Measure:
    """Return what `--measure` says; raises ConfigError where which end is better is not known."""
    sense, colon, name = words.partition(":")
    if colon and sense in ENDS and name:
        return Measure(name, ENDS[sense])
    of_metric = words.startswith(_HIGHER_BEGIN) and not words.endswith(_LOWER_END)
    higher = words in HIGHER_IS_BETTER or of_metric
    if not higher and words not in LOWER_IS_BETTER:
        names = sorted(LOWER_IS_BETTER | HIGHER_IS_BETTER)
        near = difflib.get_close_matches(words, names, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"--measure {words}: {meant}it is unknown whether more of it is better; write"
            f" lowest:{words} or highest:{words}, or one of {', '.join(names)}"
        )
    return Measure(words, higher)


def more_is_better(metric: str, higher: bool | None = None) -> bool:
    """Return what is said, or else what is known of a metric; more is, where nothing is."""
    lower = metric in LOWER_IS_BETTER or metric.endswith(_LOWER_END)
    return not lower if higher is None else higher
