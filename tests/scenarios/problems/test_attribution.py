"""The scenario attribution: what a query is, that it finds planted words, and your own models."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from fedzo.errors import ConfigError, ObjectiveError
from scenarios import make_experiment, simulate
from scenarios.problems.attribution import (
    AttributionConfig,
    AttributionScenario,
)
from scenarios.problems.highest_words import found_share

MODEL = """
import numpy as np


def sevens(tokens):
    count = (tokens == 7).sum(axis=1) * 4.0
    return np.stack([2 - count, count - 2], axis=1)


def broken(tokens):
    raise RuntimeError("no")


def odd(tokens):
    return [1.0]
"""


def own(folder: Path, name: str = "sevens", **settings: object) -> AttributionScenario:
    """Return the scenario of a model that looks for sevens, the third and the fifth word."""
    (folder / "model.py").write_text(MODEL)
    tokens = np.arange(240).reshape(20, 12) % 6
    tokens[:2, [2, 4]] = 7
    np.savez(folder / "mine.npz", tokens=tokens)
    config = AttributionConfig(
        model=f"{folder / 'model.py'}:{name}",
        sequences=str(folder / "mine.npz"),
        num_sequences=2,
        **settings,  # type: ignore[arg-type]
    )
    return AttributionScenario(config, num_clients=2, seed=0)


def test_a_query_is_the_mean_chance_of_the_class_over_sequences_with_words_replaced(
    tmp_path: Path,
) -> None:
    scenario = own(tmp_path, penalty=0.25, draws=50)
    x = torch.zeros(2, 3, 12)
    x[:, 1] = 1.0
    x[:, 2, [2, 4]] = 1.0
    values = scenario.cohort([0, 1], 0).value(x)
    whole = 1 / (1 + np.exp(-12))
    assert scenario.wanted(0) == 1
    assert values[:, 0].tolist() == pytest.approx([whole] * 2)
    assert values[:, 1].max() < 0.25 + 0.4
    assert values[:, 2].max() < 0.25 * 2 / 12 + 0.1
    assert torch.equal(values, scenario.cohort([0, 1], 0).value(x))
    again = pickle.loads(pickle.dumps(scenario))
    assert torch.equal(values, again.cohort([0, 1], 0).value(x))
    half = torch.full((2, 1, 12), 0.5)
    assert not torch.equal(*scenario.cohort([0, 1], 0).value(half))


@pytest.mark.parametrize(
    "strategy",
    ["seedzo", *(pytest.param(s, marks=pytest.mark.slow) for s in ("fzoos", "thompson"))],
)
def test_it_finds_the_words_that_a_model_looks_for(strategy: str, tmp_path: Path) -> None:
    scenario = own(tmp_path, draws=30)
    settings = {
        "scenario.model": f"{tmp_path / 'model.py'}:sevens",
        "scenario.sequences": str(tmp_path / "mine.npz"),
        "scenario.num_sequences": 2,
        "scenario.draws": 30,
    }
    experiment = make_experiment(
        "attribution", strategy, num_clients=2, settings=settings, num_rounds=40
    )
    result = simulate(experiment, scenario=scenario)
    for solution, record in zip(result.solutions, result.last_records, strict=True):
        assert float(solution[[2, 4]].min()) > 0.9
        assert float(solution.sum()) < 3.5
        tied = float((solution == solution[[2, 4]].min()).sum()) > 2  # so chance decides
        assert record.metrics["comprehensiveness"] > (0.25 if tied else 0.6)
        assert record.metrics["sufficiency"] < (0.8 if tied else 0.1)
    scenario.draw(tmp_path / "figure.png", result.solutions, result.records)
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_words_of_equal_x_count_alike(tmp_path: Path) -> None:
    scenario = own(tmp_path, top=2 / 12)
    x = torch.zeros(12)
    x[[2, 4, 6]] = 1.0  # of these three two are replaced: both sevens in a third of the draws
    told = scenario.faithfulness(0, x)
    assert told["comprehensiveness"] == pytest.approx(1 / 3, abs=0.12)
    x[6] = 0.5
    assert scenario.faithfulness(0, x)["comprehensiveness"] > 0.9
    planted = torch.zeros(12, dtype=torch.bool)
    planted[[2, 6]] = True
    assert found_share(planted, torch.ones(12), 2) == pytest.approx(2 / 12)
    assert found_share(planted, x, 3) == pytest.approx(2 / 3)


@pytest.mark.more
def test_planted_words_are_found_in_made_sentences() -> None:
    experiment = make_experiment("attribution", "seedzo", num_rounds=20, num_clients=3)
    result = simulate(experiment)
    assert result.metrics["comprehensiveness"] > 0.6
    assert result.metrics["found"] > 0.6
    first = [record for record in result.records if record.round_index == 0]
    assert sum(record.metrics["found"] for record in first) / len(first) < 0.4


def test_readers_answer_what_the_rule_says_and_planted_words_carry_it() -> None:
    config = AttributionConfig(num_sequences=100, length=16)
    scenario = AttributionScenario(config, num_clients=2, seed=3)
    assert scenario.planted is not None
    assert scenario.planted.any(dim=1).all()
    assert float(scenario.planted.float().mean()) < 0.25
    agree = [scenario.classifiers[0](scenario.tokens), scenario.classifiers[1](scenario.tokens)]
    assert float((agree[0].argmax(1) == agree[1].argmax(1)).float().mean()) > 0.9
    assert not torch.equal(*agree)


def test_what_is_no_model_and_no_sequence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give scenario\.sequences"):
        AttributionConfig(model="a.py:f")
    scenario = own(tmp_path, "broken")
    with pytest.raises(ObjectiveError, match="failed on tokens of shape"):
        scenario.wanted(0)
    with pytest.raises(ObjectiveError, match=r"scenario\.model must return finite logits"):
        own(tmp_path, "odd").wanted(0)
    with pytest.raises(ConfigError, match="num_sequences=29 must be at most 20"):
        AttributionScenario(
            AttributionConfig(
                model=f"{tmp_path / 'model.py'}:sevens",
                sequences=str(tmp_path / "mine.npz"),
                num_sequences=29,
            ),
            num_clients=1,
            seed=0,
        )
    huge = np.full((1, 3), 2**63 + 1, dtype=np.uint64)
    for tokens in (np.zeros((2, 3)), np.zeros(3, dtype=int), -np.ones((1, 2), dtype=int), huge):
        np.savez(tmp_path / "mine.npz", tokens=tokens)
        with pytest.raises(ConfigError, match="whole numbers"):
            own_again(tmp_path)
    for wrong in (b"", b"nothing", b"PK\x03\x04nothing"):
        (tmp_path / "mine.npz").write_bytes(wrong)
        with pytest.raises(ConfigError, match=r"is no \.npz file"):
            own_again(tmp_path)
    np.save(tmp_path / "mine.npy", np.zeros((2, 3), dtype=int))
    (tmp_path / "mine.npy").rename(tmp_path / "mine.npz")
    with pytest.raises(ConfigError, match=r"is no \.npz file"):
        own_again(tmp_path)


def own_again(folder: Path) -> AttributionScenario:
    config = AttributionConfig(
        model=f"{folder / 'model.py'}:sevens", sequences=str(folder / "mine.npz")
    )
    return AttributionScenario(config, num_clients=1, seed=0)


def test_a_sequence_of_a_square_number_of_words_is_no_image() -> None:
    scenario = AttributionScenario(AttributionConfig(length=16), num_clients=1, seed=0)
    assert scenario.problem(0).image is False  # type: ignore[attr-defined]


def test_bad_settings_are_refused() -> None:
    for wrong in ({"length": 5}, {"draws": 0}, {"top": 1.0}, {"penalty": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            AttributionConfig(**wrong)  # type: ignore[arg-type]
