"""What is believed of the work that clients claim."""

import torch
from worlds import Toy

from fedzo.protocol.claims import believable
from fedzo.protocol.exchange import Exchange, Replies, join_replies
from fedzo.protocol.questions.training import FirstOrderSteps
from fedzo.protocol.questions.training_config import FirstOrderConfig


def answer(client: int, queries: int, *, failed: bool = False, name: str = "queries") -> Replies:
    return Replies(
        client_ids=[] if failed else [client],
        counts={name: {client: queries}},
        failures={client: "broken"} if failed else {},
    )


def judged(parts: list[Replies], budget: int | None = None) -> list[Replies]:
    """Judge the answers to one question, one client at a time, as if each had its own exchange."""
    asked = [Exchange(question=Toy(), client_ids=[i], budget=budget) for i, _ in enumerate(parts)]
    apart = believable(asked, parts)
    whole = Exchange(question=Toy(), client_ids=range(len(parts)), budget=budget)
    [together] = believable([whole], [join_replies(parts)])
    assert together == join_replies(apart)
    return apart


def test_honest_claims_stay_as_they_are() -> None:
    parts = [answer(0, 21), answer(1, 20), answer(2, 0), answer(3, 5, failed=True)]
    assert judged(parts, budget=21) == parts


def test_more_than_was_allowed_is_rejected_and_counts_like_the_others() -> None:
    parts = judged([answer(0, 21), answer(1, 10**18), answer(2, 20)], budget=50)
    assert [list(part.client_ids) for part in parts] == [[0], [], [2]]
    assert parts[1].total("queries") == 21
    assert "claims 1000000000000000000 queries, 50 were allowed" in parts[1].failures[1]


def test_a_failure_counts_no_more_than_an_answer() -> None:
    parts = judged([answer(0, 21), answer(1, 10**18, failed=True)], budget=50)
    assert parts[1].total("queries") == 21


def test_a_failure_may_have_asked_again() -> None:
    again = Exchange(question=Toy(), client_ids=[0, 1], on_failure="retry")
    [told] = believable([again], [join_replies([answer(0, 20), answer(1, 70, failed=True)])])
    assert told.counts["queries"] == {0: 20, 1: 70}
    [told] = believable([again], [join_replies([answer(0, 20), answer(1, 81, failed=True)])])
    assert told.counts["queries"] == {0: 20, 1: 80}


def test_without_a_budget_the_cohort_says_what_is_usual() -> None:
    parts = judged([answer(0, 200), answer(1, 2001), answer(2, 190), answer(3, 1900)])
    assert [part.total("queries") for part in parts] == [200, 1900, 190, 1900]
    assert [bool(part.client_ids) for part in parts] == [True, False, True, True]


def test_one_who_answers_alone_is_judged_by_what_the_question_costs() -> None:
    question = FirstOrderSteps(
        x=torch.zeros(3), settings=FirstOrderConfig(), local_steps=4, local_lr=0.1
    )
    alone = Exchange(question=question, client_ids=[5])
    for claim, counted in ((0, 0), (1000, 1000), (1001, 0), (10**18, 0)):
        [told] = believable([alone], [answer(5, claim)])
        assert (told.total("queries"), bool(told.client_ids)) == (counted, claim <= 1000)
    [told] = believable([alone], [answer(5, 10**9, name="gradients")])
    assert told.total("gradients") == question.cost().gradients


def test_examples_may_differ_more() -> None:
    usual = [answer(i, 100 * (i + 1), name="examples") for i in range(3)]
    wide = judged([*usual, answer(3, 90_000, name="examples")])
    absurd = judged([*usual, answer(3, 10**18, name="examples")])
    assert wide[3].client_ids == [3]
    assert absurd[3].failures
    assert absurd[3].total("examples") == 300


def test_where_nobody_answered_the_budget_is_the_bound() -> None:
    parts = judged([answer(0, 10**18, failed=True), answer(1, 3, failed=True)], budget=7)
    assert [part.total("queries") for part in parts] == [7, 3]


def test_what_a_client_owns_is_not_work() -> None:
    parts = [answer(i, n, name="num_examples") for i, n in enumerate((10, 10, 10**18))]
    assert judged(parts) == parts
