"""The encoder against torch's own layer, and what padding must not change."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedzo.randomness import stream
from scenarios.finetune.digits import initialize
from scenarios.finetune.encoder import (
    Embedding,
    EncoderLayer,
    EncoderSizes,
    Pool,
    load_encoder,
    make_encoder,
)

SIZES = EncoderSizes(vocabulary=20, positions=12, width=8, heads=2, inner=16, layers=2, eps=1e-12)


def drawn(seed: int = 0) -> nn.Sequential:
    encoder = make_encoder(SIZES)
    initialize(encoder, generator=stream(seed, "encoder"))
    return encoder.requires_grad_(False)


TOKENS = torch.tensor([[2, 5, 7, 3, 0, 0], [2, 9, 3, 0, 0, 0], [2, 4, 6, 8, 10, 3]])


def test_a_layer_is_that_of_torch() -> None:
    layer = drawn()[1]
    assert isinstance(layer, EncoderLayer)
    other = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", 1e-12, batch_first=True)
    state = {
        "self_attn.in_proj": (layer.query, layer.key, layer.value),
        "self_attn.out_proj.": (layer.output,),
        "linear1.": (layer.inner,),
        "linear2.": (layer.outer,),
        "norm1.": (layer.attention_norm,),
        "norm2.": (layer.norm,),
    }
    named: dict[str, Tensor] = {}
    for name, parts in state.items():
        joint = "_" if name.endswith("proj") else ""
        for end in ("weight", "bias"):
            named[f"{name}{joint}{end}"] = torch.cat([getattr(part, end) for part in parts])
    other.load_state_dict(named)
    hidden = drawn()[0](TOKENS)
    expected = other.eval()(hidden, src_key_padding_mask=TOKENS == 0)
    there = TOKENS != 0
    torch.testing.assert_close(layer(hidden)[there], expected[there], rtol=1e-5, atol=1e-6)
    assert not layer(hidden)[~there].any()


def test_padding_changes_nothing() -> None:
    encoder = drawn()
    for row in TOKENS:
        alone = encoder(row[row != 0].unsqueeze(0))
        torch.testing.assert_close(encoder(TOKENS)[TOKENS.eq(row).all(1)], alone)


def test_pooled_vectors_are_means_of_length_one() -> None:
    encoder = drawn()
    hidden = encoder[:-1](TOKENS[:1])
    mean = hidden[0, :4].mean(0)
    torch.testing.assert_close(encoder(TOKENS[:1])[0], mean / mean.norm())
    torch.testing.assert_close(Pool(unit=False)(hidden)[0], mean)


def test_it_is_mapped_and_differentiated_forward() -> None:
    encoder = drawn()
    rows = torch.func.vmap(lambda row: encoder(row.unsqueeze(0))[0])(TOKENS)
    torch.testing.assert_close(rows, encoder(TOKENS), rtol=1e-4, atol=1e-6)
    weights = {"layer1.inner.weight": encoder.get_parameter("layer1.inner.weight")}
    push = {name: torch.ones_like(weight) for name, weight in weights.items()}
    _, slope = torch.func.jvp(
        lambda state: torch.func.functional_call(encoder, state, (TOKENS,)), (weights,), (push,)
    )
    assert slope.shape == (3, 8)
    assert bool(slope.isfinite().all())


def test_a_folder_is_loaded(tmp_path: Path) -> None:
    """The file's names are those of BERT; its vector of the first sentence joins the positions."""
    made, kinds = drawn(), torch.ones(2, 8)
    first = made[0]
    assert isinstance(first, Embedding)
    stored = {
        "embeddings.word_embeddings.weight": first.words.weight,
        "embeddings.position_embeddings.weight": first.positions.weight - 1,
        "embeddings.token_type_embeddings.weight": kinds,
    }
    names = {
        "attention.self.query": "query",
        "attention.self.key": "key",
        "attention.self.value": "value",
        "attention.output.dense": "output",
        "attention.output.LayerNorm": "attention_norm",
        "intermediate.dense": "inner",
        "output.dense": "outer",
        "output.LayerNorm": "norm",
    }
    for end in ("weight", "bias"):
        stored[f"embeddings.LayerNorm.{end}"] = getattr(first.norm, end)
        for number in range(2):
            for told, own in names.items():
                tensor = made.get_parameter(f"layer{number}.{own}.{end}")
                stored[f"encoder.layer.{number}.{told}.{end}"] = tensor
    save_file(
        {name: t.detach().contiguous() for name, t in stored.items()},
        tmp_path / "model.safetensors",
    )
    told = {
        "vocab_size": 20,
        "max_position_embeddings": 12,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }
    (tmp_path / "config.json").write_text(json.dumps(told))
    loaded = load_encoder(tmp_path)
    torch.testing.assert_close(loaded(TOKENS), made(TOKENS), rtol=1e-5, atol=1e-6)
    assert not any(p.requires_grad or p.is_meta for p in loaded.parameters())


@pytest.mark.parametrize("seed", [1, 2])
def test_another_seed_draws_another_encoder(seed: int) -> None:
    assert torch.equal(drawn(seed)(TOKENS), drawn(seed)(TOKENS))
    assert not torch.allclose(drawn(seed)(TOKENS), drawn(0)(TOKENS))
