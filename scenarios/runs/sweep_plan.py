"""What a sweep is: what is chosen, on which seeds, and the file that says so to who goes on."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedzo.config import Scalar
from fedzo.errors import ConfigError
from fedzo.records.strict_json import spelled, strict_json, unspelled
from scenarios.runs.effects import Effects, involved
from scenarios.runs.experiment import Experiment, effects_of, make_experiment
from scenarios.runs.measures import ENDS, Measure, measure_of
from scenarios.runs.spaces import Choices, Range, Space

SWEEP = "sweep.json"
_TRIED = 64
"""Combinations of a value with others that are tried before it is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What to sweep.

    base: arguments of make_experiment but the seed; its settings are those that are given. spaces:
    setting -> what it may be. seeds: those reported; tuning_seeds: those of the trials, none of the
    former; () takes two above them. trials: None for a whole grid. measure: as of
    scenarios.runs.measures. prune: whether trials below the median are stopped early. seed: of the
    proposals.
    """

    base: Mapping[str, Any]
    spaces: Mapping[str, Space]
    seeds: Sequence[int] = (0, 1, 2)
    tuning_seeds: Sequence[int] = ()
    search: str = "auto"
    trials: int | None = None
    measure: str = "final_value"
    prune: bool = True
    seed: int = 0

    @property
    def decided_by(self) -> Measure:
        """The measure, and its better end; raises ConfigError as `measure_of`."""
        return measure_of(self.measure)

    @property
    def tuned_on(self) -> Sequence[int]:
        """The tuning seeds."""
        first = max(self.seeds, default=0) + 1000
        return self.tuning_seeds or (first, first + 1)

    def require(self) -> None:
        """Raise ConfigError for what cannot be swept, before anything runs."""
        _ = self.decided_by
        if not self.spaces:
            raise ConfigError(
                "nothing is to be chosen; give a setting several values, --set"
                " client.mu=0.001,0.01, or a range, --set strategy.local_lr=log:1e-3..1e-1"
            )
        for name, seeds in (("seeds", self.seeds), ("tuning seeds", self.tuned_on)):
            if len({*seeds}) < len(seeds):
                raise ConfigError(f"{name} {list(seeds)} must not repeat; name each once")
        both = sorted({*self.seeds} & {*self.tuned_on})
        if both or not self.seeds:
            raise ConfigError(
                f"seeds {list(self.seeds)} are reported and {list(self.tuned_on)} tuned on, and"
                f" must be some, and differ: {both} are among both; name other --tuning-seeds"
            )
        usual = {name: space.ends[0] for name, space in self.spaces.items()}
        for name, space in self.spaces.items():
            for end in space.ends:
                self._require_possible(name, end, usual)
            if isinstance(space, Range) and space.kind != "int":
                self._require_between(name, space, usual)
        for name, space in self.spaces.items():
            for end in space.ends:
                self._require_effect(name, end)

    def _require_possible(self, name: str, value: Scalar, usual: Mapping[str, Scalar]) -> None:
        """Raise ConfigError for a value that is allowed in none of some trials, the usual first."""
        ends = [[value] if other == name else s.ends for other, s in self.spaces.items()]
        others = (dict(zip(self.spaces, e, strict=True)) for e in itertools.product(*ends))
        refused = []
        for settings in itertools.chain([{**usual, name: value}], itertools.islice(others, _TRIED)):
            try:
                self.experiment(settings, self.seeds[0])
            except ConfigError as error:
                refused.append(error)
            else:
                return
        raise refused[0]

    def _require_effect(self, name: str, value: Scalar) -> None:
        """Raise ConfigError for a value that has an effect in no trial."""
        sentence, said = "", {**self.base.get("settings", {}), name: value}
        effects = self._effects(said)
        beside = involved(name, effects.conditions) & self.spaces.keys() - {name}
        for chosen in itertools.product(*(self.spaces[other].ends for other in sorted(beside))):
            try:
                tried = self._effects({**said, **dict(zip(sorted(beside), chosen, strict=True))})
            except ConfigError:  # values that are allowed, but not together
                continue
            sentence = tried.without([name]).get(name, "")
            if not sentence:
                return
        raise ConfigError(f"{sentence}; no trial of this sweep does")

    def _effects(self, settings: Mapping[str, Scalar]) -> Effects:
        scenario, strategy = self.base["scenario"], self.base["strategy"]
        return effects_of(scenario, strategy, self.base.get("engine", "inprocess"), settings)

    def _require_between(self, name: str, space: Range, usual: Mapping[str, Scalar]) -> None:
        """Raise ConfigError where ends are allowed and what lies between them is not."""
        try:
            self.experiment({**usual, name: space.between}, self.seeds[0])
        except ConfigError as error:
            self.experiment({**usual, name: int(space.high)}, self.seeds[0])
            raise ConfigError(
                f"--set {name}={space.kind}:{space.low:g}..{space.high:g} would draw numbers such"
                f" as {space.between}, which are not allowed ({error}); for whole numbers write"
                f" {name}=int:{space.low:g}..{space.high:g}"
            ) from error

    def experiment(self, settings: Mapping[str, Scalar], seed: int) -> Experiment:
        """Return the experiment with some settings; those that are swept may have no effect."""
        everything = {**self.base.get("settings", {}), **settings}
        excused = {*self.base.get("excused", ()), *self.spaces}
        given = {**self.base, "settings": everything, "seed": seed, "excused": excused}
        return make_experiment(**given)

    def to_json(self) -> dict[str, Any]:
        """Return what is swept; a resumed sweep must share all but the number of trials."""
        kept = asdict(self)
        kept["base"] = {**self.base, "excused": sorted(self.base.get("excused", ()))}
        loaded: dict[str, Any] = json.loads(strict_json(spelled(kept)))
        return loaded


def require_place(out: Path, plan: SweepPlan, resume: bool) -> None:
    """Raise ConfigError for a directory of something else, or that --resume should be given for."""
    definition, told = out / SWEEP, plan.to_json()
    if resume and not definition.exists():
        raise ConfigError(f"--resume: {out} holds no sweep; leave --resume out, or name its place")
    if definition.exists() and not resume:
        raise ConfigError(f"--out {out} already holds a sweep; add --resume, or name another")
    if not definition.exists():
        return
    before = read_definition(definition)
    both = {name for name in {**before, **told} if name != "trials"}
    if told["measure"] in (f"{end}:{before.get('measure')}" for end in ENDS):
        before = {**before, "measure": told["measure"]}  # begun when nobody had to say the end
    differ = sorted(name for name in both if before.get(name) != told.get(name))
    if differ:
        raise ConfigError(
            f"--out {out} holds another sweep: {', '.join(differ)} differ; resume it as it was"
            " begun (with any --trials), or name another directory"
        )


def as_begun(out: Path, plan: SweepPlan) -> SweepPlan:
    """Return a plan with what it chooses in the order in which the sweep there was begun.

    Grids and draws go by that order.
    """
    definition = out / SWEEP
    if not definition.exists():
        return plan
    order = read_definition(definition)["spaces"]
    return replace(plan, spaces={name: plan.spaces[name] for name in order})


def begun_sweep(out: Path) -> SweepPlan:
    """Return the plan of the sweep in a directory; raises ConfigError where there is none."""
    definition = out / SWEEP
    if not definition.exists():
        raise ConfigError(
            f"--resume: {out} holds no sweep; name the directory of one that was begun"
        )
    told = unspelled(read_definition(definition))
    try:
        spaces = {
            name: Choices(tuple(space["values"])) if "values" in space else Range(**space)
            for name, space in told.pop("spaces").items()
        }
        return SweepPlan(**told, spaces=spaces)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{definition} is damaged, or of another release ({error}); name the sweep with --out"
            " and the options it was begun with"
        ) from error


def read_definition(definition: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(definition.read_text())
    except ValueError as error:
        raise ConfigError(f"{definition} is damaged ({error}); restore it") from error
    return read
