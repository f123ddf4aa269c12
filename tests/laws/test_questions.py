"""Every question keeps what it says: its fields on the wire, its answer's shapes, and its cost."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from counting_device import PLACE, Device
from examples_of_questions import IDS, D, Example, examples, is_looped, looped, stacked
from torch import Tensor

from clients import make_rules
from fedzo.errors import MessageError
from fedzo.objectives.cohort import CohortObjective
from fedzo.privacy.averages import queries_to_compare
from fedzo.protocol.exchange import Exchange, Moment, Replies
from fedzo.protocol.messages import exchange_through_wire
from fedzo.protocol.question import Parts, Question, put_together, take_apart
from fedzo.protocol.questions import Anchor, Clipped, Difference, Miner, Mix
from fedzo.protocol.questions.anchored import Anchored, Mined
from fedzo.runtime.device import DeviceEnvironment
from fedzo.runtime.local import Environment, serve

EXAMPLES = examples()
SEED, MOMENT = 5, Moment(1, 2, 3)
every = pytest.mark.parametrize("example", EXAMPLES, ids=str)
both = pytest.mark.parametrize("cohort", [stacked, looped], ids=["stacked", "looped"])


@dataclass(frozen=True)
class World:
    """An environment of these clients."""

    make: Callable[[], CohortObjective]
    noise_std: float = 0.0

    def cohort(self, client_ids: Any, problem: int) -> CohortObjective:
        return self.make()


def asked(
    example: Example,
    make: Callable[[], CohortObjective],
    budget: int | None,
    device: Device | None = None,
) -> Replies:
    """Return what clients answer who have been asked before what they must have been.

    Objectives are on the device, which then has counted the last exchange alone.
    """
    states: Any = [{} for _ in IDS]
    world: Environment = World(looped if example.modules else make)
    if device:
        world = DeviceEnvironment(world, PLACE)
    rules = make_rules()
    for index, question in enumerate(example.before):
        earlier = Exchange(question=question, client_ids=IDS, moment=Moment(1, 1, index))
        _, states = serve(earlier, world, rules, states)
    now = Exchange(
        question=example.question, client_ids=IDS, moment=MOMENT, seed=SEED, budget=budget
    )
    if device:
        device.down.clear()
    replies, _ = serve(now, world, rules, states)
    assert not replies.failures
    return replies


@cache
def answered(number: int, make: Callable[[], CohortObjective]) -> Replies:
    """Return what is answered to an example that is asked without a budget, for several tests."""
    return asked(EXAMPLES[number], make, None)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def named(question: Question[Any]) -> dict[str, Any]:
    return {entry.name: getattr(question, entry.name) for entry in fields(question)}


def sent(question: Question[Any]) -> list[str]:
    return [entry.name for entry in fields(question) if not entry.metadata.get("unsent")]


def test_every_question_has_an_example_and_a_kind_of_its_own() -> None:
    classes = set(make_rules())
    assert {type(example.question) for example in EXAMPLES} == classes
    assert len({cls.kind for cls in classes}) == len(classes)
    assert sorted(cls.__name__ for cls in classes if cls.judges) == ["Judge", "JudgeInPlace"]


@every
def test_a_question_survives_the_wire(example: Example) -> None:
    exchange = Exchange(
        question=example.question, client_ids=IDS, moment=MOMENT, seed=SEED,
        budget=7, optional=True, poisoned=True,
    )  # fmt: skip
    back = exchange_through_wire(exchange)
    assert replace(back, question=exchange.question) == replace(exchange, client_ids=IDS)
    assert type(back.question) is type(example.question)
    got, given = named(back.question), named(example.question)
    assert [name for name in sent(example.question) if not same(got[name], given[name])] == []


@every
def test_names_do_not_meet(example: Example) -> None:
    names: list[str] = []
    for name in sent(example.question):
        value = getattr(example.question, name)
        names += [f.name for f in fields(value)] if is_dataclass(value) else [name]
    assert len(names) == len(set(names))


def without(parts: Parts, name: str) -> Parts:
    rest = [{k: v for k, v in of.items() if k != name} for of in _three(parts)]
    return Parts(*rest)


def _three(parts: Parts) -> list[dict[str, Any]]:
    return [dict(parts.shared), dict(parts.own), dict(parts.scalars)]


def refusal(question: Question[Any], name: str) -> str:
    """Match the sentence about a piece of another type.

    Of a field that is the question's own, it is not one of the tests' own checks of types.
    """
    sentence = rf"\b{name}(=.* must be | does not come as a )"
    return sentence if name in named(question) else name


@every
def test_what_is_missing_too_much_or_of_another_type_is_refused(example: Example) -> None:
    cls, parts = type(example.question), take_apart(example.question)
    for place in range(3):
        more = _three(parts)
        more[place]["colour"] = 1 if place == 2 else torch.ones(3)
        with pytest.raises(MessageError, match="has no 'colour'"):
            put_together(cls, Parts(*more))
    for entry in fields(example.question):
        value = getattr(example.question, entry.name)
        if entry.default is MISSING and not is_dataclass(value):
            with pytest.raises(MessageError, match=f"missing.*{entry.name}"):
                put_together(cls, without(parts, entry.name))
    wrong = {name: 1.5 for name in (*parts.shared, *parts.own)}
    wrong |= {n: 3 if isinstance(v, str) else "red" for n, v in parts.scalars.items()}  # type: ignore[misc]
    for name, value in wrong.items():
        shared, own, scalars = _three(without(parts, name))
        with pytest.raises(MessageError, match=refusal(example.question, name)):
            put_together(cls, Parts(shared, own, {**scalars, name: value}))
    for name in parts.scalars:
        shared, own, scalars = _three(without(parts, name))
        with pytest.raises(MessageError, match=refusal(example.question, name)):
            put_together(cls, Parts({**shared, name: torch.ones(1)}, own, scalars))


@every
@both
def test_an_answer_looks_as_the_question_says(
    example: Example, cohort: Callable[[], CohortObjective]
) -> None:
    told, shapes = answered(int(example.name), cohort).tensors, example.question.shapes()
    assert told.keys() == shapes.keys()
    assert all(tuple(tensor.shape[1:]) in shapes[name] for name, tensor in told.items())
    assert all(
        0 not in tensor.shape[1:] for name, tensor in told.items() if shapes[name][0] != (0,)
    )


@every
@both
def test_an_answer_costs_what_the_question_says(
    example: Example, cohort: Callable[[], CohortObjective]
) -> None:
    cost = example.question.cost()
    exactly = asked(example, cohort, cost.queries)
    for counts in (answered(int(example.name), cohort).counts, exactly.counts):
        assert set(counts["queries"].values()) == {cost.queries}
        assert set(counts["gradients"].values()) == {cost.gradients}


@every
def test_who_can_ask_nothing_says_nothing(example: Example) -> None:
    if not example.question.cost().queries:
        return
    replies, shapes = asked(example, stacked, 0), example.question.shapes()
    assert set(replies.counts["queries"].values()) == {0}
    for name, tensor in replies.tensors.items():
        shape = tuple(tensor.shape[1:])
        assert shape == ((0,) if (0,) in shapes[name] else shapes[name][0])


@every
def test_a_part_of_a_question_has_its_clients_rows(example: Example) -> None:
    rows = torch.tensor([0, 2])
    part, whole = example.question.select(rows), named(example.question)
    own = {e.name for e in fields(example.question) if e.metadata.get("own")}
    for name, value in named(part).items():
        chosen = whole[name] is not None and name in own
        assert same(value, whole[name][rows] if chosen else whole[name]), name


@every
def test_only_peers_hear_liars(example: Example) -> None:
    told = example.question.told_by_liars(IDS, frozenset({4}), opposite=False)
    assert (told is not None) == isinstance(example.question, Mix)


SLOPED = [e for e in EXAMPLES if "slopes" in e.question.shapes() and hasattr(e.question, "lane")]


@pytest.mark.parametrize("example", SLOPED, ids=str)
def test_vectors_along_directions_give_the_slopes_back(example: Example) -> None:
    along = example.question.along("slopes", seed=SEED, problem=MOMENT.problem)
    slopes = asked(example, stacked, None).tensors["slopes"]
    if not slopes.shape[1]:
        return
    assert along is not None
    scale = along.blocks.dim / along.blocks.size
    torch.testing.assert_close(along.slopes(along.vectors(slopes)), scale * slopes)
    some = along.select(torch.tensor([2, 0]))
    assert torch.equal(some.vectors(slopes[[2, 0]]), along.vectors(slopes)[[2, 0]])


@pytest.mark.parametrize("example", SLOPED, ids=str)
def test_what_the_server_makes_of_slopes_is_what_they_are_along(example: Example) -> None:
    question, where = example.question, {"seed": SEED, "problem": MOMENT.problem}
    said, rows = asked(example, stacked, None).tensors, torch.arange(len(IDS))
    if not said["slopes"].shape[1]:
        return
    along = question.along("slopes", **where)
    assert along is not None
    vectors = along.vectors(said["slopes"])
    if isinstance(question, Miner):
        direction, update = question.direction, -question.local_lr * question.direction
        for step in range(vectors.shape[1]):
            direction = direction + vectors[:, step]
            update = update - question.local_lr * direction
        torch.testing.assert_close(question.updates(Mined(**said), rows, **where), update)
        whole = asked(replace(example, question=replace(question, tells="update")), stacked, None)
        torch.testing.assert_close(update, whole.tensors["update"])
    else:
        assert isinstance(question, Anchor | Difference)
        made = question.gradients(Anchored(**said), rows, **where)
        torch.testing.assert_close(made, vectors[:, 0])
        assert torch.equal(question.gradients(Anchored(**said), rows, **where)[1], made[1])


def test_slopes_along_all_axes_stand_for_the_gradient() -> None:
    """Else directions of another seed, problem or lane would do as well."""
    for question in (e.question for e in SLOPED):
        if question.settings.estimator != "coordinate" or isinstance(question, Miner):
            continue
        near = replace(question, settings=replace(question.settings, mu=1e-6))
        said = Anchored(**asked(Example(near), stacked, None).tensors)
        rows = torch.arange(len(IDS))
        made = near.gradients(said, rows, seed=SEED, problem=MOMENT.problem)
        plain = replace(question, settings=replace(question.settings, gradient="exact"))
        exact = asked(
            Example(replace(plain, micro_batches=0) if isinstance(plain, Anchor) else plain),
            stacked,
            None,
        )
        torch.testing.assert_close(made, exact.tensors["gradient"], rtol=1e-4, atol=1e-4)


@both
def test_the_cost_of_clipped_means_leaves_out_their_comparison(
    cohort: Callable[[], CohortObjective],
) -> None:
    """What that takes depends on the clients: nothing where they are one program."""
    for example in EXAMPLES:
        if isinstance(example.question, Clipped):
            compared = replace(example, question=replace(example.question, compare=True))
            extra = queries_to_compare(cohort())
            assert (extra > 0) == is_looped(cohort())
            cost = compared.question.cost().queries
            counts = asked(compared, cohort, cost + extra).counts["queries"]
            assert set(counts.values()) == {cost + extra}


FIRST = {type(e.question): e.name for e in reversed(EXAMPLES)}.values()
ON_A_DEVICE = [
    pytest.param(
        *(example, cohort),
        id=f"{example}-{cohort.__name__}",
        marks=pytest.mark.slow if cohort is looped and example.name not in FIRST else (),
    )
    for example in EXAMPLES
    for cohort in (stacked, looped)
    if not example.modules
]
"""Clients one by one move what their rules move: of these the first example of every question."""


@pytest.mark.more
@pytest.mark.parametrize(("example", "cohort"), ON_A_DEVICE)
def test_on_a_device_nothing_of_size_d_comes_back_but_the_answer(
    example: Example, cohort: Callable[[], CohortObjective]
) -> None:
    """Modules in place are known by their memory, which this device has not: benchmarks/gpu.py."""
    with Device() as device:
        there = asked(example, cohort, None, device)
    here = answered(int(example.name), cohort)
    assert there.counts == here.counts
    assert {name: t.tolist() for name, t in there.tensors.items()} == {
        name: t.tolist() for name, t in here.tensors.items()
    }
    down = sum(size for size, kind in device.down if kind.is_floating_point and size >= D)
    assert down <= sum(tensor.numel() for tensor in here.tensors.values())
