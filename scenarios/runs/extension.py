"""Whether a run with more rounds would have begun with just the rounds that a directory holds.

A run is extended to the bits of one long run, so nothing in its rounds may have depended on how
many there were to be, and it must have ended, if it has, because they were over.
"""

from pathlib import Path

from fedzo.errors import ConfigError
from fedzo.parts import find_part, need_part
from fedzo.records.checkpoint import Checkpoint, has_checkpoint, load_checkpoint
from scenarios.runs.experiment import Experiment
from scenarios.runs.experiment_file import check_same
from strategies.core.privacy_config import PrivacyConfig
from strategies.core.rounds import RoundConfig

CHECKPOINT, EXPERIMENT = "checkpoint", "experiment.toml"
NEW = "run the longer experiment in a new directory"
_ENDS = {
    "budget": "it ended because its query budget was spent, which more rounds do not change",
    "solved": "it ended because its goal was reached, which more rounds do not change",
    "privacy": "it ended because its privacy budget was spent, which more rounds do not change",
    "callback": "it was ended by a callback, which knows why",
}


def require_no_run(place: Path | None) -> None:
    """Raise ConfigError for a directory that holds a run, whose figure would be written over."""
    if place and (place / EXPERIMENT).exists():
        raise ConfigError(f"--out {place} holds a run; name another directory")


def require_same_or_extendable(path: Path, experiment: Experiment, num_problems: int = 1) -> None:
    """Raise ConfigError unless the run in a directory is this one, or can be extended to it."""
    before = check_same(path / EXPERIMENT, experiment.to_toml())
    if before < experiment.num_rounds:
        _require_extendable(path, experiment, before, num_problems)


def _require_extendable(path: Path, experiment: Experiment, before: int, num_problems: int) -> None:
    """Raise ConfigError unless the run in a directory, of `before` rounds, can get those it lacks.

    Raises CheckpointError where its checkpoint is damaged: without more rounds, a run goes on from
    the one before.
    """
    folder = path / CHECKPOINT
    reason = _depends(experiment, before, num_problems)
    if not reason and has_checkpoint(folder):
        reason = _ended(experiment, load_checkpoint(folder))
    if reason:
        raise ConfigError(
            f"--rounds {experiment.num_rounds}: the run of {before} rounds in {path} cannot be"
            f" extended: {reason}; {NEW}"
        )


def _depends(experiment: Experiment, before: int, num_problems: int) -> str:
    """Say what depends on the number of rounds; nothing where nothing does."""
    if num_problems > 1:
        return f"it poses {num_problems} problems one after the other, each of so many rounds"
    config = experiment.config("strategy")
    privacy = find_part(config, PrivacyConfig)
    if privacy is not None and privacy.claims and not privacy.noise_multiplier:
        return (
            f"its noise was made for the releases of {before} rounds and"
            f" strategy.epsilon={privacy.epsilon:g} (only a typed strategy.noise_multiplier holds"
            " for any number)"
        )
    if getattr(config, "lr_decay", "") == "linear":
        return (
            f"strategy.lr_decay={config.lr_decay} has lowered its steps to 0 over {before} rounds"
        )
    return ""


def _ended(experiment: Experiment, checkpoint: Checkpoint) -> str:
    """Say why a run that has ended, if it has, cannot go on; nothing where it can."""
    facts = checkpoint.facts
    if facts.get("within"):
        return _ENDS.get(facts.get("stop") or "", "")
    if not facts.get("kept"):
        return "it was finished by a version of fedzo that kept no state to go on from"
    if facts["stop"] != "rounds":
        return _ENDS[facts["stop"]]
    every = need_part(experiment.config("strategy"), RoundConfig).evaluate_every
    rounds = int(facts["num_rounds"])
    if facts["judged"] and rounds and (every == 0 or rounds % every):
        return (
            f"round {rounds} was judged because it was the last, which a longer run does not do"
            f" with strategy.evaluate_every={every}"
        )
    return ""
