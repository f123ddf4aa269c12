"""Equal effort for every method of a comparison: as many trials, on seeds that are not reported.

A setting that has several values, or a range, is chosen for every method that has it, each for
itself; LABEL:KEY=... for one of them alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedzo.config import Scalar
from fedzo.errors import ConfigError
from scenarios.runs.compare import own_settings, typed_by_label
from scenarios.runs.spaces import Space
from scenarios.runs.sweep import ALONE, Effort, Tuned, tune
from scenarios.runs.sweep_plan import SWEEP, SweepPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedMethods:
    """A comparison's arguments with the settings that were chosen, and what choosing has cost."""

    base: dict[str, Any]
    found: Mapping[str, Tuned]

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            label: {
                "settings": dict(tuned.best.settings),
                "trials": len(tuned.trials),
                "queries": tuned.queries,
            }
            for label, tuned in self.found.items()
        }


def tune_methods(
    base: Mapping[str, Any],
    strategies: Mapping[str, str],
    spaces: Mapping[str, Space],
    seeds: Sequence[int],
    *,
    trials: int,
    out: Path | None = None,
    resume: bool = False,
    effort: Effort = ALONE,
) -> TunedMethods:
    """Tune every method, strategies by label, with as many trials; runs lie in out/tuning/LABEL.

    Raises ConfigError for a method that has none of the settings that are to be chosen.
    """
    plans = tuning_plans(base, strategies, spaces, seeds, trials)
    given: dict[str, Scalar] = dict(base.get("settings", {}))
    for plan in plans.values():
        plan.require()
    found: dict[str, Tuned] = {}
    for label, plan in plans.items():
        place = None if out is None else out / "tuning" / label
        begun = place is not None and (place / SWEEP).exists()
        found[label] = tune(plan, out=place, resume=resume and begun, effort=effort)
        given |= {f"{label}:{key}": value for key, value in found[label].best.settings.items()}
    excused = {*base.get("excused", ()), *(key for key in given if ":" in key)}
    return TunedMethods(base={**base, "settings": given, "excused": excused}, found=found)


def tuning_plans(
    base: Mapping[str, Any],
    strategies: Mapping[str, str],
    spaces: Mapping[str, Space],
    seeds: Sequence[int],
    trials: int,
) -> dict[str, SweepPlan]:
    """Return what to sweep for every method, by label."""
    given = base.get("settings", {})
    everything = {**given, **{name: space.ends[0] for name, space in spaces.items()}}
    typed = typed_by_label({**base, "settings": everything}, strategies)
    plans = {}
    for label, name in strategies.items():
        own = {key: spaces[said] for key, said in typed[label].items() if said in spaces}
        if not own:
            raise ConfigError(
                f"--tune {trials}: {label} has none of the settings that are to be chosen"
                f" ({', '.join(spaces)}); give it some of its own, {label}:KEY=V,V"
            )
        fixed = {key: said for key, said in typed[label].items() if said in given}
        settings = own_settings(base, fixed)
        excused = {*base.get("excused", ()), *settings}
        method = {**base, "strategy": name, "settings": settings, "excused": excused}
        plans[label] = SweepPlan(base=method, spaces=own, seeds=seeds, trials=trials)
    return plans
