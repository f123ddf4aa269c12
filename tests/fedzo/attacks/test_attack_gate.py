"""What victims say passes one gate: shapes, kinds, precision, modes; images are read in one way."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from fedzo.attacks.goal import Goal
from fedzo.attacks.victims.images import read_images, read_labels
from fedzo.attacks.victims.victim import (
    AnswerKind,
    CallableVictim,
    ModuleVictim,
    ask_checked,
    from_scores,
    read_answers,
)
from fedzo.attacks.victims.wrappers import LabelOnly, Meter, NoisyScores, TopScores
from fedzo.errors import ConfigError, ObjectiveError

NAN, INF = math.nan, math.inf


class Says(torch.nn.Module):
    """Tells the same whatever it is asked."""

    def __init__(self, told: Any) -> None:
        super().__init__()
        self.told = told

    def forward(self, x: torch.Tensor) -> Any:
        return self.told


@pytest.mark.parametrize(
    "told", [[[NAN] * 3, [1, 2, 3]], [[NAN, 2, 3], [1, 2, 3]], [[INF, 2, 3], [1, 2, 3]]]
)
def test_modules_keep_no_score_and_tell_finite_ones(told: Any) -> None:
    with pytest.raises(ObjectiveError, match="not finite"):
        ModuleVictim(Says(torch.tensor(told))).ask(torch.rand(2, 1, 2, 2))


@pytest.mark.parametrize(
    "told",
    [
        [[-6.0, 3.0, 2.0]],
        [[90.0, 8.0, 2.0]],
        [[-0.1, -3.0, -9.0]],
        [[0.9, 0.9, 0.9]],
    ],
)
def test_what_is_no_probability_is_refused(told: Any) -> None:
    with pytest.raises(ObjectiveError, match="probabilities"):
        read_answers(told, 1, "probabilities")


@pytest.mark.parametrize("told", [[[0.3, 0.1, 0.2]], [[0.9, None, None]], [[0.3, 0.3, 0.5]]])
def test_confidences_may_sum_below_one_and_rounded_ones_a_little_above(told: Any) -> None:
    assert read_answers(told, 1, "probabilities").queries == 1


def test_one_output_is_two_classes() -> None:
    answers = read_answers([[0.25], [0.75]], 2, "probabilities")
    assert answers.scores is not None
    assert answers.scores.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert read_answers([[-1.0], [2.0]], 2, "logits").labels.tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(2, 1, 3), (2, 3, 1, 1), (2, 1, 3, 1)])
def test_axes_of_one_are_left_out(shape: tuple[int, ...]) -> None:
    answers = read_answers(np.arange(6.0).reshape(shape), 2, "logits")
    assert answers.labels.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("told", "tells"),
    [
        ([["0.5", "0.5"]], "logits"),
        ([[1j, 0]], "logits"),
        ({"logits": [[1, 2]]}, "logits"),
        ([0.5], "logits"),
        (["7"], "labels"),
        ([1e300], "labels"),
        ([10**400], "labels"),
        ([[10**400, 1]], "logits"),
        ([[-INF, -INF]], "logits"),
    ],
)
def test_what_is_no_answer_is_refused(told: Any, tells: Any) -> None:
    with pytest.raises(ObjectiveError):
        read_answers(told, 1, tells)


def test_labels_are_read_before_casts_and_precision_is_kept() -> None:
    answers = read_answers([[1e300, 2e300]], 1, "logits")
    assert answers.labels.tolist() == [1]
    assert answers.scores is not None
    assert answers.scores.dtype == torch.float64
    assert Goal(1).losses(answers, "logits").tolist() == [1e300]
    half = read_answers(torch.tensor([[1.0, 2.0]]).bfloat16(), 1, "logits").scores
    assert half is not None
    assert half.dtype == torch.float32


def test_a_logit_of_minus_infinity_is_a_probability_of_nothing() -> None:
    scores = read_answers([[0.0, -1.0, -INF]], 1, "logits").scores
    assert scores is not None
    assert scores.tolist() == [[0.0, -1.0, -745.0]]


def test_exact_probabilities_keep_the_differences_of_logits() -> None:
    answers = read_answers([[1.0, 1e-40, 1e-60]], 1, "probabilities")
    loss = float(Goal(0).losses(answers, "probabilities")[0])
    assert loss == pytest.approx(40 * math.log(10))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_are_asked_in_their_own_type(dtype: torch.dtype) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).to(dtype)
    assert ModuleVictim(module).ask(torch.zeros(2, 1, 2, 2)).queries == 2


def test_mode_and_buffers_of_a_module_stay() -> None:
    norm = torch.nn.BatchNorm2d(1)
    module = torch.nn.Sequential(norm, torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Flatten())
    module[2].eval()
    images = torch.rand(3, 1, 2, 2)
    before = images.clone()
    first, second = (ModuleVictim(module).ask(images).scores for _ in range(2))
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)
    assert [part.training for part in module] == [True, True, False, True]
    assert float(norm.running_mean.abs().sum()) == 0  # type: ignore[union-attr]
    assert torch.equal(images, before)


@pytest.mark.parametrize("make", [np.asarray, torch.Tensor.double, torch.Tensor.half])
def test_images_of_any_float_type_are_taken(make: Any) -> None:
    images = read_images(make(torch.rand(2, 1, 4, 5)))
    assert images.dtype == torch.float32


@pytest.mark.parametrize(
    ("shape", "scale", "sentence"),
    [
        ((2, 8, 8, 3), 1, "channels come second"),
        ((1, 8, 8), 1, r"images\[None\]"),
        ((2, 1, 4, 4), 255, "images / 255"),
        ((0, 1, 4, 4), 1, "n >= 1"),
    ],
)
def test_other_images_are_refused_by_name(shape: Any, scale: int, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_images(np.full(shape, scale, dtype=np.uint8))


def test_labels_are_whole_numbers_of_any_type() -> None:
    for given in ([0, 2], np.array([0, 2], np.int32), torch.tensor([0.0, 2.0])):
        assert read_labels(given, 2).tolist() == [0, 2]
    for wrong in ([0.5, 1], ["a", "b"], [[0, 1], [1, 0]], [1], [-1, 0], [NAN, 1.0]):
        with pytest.raises(ConfigError):
            read_labels(wrong, 2)


@pytest.mark.parametrize("make", [lambda f: CallableVictim(f), lambda f: ModuleVictim(Calls(f))])
def test_victims_that_exit_or_fail_are_failures(make: Any) -> None:
    for error in (SystemExit(3), RuntimeError("out of memory"), ZeroDivisionError()):

        def fail(x: Any, error: BaseException = error) -> Any:
            raise error

        with pytest.raises(ObjectiveError, match=type(error).__name__):
            make(fail).ask(torch.rand(2, 1, 2, 2))


class Calls(torch.nn.Module):
    """A module around a function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    ("kind", "field", "thing", "tells"),
    [
        (ModuleVictim, "module", len, "logits"),
        (ModuleVictim, "module", Says(1), "labels"),
        (CallableVictim, "function", len, "LOGITS"),
        (CallableVictim, "function", 3, "logits"),
    ],
)
def test_what_is_no_victim_is_refused_before_it_is_asked(
    kind: Any, field: str, thing: Any, tells: str
) -> None:
    victim = object.__new__(kind)  # calls are checked against annotations in tests
    object.__setattr__(victim, field, thing)
    object.__setattr__(victim, "tells", tells)
    with pytest.raises(ConfigError):
        victim.__post_init__()


