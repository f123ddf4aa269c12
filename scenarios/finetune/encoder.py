"""A BERT encoder of sentences as a plain chain of layers, each from one tensor to one.

    embedding  [b, t] -> [b, t, h]     vectors of token numbers; number 0 is padding
    layer0...  [b, t, h] -> [b, t, h]  a = norm(z + output(attention(query z, key z, value z)))
                                       norm(a + outer(gelu(inner a)))
    pool       [b, t, h] -> [b, h]     the mean over the tokens, divided by its length

Devlin et al., "BERT", NAACL 2019; the pooling is that of Reimers & Gurevych, "Sentence-BERT", EMNLP
2019. Rows of padding are zeros in all that layers pass on, and known by that: no mask travels, so
that the outputs of the first layers can be kept and the others run from them. There is no dropout.
"""

import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors import safe_open
from torch import Tensor, nn

_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "norm": "output.LayerNorm",
}
"""Parts of a layer by their names in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSizes:
    """The sizes of an encoder; inner: units of the network in a layer, eps: of the norms."""

    vocabulary: int
    positions: int
    width: int
    heads: int
    inner: int
    layers: int
    eps: float


class Embedding(nn.Module):
    """Token and position vectors, normalized."""

    def __init__(self, vocabulary: int, positions: int, width: int, eps: float) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t h"]:
        places = self.positions.weight[: tokens.shape[-1]]
        hidden: Tensor = self.norm(self.words(tokens) + places)
        return hidden * present(tokens).unsqueeze(-1)


class EncoderLayer(nn.Module):
    """Attention and a network of one hidden layer, each added to its input and normalized."""

    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, hidden: Float[Tensor, "b t h"]) -> Float[Tensor, "b t h"]:
        there = present(hidden)
        mixed: Tensor = self.attention_norm(hidden + self.output(self._attended(hidden, there)))
        inner = torch.nn.functional.gelu(self.inner(mixed))
        out: Tensor = self.norm(mixed + self.outer(inner))
        return out * there.unsqueeze(-1)

    def _attended(
        self, hidden: Float[Tensor, "b t h"], there: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b t h"]:
        """Return the values that every token attends to; padding is attended to by nobody."""
        query, key, value = (
            part(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        scores = scores.masked_fill(~there[:, None, None, :], -1e9)
        mixed: Tensor = scores.softmax(-1) @ value
        return mixed.transpose(1, 2).flatten(2)


class Pool(nn.Module):
    """The mean of the tokens; as a vector of length one, unless it is to keep its own."""

    def __init__(self, *, unit: bool = True) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, hidden: Float[Tensor, "b t h"]) -> Float[Tensor, "b h"]:
        mean = hidden.sum(1) / present(hidden).sum(1, keepdim=True)
        return torch.nn.functional.normalize(mean, dim=-1) if self.unit else mean


def present(inputs: Tensor) -> Bool[Tensor, "b t"]:
    """Return which of token numbers [b, t], or of rows [b, t, h], are no padding."""
    there = inputs != 0
    return there if inputs.dim() == 2 else there.any(-1)


def make_encoder(sizes: EncoderSizes) -> nn.Sequential:
    """Return an encoder without storage."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    width, eps = sizes.width, sizes.eps
    with torch.device("meta"):
        parts["embedding"] = Embedding(sizes.vocabulary, sizes.positions, width, eps)
        for number in range(sizes.layers):
            parts[f"layer{number}"] = EncoderLayer(width, sizes.heads, sizes.inner, eps)
    parts["pool"] = Pool()
    return nn.Sequential(parts)


def load_encoder(folder: Path) -> nn.Sequential:
    """Return the encoder of a folder with config.json and model.safetensors, all frozen.

    The vector of the first of two kinds of sentences, the only one here, is added to the positions.
    """
    told = json.loads((folder / "config.json").read_text())
    encoder = make_encoder(
        EncoderSizes(
            vocabulary=told["vocab_size"],
            positions=told["max_position_embeddings"],
            width=told["hidden_size"],
            heads=told["num_attention_heads"],
            inner=told["intermediate_size"],
            layers=told["num_hidden_layers"],
            eps=told["layer_norm_eps"],
        )
    )
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state = {
        "embedding.words.weight": stored["embeddings.word_embeddings.weight"],
        "embedding.positions.weight": stored["embeddings.position_embeddings.weight"]
        + stored["embeddings.token_type_embeddings.weight"][0],
    }
    for end in ("weight", "bias"):
        state[f"embedding.norm.{end}"] = stored[f"embeddings.LayerNorm.{end}"]
        for name, layer in encoder.named_children():
            if isinstance(layer, EncoderLayer):
                place = f"encoder.layer.{name.removeprefix('layer')}"
                for part, name_there in _NAMES.items():
                    state[f"{name}.{part}.{end}"] = stored[f"{place}.{name_there}.{end}"]
    encoder.load_state_dict(state, assign=True)
    return encoder.eval().requires_grad_(False)
