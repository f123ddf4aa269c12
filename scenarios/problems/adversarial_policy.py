"""An adversarial policy: beat trained players of a game by moving a part of their opponent's steps.

    agent's chances of steps = (1 - share) own + share softmax(seen^T theta)
    theta = radius (2 x - 1),  x in [0, 1]^d,  at first 1/2: every step is as likely
    f_i(x) = P(victim i scores) - P(the agent scores);   F(x) = (1/N) sum_i f_i(x)

Every client has a victim, trained by fictitious play against a partner of its own, who can only be
played against; one policy x is looked for that beats them all. The game is scenarios.problems.
soccer. share is what the attacker controls: 1 is the adversarial policy of Gleave et al., ICLR
2020, less is the generalized attack of Liu et al., "Rethinking Adversarial Policies", arXiv
2305.17342: the agent's own policy, which is trained too, makes the other steps, and the attack is
the harder to notice. Metrics, known to the simulation and free of queries: both players' chances of
a goal; `shift`, the total variation between the states that are visited and those without an
attack; `bound`, what the best attack of this share on each victim alone would leave, by value
iteration. A query of `games` = 0 is an infinity of games, exactly; of K, the mean of
K games that are played with the same dice whenever the client is asked, a step function of x.

Shapes: theta [p, 5], what is seen to steps: p = 2 (cells + 4), the agent's cell and the victim
beside it, by whose the ball is. Differs from the paper: a small game, policies linear in what is
seen, victims by fictitious play, and no defense beside more of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import check_types, require, require_nonnegative
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.problem import Problem, Report
from fedzo.protocol.questions.probes import ProbesConfig
from fedzo.protocol.questions.surrogate import SurrogateConfig
from fedzo.protocol.questions.training_config import ZerothOrderConfig
from fedzo.randomness import stream
from fedzo.records.history import RoundRecord
from fedzo.used_with import UsedWith
from scenarios.problems.one_problem import KnownProblem, OneProblem
from scenarios.problems.scenario import JUDGED_HERE, WITHOUT_GRADIENTS, Suggestions
from scenarios.problems.soccer import STEPS, Dice, Soccer


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialPolicyConfig:
    """Settings.

    share: of the agent's steps that the attacker makes. rounds_of_play: of fictitious play, in
    which victims, and the agent's own policy, are trained; more are harder to beat. radius: of the
    box of the attacker's parameters. games: that a query plays, 0 for its exact value.
    height, width: of the pitch. goes_on: chance that the game goes on after a step. victim_seed: of
    the training, apart from the run's seed.
    """

    share: float = 1.0
    rounds_of_play: int = 3
    radius: float = 4.0
    games: int = 0
    height: int = 3
    width: int = 4
    goes_on: float = 0.9
    victim_seed: int = 0
    noise_std: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {
        "strategy.min_judges": JUDGED_HERE,
        "strategy.judges": JUDGED_HERE,
    }

    own_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.share <= 1, "share", self.share, "above 0, up to 1")
        require(self.rounds_of_play >= 1, "rounds_of_play", self.rounds_of_play, "at least 1")
        for name in ("games", "victim_seed"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(0 < self.radius < math.inf, "radius", self.radius, "positive and finite")
        require_nonnegative("noise_std", self.noise_std)
        self.game()

    def game(self) -> Soccer:
        """Return the game; raises ConfigError for a pitch that is none."""
        return Soccer(self.height, self.width, self.goes_on)


@dataclass(frozen=True)
class Attacked:
    """The agent as the attacker moves it: x to the chances of its steps."""

    game: Soccer
    own: Float[Tensor, "s a"]
    share: float
    radius: float

    @property
    def dim(self) -> int:
        """Of x."""
        return self.game.features.shape[1] * len(STEPS)

    def policies(self, x: Float[Tensor, "q d"]) -> Float[Tensor, "q s a"]:
        """Return the agent's policy for each x."""
        theta = self.radius * (2 * x.double() - 1)
        scores = self.game.features @ theta.reshape(len(x), -1, len(STEPS))
        return (1 - self.share) * self.own + self.share * scores.softmax(dim=-1)


@dataclass(frozen=True)
class PlayObjective:
    """What a client can ask: its victim's chance to score less the agent's, by playing."""

    agent: Attacked
    victim: Float[Tensor, "s a"]
    dice: Dice | None
    lower: float = 0.0
    upper: float = 1.0

    @property
    def dim(self) -> int:
        """Of x."""
        return self.agent.dim

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        policies = self.agent.policies(x.reshape(-1, self.dim))
        game = self.agent.game
        values = (
            game.value(policies, self.victim)
            if self.dice is None
            else game.played(policies, self.victim, self.dice)
        )
        return values.reshape(x.shape[:-1])


