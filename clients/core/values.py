"""Answer fedzo.protocol.questions.values: the objective's value at given points."""

import torch

from fedzo.protocol.question import no_numbers
from fedzo.protocol.questions.values import Values, ValuesConfig, ValuesTold
from fedzo.runtime.local import Answered, Clients

__all__ = ["ValuesConfig", "answer_values"]


def answer_values(question: Values, clients: Clients) -> Answered:
    """Ask every client's objective at the same points; [n, 0] when the budget is too small."""
    points = clients.at(question.x)
    if clients.oracle.remaining < len(question.x):
        return ValuesTold(values=no_numbers(points, torch.float64)), clients.states
    return ValuesTold(values=clients.oracle.value(points)), clients.states