class Own:
    """Somebody's victim."""

    tells: AnswerKind = "probabilities"

    def __init__(self, told: Any) -> None:
        self.told = told

    def ask(self, images: torch.Tensor) -> Any:
        return self.told


def test_victims_of_ones_own_pass_the_gate_within_wrappers_too() -> None:
    logits = from_scores(torch.tensor([[-6.0, 3.0], [4.0, 1.0]]))
    for told in (logits, logits.scores):
        for victim in (Own(told), LabelOnly(Own(told)), TopScores(Own(told), 1)):
            with pytest.raises(ObjectiveError):
                ask_checked(victim, torch.rand(2, 1, 2, 2))


def test_noise_around_probabilities_is_no_fault_of_theirs() -> None:
    inside = Own(from_scores(torch.tensor([[0.9, 0.1], [0.0, 1.0]])))
    victim = NoisyScores(inside, 0.5, generator=np.random.default_rng(0))
    assert ask_checked(Meter(victim), torch.rand(2, 1, 2, 2)).queries == 2


def test_a_refusal_is_one_line() -> None:
    with pytest.raises(ObjectiveError) as told:
        read_answers(np.ones((3, 3), dtype=complex), 3, "logits")
    assert "\n" not in str(told.value)


def test_modules_without_a_mode_of_their_own_are_asked_as_they_are() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    images = torch.rand(5, 1, 4, 4)
    frozen = torch.jit.freeze(torch.jit.trace(net, images))  # type: ignore[no-untyped-call]
    exported = torch.export.export(net, (images,)).module()
    for module in (frozen, exported):
        told = ModuleVictim(module).ask(images)
        assert torch.allclose(told.scores, net(images))  # type: ignore[arg-type]
