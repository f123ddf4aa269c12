"""What a private run on somebody's data tells beside what its epsilon covers."""

import warnings
from typing import Any

from fedzo.errors import FedzoWarning
from strategies.core.method import RoundMethod
from strategies.core.privacy_config import PrivacyConfig


def warn_of_uncovered(method: RoundMethod[Any], seed: int) -> None:
    """Say what undoes or escapes the privacy that a strategy claims, each once a run."""
    if method.privacy is None or not method.privacy.claims:
        return
    for sentence in uncovered(method.privacy, method.rounds.evaluate_every, seed):
        warnings.warn(sentence, FedzoWarning, stacklevel=3)


def uncovered(config: PrivacyConfig, evaluate_every: int, seed: int) -> list[str]:
    """Return a sentence for each thing that epsilon does not cover and the settings ask for."""
    told = []
    if config.noise_source == "stream":
        told.append(
            f"strategy.noise_source=stream makes the noise from the public seed={seed}: whoever"
            " knows it takes the noise off, and epsilon says nothing about data of your own; leave"
            " it out, and noise is of the operating system's entropy"
        )
    if evaluate_every > 0:
        told.append(
            "F and metrics are computed on private data without noise, and epsilon does not cover"
            f" them (strategy.evaluate_every={evaluate_every}); set it to 0, and nobody is"
            " asked, or keep them as secret as the data"
        )
    if config.report_shortened:
        told.append(
            "strategy.report_shortened=true tells the share of clipped vectors without noise, and"
            " epsilon does not cover it; leave it out"
        )
    return told


def warn_of_several(count: int) -> None:
    """Say that runs on the same data add up, where there were several."""
    if count > 1:
        warnings.warn(
            f"{count} private runs have released to the same clients; each one's epsilon counts its"
            " own releases alone, and together they cost more (docs/privacy.md)",
            FedzoWarning,
            stacklevel=3,
        )


def claim(config: PrivacyConfig, epsilon: float, *, judged: bool) -> dict[str, Any]:
    """Return what a run claims, and what that rests on."""
    return {
        "epsilon": epsilon,
        "delta": config.delta,
        "unit": config.unit,
        "adjacency": config.adjacency,
        "noise": "simulated" if config.noise_source == "stream" else "os",
        "judged": "not covered by epsilon" if judged else "nothing",
    }
