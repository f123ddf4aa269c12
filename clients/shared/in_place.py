"""Answer fedzo.protocol.questions.in_place: modules asked where their parameters are.

Malladi et al., "Fine-Tuning Language Models with Just Forward Passes" (MeZO), NeurIPS 2023; with
shared directions and numbers instead of vectors: Qin et al., "FedKSeed", ICML 2024; Li et al.,
"DeComFL", ICLR 2025. Probing does not write to x (fedzo.estimation.in_place); only a step does,
once for all clients that share a module. Memory above a forward pass: about the largest tensor.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clients.core.local import minibatches, part_of
from fedzo.errors import ConfigError
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.replay import Replay
from fedzo.estimation.schemes import SCHEMES
from fedzo.objectives.modules import ModuleObjective
from fedzo.objectives.objective import Objective
from fedzo.protocol.question import no_numbers
from fedzo.protocol.questions.in_place import InPlaceQuestion, JudgeInPlace, SlopesInPlace
from fedzo.protocol.questions.probes import Probed
from fedzo.protocol.questions.values import ValuesTold
from fedzo.runtime.local import Answered, Clients


def answer_slopes_in_place(question: SlopesInPlace, clients: Clients) -> Answered:
    """Ask along the next directions; answers nothing when the budget is too small."""
    config, scheme = question.settings, SCHEMES[question.settings.estimator]
    asked, keys = question.cost().queries, replay_of(question, clients).keys(len(question.log))
    if clients.oracle.remaining < asked:
        return Probed(slopes=_nothing(clients)), clients.states
    batches = minibatches(clients, config, 1)
    part = part_of(clients.cohort, None if batches is None else batches[:, 0])

    def ask(objective: Objective) -> Float[Tensor, " q"]:
        return _place(objective, question, clients).values(keys, scheme, config.mu)

    values = clients.oracle.told(asked, ask, of=part)
    return Probed(slopes=scheme.slopes(values, config.mu, None)), clients.states


def judge_in_place(question: JudgeInPlace, clients: Clients) -> Answered:
    """Ask once where the log leads; nothing when the budget is too small."""
    if clients.oracle.remaining < 1:
        return ValuesTold(values=_nothing(clients)), clients.states

    def ask(objective: Objective) -> Float[Tensor, " q"]:
        return torch.tensor([_place(objective, question, clients).loss()], dtype=torch.float64)

    return ValuesTold(values=clients.oracle.told(1, ask)), clients.states


def replay_of(question: InPlaceQuestion[Probed] | JudgeInPlace, clients: Clients) -> Replay:
    """Return the stream of directions that the question's log is about."""
    return question.settings.replay(clients.seed, clients.moment.problem)


def _place(
    objective: Objective, question: SlopesInPlace | JudgeInPlace, clients: Clients
) -> InPlace:
    """Return the objective at its module's parameters, which are brought to where the log leads."""
    if not isinstance(objective, ModuleObjective):
        raise ConfigError(
            f"{type(objective).__name__} has no module whose parameters could be asked in place;"
            " return a ModuleObjective, or use the strategy seedzo"
        )
    replay_of(question, clients).bring_(objective.module, question.log.cpu())
    return InPlace.of_module(objective)


def _nothing(clients: Clients) -> Float[Tensor, "n 0"]:
    return no_numbers(torch.empty(len(clients), 0, dtype=torch.float64))