class AdversarialPolicyScenario(OneProblem):
    """The scenario `adversarial_policy`."""

    black_box = True
    default_rounds: ClassVar[int] = 100
    suggested: ClassVar[Suggestions] = {
        **WITHOUT_GRADIENTS,
        ZerothOrderConfig: {"client.mu": 0.05},
        ProbesConfig: {"client.mu": 0.05},
        SurrogateConfig: {"strategy.num_directions": 5, "strategy.probe_radius": 0.1},
    }

    def __init__(self, config: AdversarialPolicyConfig, *, num_clients: int, seed: int) -> None:
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        self._config, self._seed, self.game = config, seed, config.game()
        self._drawn: dict[int, Dice] = {}
        agents, victims = self.game.fictitious_play(
            num_clients + 1,
            config.rounds_of_play,
            generator=stream(config.victim_seed, "adversarial_policy", "victims"),
        )
        self.victims = victims[:num_clients]
        self.agent = Attacked(self.game, agents[num_clients], config.share, config.radius)

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        return cohort_of(
            [
                PlayObjective(self.agent, self.victims[client], self._dice(client))
                for client in client_ids
            ]
        )

    def problem(self, index: int) -> Problem:
        start = torch.full((self.agent.dim,), 0.5)
        return KnownProblem(start, self._judge, lower=0.0, upper=1.0, image=False)

    @cached_property
    def bound(self) -> float:
        """The mean over victims of what the best attack on each alone leaves it."""
        own, share = self.agent.own, self._config.share
        best, _ = self.game.best_reply(self.victims, 0, own=own, share=share)
        return float(self.game.value((1 - share) * own + share * best, self.victims).mean())

    @cached_property
    def unattacked(self) -> Float[Tensor, "n s"]:
        """How often each state is visited where the agent plays by its own policy, in shares."""
        return _shares(self.game.visits(self.agent.own, self.victims)[0])

    def draw(
        self, path: Path, solutions: Sequence[Float[Tensor, " d"]], history: Sequence[RoundRecord]
    ) -> None:
        """Draw where the agent is, without the attack and with it, and the way there."""
        policy = self.agent.policies(solutions[0].unsqueeze(0))[0]
        attacked = _shares(self.game.visits(policy, self.victims)[0])
        places = [self.game.places(shares.mean(dim=0)) for shares in (self.unattacked, attacked)]
        _draw(path, places, self.bound, history)

    def _judge(self, x: Float[Tensor, " d"]) -> Report:
        policy = self.agent.policies(x.unsqueeze(0))[0]
        visits, goals = self.game.visits(policy, self.victims)
        theirs, mine = goals.mean(dim=0).tolist()
        shift = (_shares(visits) - self.unattacked).abs().sum(dim=1).mean() / 2
        told = {"victim_goals": theirs, "agent_goals": mine, "shift": float(shift)}
        return Report(theirs - mine, {**told, "bound": self.bound})

    def _dice(self, client: int) -> Dice | None:
        """Return a client's dice, which are drawn once: a cohort is made for every exchange."""
        games = self._config.games
        if games and client not in self._drawn:
            generator = stream(self._seed, "adversarial_policy", "dice", client)
            self._drawn[client] = self.game.dice(games, generator=generator)
        return self._drawn.get(client)


def _shares(visits: Float[Tensor, "n s"]) -> Float[Tensor, "n s"]:
    return visits / visits.sum(dim=1, keepdim=True)


def _draw(
    path: Path,
    places: Sequence[Float[Tensor, "h w"]],
    best: float,
    history: Sequence[RoundRecord],
) -> None:
    """Draw the agent's share of time in each cell, twice, and the victims' value by queries."""
    from matplotlib.figure import Figure  # matplotlib: for who draws

    from fedzo.records.curves import LABELS, run_curve
    from fedzo.records.plots import save_figure

    figure = Figure(figsize=(7.5, 5.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.3), squeeze=False)[:, 0]
    most = max(float(place.max()) for place in places)
    for axes, place, title in zip(
        top.subplots(1, 2), places, ("by itself", "attacked"), strict=True
    ):
        shown = axes.imshow(place.numpy(), cmap="Blues", vmin=0, vmax=most)
        axes.set_title(f"the agent {title}", fontsize="small")
        axes.set_xlabel("its goal is on the right", fontsize="small")
        axes.set_xticks([])
        axes.set_yticks([])
    top.colorbar(shown, ax=top.axes, label="share of the time")
    axes = bottom.subplots()
    curve = run_curve([r for r in history if r.value is not None], "value", "queries")
    axes.plot(curve.positions, curve.values, drawstyle="steps-post", label="the attack")
    axes.axhline(best, color="black", lw=0.8, ls="--", label="the best on each victim alone")
    axes.set_xlabel(LABELS["queries"])
    axes.set_ylabel("P(victim scores) - P(agent scores)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    save_figure(figure, path)
