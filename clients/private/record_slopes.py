"""Clipped slopes of single records, at a module's own parameters: no vector of length d is made.

    s_ij = [l_j(x + mu u_i) - l_j(x - mu u_i)] / (2 mu)       record j, direction i, x where the log
    answer: (1 / n_p) sum_j clip((s_1j .. s_mj), C)           leads          [n, m]

Zhang et al., "DPZero: Private Fine-Tuning of Language Models without Backpropagation", ICML 2024,
algorithm 2, and Tang et al., "Private Fine-tuning of Large Language Models with Zeroth-order
Optimization", 2024, with several directions clipped as one vector, and any difference scheme of
fedzo.estimation.schemes. The loss of a record is asked by torch.func.vmap, so it cannot depend on
another record, whatever the module; that the losses average to the client's objective is compared
first, at x and at x + u_1 / 10. Differs: all records every time, no batches; so nothing is gained
by sampling, and nothing lost. Cost: the scheme's queries (central: 2 m), each with all records
behind it. A record whose losses are not finite counts as zero.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clients.shared.in_place import log_of, nothing, reached, remembering, replay_of
from fedzo.errors import ConfigError
from fedzo.estimation.direction import Direction
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.schemes import SCHEMES
from fedzo.objectives.modules import ModuleObjective
from fedzo.objectives.objective import Objective
from fedzo.privacy.averages import NOT_AVERAGED, QUERIES, tolerance
from fedzo.privacy.clipping import clip_rows
from fedzo.protocol.questions.in_place import RecordSlopesInPlace
from fedzo.protocol.questions.probes import Probed
from fedzo.runtime.local import Answered, Clients

_BESIDE = 0.1


def answer_record_slopes(question: RecordSlopesInPlace, clients: Clients) -> Answered:
    """Return each client's mean of its records' clipped slopes; nothing with too small a budget."""
    config, scheme = question.settings, SCHEMES[question.settings.estimator]
    if clients.oracle.is_noisy:
        raise ConfigError("losses of single records have no noise; set scenario.noise_std=0")
    asked = question.cost().queries
    if clients.oracle.remaining < asked + QUERIES * question.compare:
        return Probed(slopes=nothing(clients)), clients.states
    log, replay = log_of(question, clients), replay_of(question, clients)
    keys = replay.keys(question.first_step(log))
    means = torch.zeros(len(clients), config.num_directions, dtype=torch.float64)

    def place_of(objective: Objective) -> tuple[InPlace, InPlace]:
        place, _ = reached(objective, question, replay, log)
        assert isinstance(objective, ModuleObjective)  # or it has been refused
        return place, place.asking(objective.own_record_losses)

    def compared(_: int, objective: Objective) -> Float[Tensor, " q"]:
        return _pairs(*place_of(objective), keys[0])

    def ask(position: int, objective: Objective) -> Float[Tensor, " q"]:
        _, records = place_of(objective)
        values = records.rows(keys, scheme, config.mu)
        slopes = scheme.slopes(values.T, config.mu, None)
        means[position] = clip_rows(slopes, question.clip_norm).sums.mean(dim=0)
        return values.where(values.isfinite(), 0.0).mean(dim=1)

    if question.compare:
        _require_equal(clients.oracle.told(QUERIES, compared))
    clients.oracle.told(asked, ask)
    return Probed(slopes=means), remembering(log, clients)


def _pairs(whole: InPlace, records: InPlace, key: Direction) -> Float[Tensor, " q"]:
    """Return the objective and the mean of records' losses, at x and beside it.

    Twice the objective, where the two are apart by no more than rounding; 0 where it is not finite.
    """
    found = list[float]()
    for terms in ([], [(key, _BESIDE)]):
        value, mean = whole.at(terms), float(records.told_at(terms).mean())
        if not math.isfinite(value):  # one record may be the reason, and must not show
            value = mean = 0.0
        size = (abs(value) + abs(mean)) / 2
        same = abs(value - mean) <= tolerance(whole.place) * size
        found += [value, value if same else mean]
    return torch.tensor(found, dtype=torch.float64)


def _require_equal(told: Float[Tensor, "n q"]) -> None:
    """Raise ConfigError where the mean of the records is not the objective."""
    value, mean = told[:, ::2], told[:, 1::2]
    apart = value != mean
    if bool(apart.any()):
        share = ((value - mean).abs() / ((value.abs() + mean.abs()) / 2))[apart].max()
        said = f"they are {float(share):.0%} apart" if share.isfinite() else "some are not finite"
        raise ConfigError(f"{NOT_AVERAGED} ({said})")
