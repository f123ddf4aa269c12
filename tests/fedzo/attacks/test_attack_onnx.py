"""ONNX models of any float type or uint8, channels first or last; what cannot be read is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedzo.attacks.victims.onnx import OnnxVictim
from fedzo.errors import ConfigError, FedzoError, FedzoWarning
from fedzo.randomness import stream

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

WEIGHTS = stream(0, "weights").standard_normal((48, 3)).astype(np.float32)
FIRST = ["n", 3, 4, 4]
IMAGES = torch.from_numpy(stream(0, "images").integers(0, 256, (5, 3, 4, 4))).float() / 255


def write(path: Path, shape: list[Any], kind: str = "FLOAT", *, scale: float = 1.0) -> Path:
    kinds, helper = onnx.TensorProto, onnx.helper
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=kinds.FLOAT),
        helper.make_node("Flatten", ["f"], ["v"], axis=1),
        helper.make_node("Gemm", ["v", "w"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", getattr(kinds, kind), shape)],
        [helper.make_tensor_value_info("z", kinds.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(WEIGHTS * np.float32(scale), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path


def close(victim: OnnxVictim, flat: torch.Tensor, tolerance: float) -> bool:
    scores = victim.ask(IMAGES).scores
    assert scores is not None
    return torch.allclose(
        scores.double(), (flat @ torch.from_numpy(WEIGHTS)).double(), atol=tolerance
    )


@pytest.mark.parametrize(
    ("kind", "scale", "tolerance"),
    [("FLOAT", 1, 1e-4), ("DOUBLE", 1, 1e-4), ("FLOAT16", 1, 0.02), ("UINT8", 1 / 255, 1e-4)],
)
@pytest.mark.parametrize("batch", ["n", 1, 2, 8])
def test_images_come_in_the_type_and_batches_of_the_file(
    kind: str, scale: float, tolerance: float, batch: Any, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.onnx", [batch, 3, 4, 4], kind, scale=scale)
    assert close(OnnxVictim(path), IMAGES.flatten(1), tolerance)


@pytest.mark.parametrize(
    ("shape", "layout"), [(["n", 4, 4, 3], "auto"), (["n", "h", "w", "c"], "nhwc")]
)
def test_channels_may_come_last(shape: list[Any], layout: Any, tmp_path: Path) -> None:
    victim = OnnxVictim(write(tmp_path / "m.onnx", shape), layout=layout)
    assert close(victim, IMAGES.permute(0, 2, 3, 1).flatten(1), 1e-4)


def test_a_shape_that_says_nothing_is_taken_as_first_and_told(tmp_path: Path) -> None:
    victim = OnnxVictim(write(tmp_path / "m.onnx", ["n", "a", "b", "c"]))
    with pytest.warns(FedzoWarning, match=r"victim\.layout=nhwc"):
        assert close(victim, IMAGES.flatten(1), 1e-4)


def test_values_between_the_levels_of_uint8_are_told(tmp_path: Path) -> None:
    victim = OnnxVictim(write(tmp_path / "m.onnx", FIRST, "UINT8"))
    with pytest.warns(FedzoWarning, match="levels=255"):
        victim.ask(IMAGES + 0.3 / 255)


@pytest.mark.parametrize(
    ("shape", "kind", "sentence"),
    [
        (["n", 48], "FLOAT", "one input of images"),
        (FIRST, "INT64", "whose scale is not known"),
        (["n", 3, 2, 8], "FLOAT", "takes images"),
    ],
)
def test_other_models_are_refused(
    shape: list[Any], kind: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        OnnxVictim(write(tmp_path / "m.onnx", shape, kind)).ask(IMAGES)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        OnnxVictim(tmp_path / "none.onnx")
    (tmp_path / "garbage.onnx").write_bytes(b"no model")
    with pytest.raises(FedzoError, match="no model"):
        OnnxVictim(tmp_path / "garbage.onnx")
