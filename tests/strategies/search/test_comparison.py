"""What a cohort is asked about a proposal, and how its answers are put together."""

from collections.abc import Sequence

import torch

from fedzo.protocol.exchange import Exchange, Replies
from strategies.core.rounds import RoundPlan
from strategies.search.comparison import Answered, Compared, compare, nobody

X, PROPOSAL = torch.zeros(2), torch.ones(2)


def told(answered: Answered, cohort: Sequence[int], *, blind: bool = False) -> Compared | None:
    """Return the comparison of clients that answer 10 i at x and 10 i + 1 at the proposal."""
    plan = RoundPlan(round_index=1, num_clients=9, cohort=cohort)
    asking = compare(X, PROPOSAL, answered, plan, blind=blind)
    try:
        asking.send([answer(exchange) for exchange in next(asking)])
    except StopIteration as end:
        found: Compared | None = end.value
        return found
    raise AssertionError("it asks once")


def answer(exchange: Exchange) -> Replies:
    """Answer as clients do; client 5 has no budget left."""
    ids = list(exchange.client_ids)
    where = exchange.question.x[:, 0].double()  # type: ignore[attr-defined]
    values = 10.0 * torch.tensor(ids).unsqueeze(1) + where
    return Replies(client_ids=ids, tensors={"values": values[:, :0] if 5 in ids else values})


def test_who_has_not_answered_at_x_is_asked_there_too() -> None:
    answered = Answered(torch.tensor([1, 4, 7]), torch.tensor([-1.0, -4.0, -7.0]))
    found = told(answered, [0, 1, 4, 6])
    assert found is not None
    assert found.old.clients.tolist() == found.new.clients.tolist() == [0, 1, 4, 6]
    assert found.old.values.tolist() == [0.0, -1.0, -4.0, 60.0]
    assert found.new.values.tolist() == [1.0, 11.0, 41.0, 61.0]
    assert found.old.values.dtype == torch.float64


def test_a_blind_comparison_knows_nothing_of_x() -> None:
    found = told(nobody(X), [2, 3], blind=True)
    assert found is not None
    assert found.old.values.isnan().all()
    assert found.new.values.tolist() == [21.0, 31.0]


def test_who_has_no_budget_left_is_left_out() -> None:
    answered = Answered(torch.tensor([1]), torch.tensor([-1.0]))
    found = told(answered, [1, 5])
    assert found is not None
    assert found.new.clients.tolist() == [1]
    assert told(nobody(X), [5]) is None
