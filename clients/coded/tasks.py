"""Sums of the gradients of shards, as a code says (fedzo.coding).

    r_i,t = sum_j c_j grad f_j(x_t)

Shapes: sums [n, r, d], in float64 whatever x is, for decoding can enlarge their error 1e5 times.
All shards of all machines are asked in one stacked call.
"""

import torch

from fedzo.protocol.questions.coded import CodedSums, CodedTasks
from fedzo.runtime.local import Answered, Clients


def answer_coded(question: CodedTasks, clients: Clients) -> Answered:
    """Answer the tasks of every machine; its oracle is that of the shards, in their order."""
    n, tasks, _ = question.shards.shape
    dim, places = question.points.shape[1], question.places()
    machine, task, place = places.unbind(1)
    sums = question.points.new_zeros(n * tasks, dim, dtype=torch.float64)
    if len(places):
        points = question.points[question.point[machine, task]]
        counts = question.counts[machine, task, place].unsqueeze(1)
        sums.index_add_(0, machine * tasks + task, counts * clients.oracle.gradient(points))
    return CodedSums(sums=sums.reshape(n, tasks, dim)), clients.states
