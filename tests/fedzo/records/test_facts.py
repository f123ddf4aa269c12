"""What notebooks show of results: facts in text and in HTML, with nothing in it that acts."""

from pathlib import Path

import pytest
import torch
from stored_runs import records_of, write_run
from torch import nn

import fedzo
from fedzo.records.facts import Fact, ShownByFacts


class Shown(ShownByFacts):
    def facts(self) -> list[Fact]:
        return [("value", "<b>1</b>"), ("a & b", "2")]


class Named(Shown):
    def heading(self) -> str:
        return "x < y"


def test_facts_are_lines_and_escaped_rows() -> None:
    assert repr(Shown()) == "value:            <b>1</b>\na & b:            2"
    assert repr(Named()).startswith("x < y\n")
    html = Named()._repr_html_()
    assert html.startswith('<table><tr><th colspan="2">x &lt; y</th></tr>')
    assert "<td>&lt;b&gt;1&lt;/b&gt;</td>" in html
    assert "a &amp; b" in html


@pytest.fixture
def shown(tmp_path: Path) -> dict[str, ShownByFacts]:
    write_run(tmp_path / "run", records_of([2.0, 1.0]), finished=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.rand(3, 1, 4, 4)
    labels = model(images).argmax(1)
    some = {"query_budget": 20}
    return {
        "not finished": fedzo.load_run(tmp_path / "run"),
        "robust accuracy": fedzo.attack(model, images, labels, radius=0.1, **some),
        "at 2 radii": fedzo.attack(model, images, labels, radius=[0.1, 0.2], **some),
        "rounding": fedzo.check(fedzo.CallableObjective(function=lambda x: x @ x + 1, dim=3)),
    }


def test_results_are_told_in_a_few_lines_without_tensors(shown: dict[str, ShownByFacts]) -> None:
    for expected, one in shown.items():
        text = repr(one)
        assert expected in text
        assert len(text) < 1200
        assert "tensor(" not in text
        assert one._repr_html_().count("<tr>") >= 3
