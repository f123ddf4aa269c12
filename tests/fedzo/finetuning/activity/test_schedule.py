"""When the form changes."""

import pytest

from fedzo.errors import ConfigError
from fedzo.finetuning.activity.schedule import ActivityConfig, FeedbackName, Schedule

SMALL = ActivityConfig(solve_every=4, patience=2, trust=0.3, period=4)


@pytest.mark.parametrize(
    ("feedback", "explained", "form"),
    [
        ("off", 0.9, "node"),
        ("unbiased", 0.9, "unbiased"),
        ("biased", 0.1, "biased"),
        ("biased", 0.0, "unbiased"),
        ("auto", 0.2, "unbiased"),
        ("auto", 0.3, "biased"),
        ("auto", -3.0, "unbiased"),
    ],
)
def test_the_form_of_what_is_explained(feedback: FeedbackName, explained: float, form: str) -> None:
    assert Schedule(feedback, SMALL).form(explained) == form


def window(schedule: Schedule, loss: float, held_out: float | None = None) -> None:
    for _ in range(4):
        schedule.hear("biased", loss, held_out)


def test_biased_while_the_loss_falls_then_unbiased_for_good() -> None:
    schedule = Schedule("auto", SMALL)
    for loss in (3.0, 2.0, 2.1, 1.9, 1.95):
        window(schedule, loss)
        assert schedule.form(0.9) == "biased"
    window(schedule, 1.9)
    assert schedule.form(0.9) == "unbiased"
    window(schedule, 0.1)
    assert schedule.form(0.9) == "unbiased"


def test_held_out_examples_decide_where_there_are_some() -> None:
    schedule = Schedule("auto", SMALL)
    for loss, held_out in ((3.0, 1.0), (2.0, 1.1), (1.0, 1.2)):
        window(schedule, loss, held_out)
    assert schedule.exhausted


def test_windows_of_unbiased_steps_are_not_judged() -> None:
    schedule = Schedule("auto", SMALL)
    for _ in range(40):
        schedule.hear("unbiased", 5.0, None)
    assert not schedule.exhausted


def test_a_biased_step_probes_once_a_period_and_others_always() -> None:
    schedule = Schedule("auto", SMALL)
    probed = []
    for _ in range(8):
        probed.append(schedule.probes("biased"))
        assert schedule.probes("node")
        assert schedule.probes("unbiased")
        schedule.hear("biased", 1.0, None)
    assert probed == [True, False, False, False] * 2


def test_solutions_come_early_at_first() -> None:
    schedule = Schedule("auto", ActivityConfig(solve_every=64))
    solved = []
    for step in range(200):
        if schedule.solves:
            solved.append(step + 1)
        schedule.hear("unbiased", 1.0, None)
    assert solved == [8, 16, 32, 64, 128, 192]


@pytest.mark.parametrize(
    "wrong", [{"eps": -0.1}, {"period": 0}, {"ridge": -1.0}, {"trust": 1.0}, {"memory": 0.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ActivityConfig(**wrong)  # type: ignore[arg-type]
