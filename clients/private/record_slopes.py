"""Clipped slopes of single records, at a module's own parameters: no vector of length d is made.

    s_ij = [l_j(x + mu u_i) - l_j(x - mu u_i)] / (2 mu)       record j, direction i, x where the log
    answer: (1 / b) sum_j clip((s_1j .. s_mj), C)             leads          [n, m]

Zhang et al., "DPZero: Private Fine-Tuning of Language Models without Backpropagation", ICML 2024,
algorithm 2, and Tang et al., "Private Fine-tuning of Large Language Models with Zeroth-order
Optimization", 2024, with several directions clipped as one vector, and any difference scheme of
fedzo.estimation.schemes. The loss of a record is asked by torch.func.vmap, so it cannot depend on
another record, whatever the module (those that cannot be mapped are refused); that the losses
average to the client's objective is compared before its first answer counts, at x and at
x + u_1 / 10 (fedzo.privacy.averages). The sum is over all b = n_p records of a client or, with
batch_size=b, over a fresh sample of b without replacement, which is as secret as the noise (DPZero
draws Poisson samples). Cost: the scheme's queries (central: 2 m), each with b records behind it. A
record whose losses are not finite counts as zero.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clients.core.local import part_of
from clients.private.samples import drawn_records
from clients.shared.in_place import log_of, nothing, reached, remembering, replay_of
from fedzo.errors import ConfigError
from fedzo.estimation.direction import Direction
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.place import Term
from fedzo.estimation.schemes import SCHEMES
from fedzo.objectives.modules import ModuleObjective
from fedzo.objectives.objective import Objective
from fedzo.privacy.averages import NOT_AVERAGED, QUERIES, difference
from fedzo.privacy.clipping import clip_rows
from fedzo.protocol.questions.in_place import RecordSlopes, RecordSlopesInPlace
from fedzo.runtime.local import Answered, Clients

_BESIDE, _FAR = 0.1, 1e9


def answer_record_slopes(question: RecordSlopesInPlace, clients: Clients) -> Answered:
    """Return each client's mean of its records' clipped slopes; nothing with too small a budget."""
    config, scheme = question.settings, SCHEMES[question.settings.estimator]
    if clients.oracle.is_noisy:
        raise ConfigError("losses of single records have no noise; set scenario.noise_std=0")
    asked = scheme.num_queries(config.num_directions)
    if clients.oracle.remaining < question.cost().queries:
        return _told(question, nothing(clients), nothing(clients)), clients.states
    log, replay = log_of(question, clients), replay_of(question, clients)
    keys = replay.keys(question.first_step(log))
    part = part_of(clients.cohort, _batch(question, clients))
    means = torch.zeros(len(clients), config.num_directions, dtype=torch.float64)
    shortened = torch.zeros(len(clients), 1, dtype=torch.float64)

    def place_of(objective: Objective) -> tuple[InPlace, ModuleObjective]:
        place, _ = reached(objective, question, replay, log)
        assert isinstance(objective, ModuleObjective)  # or it has been refused
        return place, objective

    def compare(_: int, objective: Objective) -> Float[Tensor, " q"]:
        return torch.full((QUERIES,), _apart(*place_of(objective), keys[0]), dtype=torch.float64)

    def ask(position: int, objective: Objective) -> Float[Tensor, " q"]:
        place, whole = place_of(objective)
        values = place.asking(whole.own_record_losses).rows(keys, scheme, config.mu)
        slopes = scheme.slopes(values.T, config.mu, None)
        clipped = clip_rows(slopes, question.clip_norm)
        means[position] = clipped.sums.mean(dim=0)
        shortened[position] = clipped.shortened.double().mean()
        return torch.zeros(asked, dtype=torch.float64)  # what single losses are must not show

    if question.compare:
        _require_equal(clients.oracle.told(QUERIES, compare))
    clients.oracle.told(asked, ask, of=part)
    return _told(question, means, shortened), remembering(log, clients)


def _batch(question: RecordSlopesInPlace, clients: Clients) -> Int[Tensor, "n b"] | None:
    """Return the records that are asked; None for all of them."""
    size = question.settings.batch_size
    if not size:
        return None
    return drawn_records(clients, size, question.noise_source, 0, setting="client.batch_size")


def _told(
    question: RecordSlopesInPlace, means: Float[Tensor, "n m"], shortened: Float[Tensor, "n s"]
) -> RecordSlopes:
    return RecordSlopes(slopes=means, shortened=shortened if question.report else None)


def _apart(place: InPlace, objective: ModuleObjective, key: Direction) -> float:
    """Return how far the mean of records' losses is from the objective, at x and beside it."""
    records = place.asking(objective.own_record_losses)
    found = list[float]()
    for terms in ([], [(key, _BESIDE)]):

        def value(part: Tensor | None, terms: list[Term] = terms) -> Float[Tensor, ""]:
            some = objective if part is None else objective.minibatch(part)
            return place.asking(some.own_value).told_at(terms)

        found.append(difference(records.told_at(terms), value))
    return min(max(found), _FAR)


def _require_equal(apart: Float[Tensor, "n q"]) -> None:
    """Raise ConfigError where records' losses are not those of an objective.

    Clients that raise are left to the round, in which they fail alone.
    """
    most = float(apart.nan_to_num(0.0).max())
    if most > 0:
        said = "some are not finite" if most == _FAR else f"they are {most:.0%} apart"
        raise ConfigError(f"{NOT_AVERAGED} ({said})")
