"""Aggregators of the user's: what they get, and what is said where they are none."""

from pathlib import Path

import pytest
import torch

from fedzo.aggregation import parse_aggregator
from fedzo.errors import ConfigError, RunError
from fedzo.randomness import stream
from strategies.core.robust import RobustConfig

TEXT = """
from fedzo.errors import ConfigError

def low(vectors, *, num_byzantine, keep=1):
    return vectors.sort(dim=0).values[num_byzantine:num_byzantine + keep].mean(dim=0)

def halves(rows):
    return rows / 2

def learns(vectors, *, start, generator):
    return vectors.mean(dim=0) if start is None else start

def fails(vectors, *, num_byzantine):
    if num_byzantine:
        return 1 / 0
    return vectors[0]

def broken(vectors):
    return vectors.no_such_thing

def in_place(vectors):
    vectors *= 2
    return vectors.clamp_(-1, 1).mean(dim=0).float()

def list_of(vectors):
    return [1.0, 2.0]

def nothing():
    return 1

number = 3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(TEXT)
    return tmp_path / "mine.py"


def called(text: str, vectors: torch.Tensor, num_byzantine: int = 0) -> torch.Tensor:
    rule = parse_aggregator(text)
    return rule(vectors, num_byzantine=num_byzantine, generator=stream(0, "test"))


def test_a_function_is_a_rule_with_options(file: Path) -> None:
    vectors = torch.tensor([[3.0], [1.0], [7.0], [5.0], [9.0]])
    assert called("mine.py:low", vectors) == 1
    assert called("mine.py:low(keep=3)", vectors, 1) == 5
    assert called(f"{file}:low", vectors, 1) == 3
    assert called("mine.py:halves | mine.py:low", vectors, 1) == 1.5
    assert called("mine.py:halves | median", vectors) == 2.5
    assert parse_aggregator("mine.py:learns").learns
    assert not parse_aggregator("mine.py:low").learns


def test_a_rule_may_work_in_place_and_in_another_type(file: Path) -> None:
    vectors = torch.tensor([[3.0], [1.0], [7.0], [0.25], [9.0]]).double()
    told = called("mine.py:in_place", vectors)
    assert told.dtype == torch.float64
    assert float(told) == pytest.approx(0.9)
    assert vectors[0] == 3
    RobustConfig(aggregator="mine.py:in_place")


def test_a_changed_file_is_another_rule(file: Path) -> None:
    vectors = torch.tensor([[3.0], [1.0], [7.0]])
    assert called("mine.py:low", vectors) == 1
    file.write_text(TEXT.replace("[num_byzantine:", "[1 + num_byzantine:").replace("+ keep", "+ 2"))
    assert called("mine.py:low", vectors) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine.py:absent", "mine.py has no 'absent'; it has "),
        ("mine.py:low(kept=2)", "unknown setting mine.py:low.kept; did you mean mine.py:low.keep"),
        ("mine.py:number", "aggregator mine.py:number is 3; name a function of vectors"),
        ("mine.py:nothing", "aggregator mine.py:nothing takes nothing"),
        ("mine.py:halves", r"returned \[5, 2\] for five vectors of two numbers; return a tensor "),
        ("mine.py:low | mean", r"return a tensor \[m, 2\], for another stage comes after it"),
        ("mine.py:list_of", r"returned \[1.0, 2.0\] for five"),
        ("mine.py:broken", r"AttributeError: .*no_such_thing.* \(mine.py, line 19\), on five vec"),
        ("gone.py:low", "aggregator names 'gone.py', which is not a file"),
    ],
)
def test_what_is_no_rule_is_told(file: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_aggregator(text)


def test_a_rule_that_fails_later_says_in_which_line(file: Path) -> None:
    rule = parse_aggregator("mine.py:fails")
    with pytest.raises(RunError, match=r"mine.py:fails: ZeroDivisionError: .*\(mine.py, line 15\)"):
        rule(torch.eye(5), num_byzantine=1, generator=stream(0, "test"))
