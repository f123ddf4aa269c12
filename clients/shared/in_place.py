"""Answer fedzo.protocol.questions.in_place: modules asked where their parameters are.

Malladi et al., "Fine-Tuning Language Models with Just Forward Passes" (MeZO), NeurIPS 2023; with
shared directions and numbers instead of vectors: Qin et al., "FedKSeed", ICML 2024; Li et al.,
"DeComFL", ICLR 2025. Probing does not write to x, and neither do local steps
(fedzo.estimation.in_place); only a step of all does, once for all clients that share a module. A
client remembers the log. Where clients answer late (SlopesInWave), a module that others have moved
on is asked back. Memory above a forward pass: about the largest tensor, and the log.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from clients.core.local import minibatches, part_of
from fedzo.errors import ConfigError
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.place import Term
from fedzo.estimation.replay import Log, Replay
from fedzo.estimation.schemes import SCHEMES
from fedzo.objectives.modules import ModuleObjective, trained_parameters
from fedzo.objectives.objective import Objective
from fedzo.protocol.exchange import ClientState
from fedzo.protocol.question import no_numbers
from fedzo.protocol.questions.in_place import JudgeInPlace, SlopesInPlace, SlopesInWave
from fedzo.protocol.questions.probes import Probed
from fedzo.protocol.questions.values import ValuesTold
from fedzo.runtime.local import Answered, Clients

_LOG = "in place log"


def answer_slopes_in_place(question: SlopesInPlace, clients: Clients) -> Answered:
    """Ask along the next directions; answers nothing when the budget is too small."""
    config, scheme = question.settings, SCHEMES[question.settings.estimator]
    if clients.oracle.remaining < question.cost().queries:
        return Probed(slopes=nothing(clients)), clients.states
    log, replay = log_of(question, clients), replay_of(question, clients)
    steps, m = question.local_steps, config.num_directions
    batches = minibatches(clients, config, steps)
    walked: list[list[Term]] = [[] for _ in clients.ids]
    found = []
    for step in range(steps):
        keys = replay.keys(question.first_step(log) + step)
        part = part_of(clients.cohort, None if batches is None else batches[:, step])

        def ask(position: int, objective: Objective) -> Float[Tensor, " q"]:
            place, back = reached(objective, question, replay, log)
            beside = [*back, *walked[position]]
            return place.values(keys, scheme, config.mu, beside=beside)  # noqa: B023

        values = clients.oracle.told(scheme.num_queries(m), ask, of=part)
        slopes = scheme.slopes(values, config.mu, None)
        found.append(slopes)
        for terms, row in zip(walked, slopes.tolist(), strict=True):
            terms += [
                (key, -question.local_lr / m * slope) for key, slope in zip(keys, row, strict=True)
            ]
    return Probed(slopes=torch.cat(found, dim=1)), remembering(log, clients)


def judge_in_place(question: JudgeInPlace, clients: Clients) -> Answered:
    """Ask once where the log leads; nothing when the budget is too small."""
    if clients.oracle.remaining < 1:
        return ValuesTold(values=nothing(clients)), clients.states
    log, replay = log_of(question, clients), replay_of(question, clients)

    def ask(_: int, objective: Objective) -> Float[Tensor, " q"]:
        place, back = reached(objective, question, replay, log)
        return torch.tensor([place.at(back)], dtype=torch.float64)

    return ValuesTold(values=clients.oracle.told(1, ask)), clients.states


def replay_of(question: SlopesInPlace | JudgeInPlace, clients: Clients) -> Replay:
    """Return the stream of directions that the question's log is about."""
    replay = question.settings.replay(clients.seed, clients.moment.problem)
    return replace(replay, start=question.start)


def log_of(question: SlopesInPlace | JudgeInPlace, clients: Clients) -> Log:
    """Return the whole log: what clients remember, and the news.

    A client that remembers less than the server has told it fails, before it is asked.
    """
    held = [_remembered(state) for state in clients.states]
    for position, log in enumerate(held):
        if len(log) < question.first:
            clients.cohort.failures.setdefault(
                position,
                f"the client remembers {len(log)} entries of the log, and was sent those from"
                f" {question.first} on; it is sent all of them when it is asked for slopes again",
            )
    return torch.cat([max(held, key=len)[: question.first], question.news.cpu()])


def remembering(log: Log, clients: Clients) -> list[ClientState]:
    """Return what clients keep: the log, but for those that have failed."""
    lost = clients.cohort.failures
    return [
        state if position in lost else {**state, _LOG: log}
        for position, state in enumerate(clients.states)
    ]


def _remembered(state: ClientState) -> Log:
    return state[_LOG].cpu() if _LOG in state else torch.empty(0)


def reached(
    objective: Objective, question: SlopesInPlace | JudgeInPlace, replay: Replay, log: Log
) -> tuple[InPlace, list[Term]]:
    """Return the objective at its module's parameters, and what leads from there to where the log
    does: nothing but where a wave's question comes late, after the module has been moved on.
    """
    if not isinstance(objective, ModuleObjective):
        raise ConfigError(
            f"{type(objective).__name__} has no module whose parameters could be asked in place;"
            " return a ModuleObjective, or use the strategy seedzo"
        )
    place, module = InPlace.of_module(objective), objective.module
    if any(p.is_meta for p in trained_parameters(module)):
        raise ConfigError(
            f"the {type(module).__name__} has shapes alone (meta), and its parameters are where x"
            " is; make it with numbers, or use the strategy seedzo"
        )
    if isinstance(question, SlopesInWave):
        return place, replay.back_to(module, log)
    replay.bring_(module, log)
    return place, []


def nothing(clients: Clients) -> Float[Tensor, "n 0"]:
    """Return no numbers of each client."""
    return no_numbers(torch.empty(len(clients), 0, dtype=torch.float64))
