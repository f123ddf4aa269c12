"""A model in an ONNX file, run by onnxruntime: no gradient exists there."""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.attacks.victim import Answers, join_answers, read_answers
from fedzo.errors import ConfigError, ObjectiveError

_INSTALL = "attacks on ONNX files need onnxruntime and onnx; pip install 'fedzo[onnx]'"


class OnnxVictim:
    """The first output of an ONNX model with one input of images [b, c, h, w], float32.

    A model of a fixed batch size is asked that many images at a time. Raises ConfigError when the
    file is not there, is no ONNX model, or onnxruntime is not installed.
    """

    def __init__(
        self, path: Path, tells: Literal["logits", "probabilities", "labels"] = "logits"
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(_INSTALL) from error
        if not path.is_file():
            raise ConfigError(f"{path} is not a file; give an ONNX model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ConfigError(f"{path} is no model that onnxruntime can run: {error}") from error
        self.tells = tells
        self._path = path
        [*inputs] = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ConfigError(f"{path} must have one input of images [batch, channels, h, w]")
        self._input = inputs[0].name
        self._batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else 0

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        """Run the model; raises ObjectiveError for images that it does not take."""
        parts = images.split(self._batch or len(images))
        return join_answers([self._ask(part) for part in parts])

    def _ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        count = len(images)
        if self._batch > count:
            images = torch.cat([images, images[-1:].expand(self._batch - count, -1, -1, -1)])
        try:
            told = self._session.run(None, {self._input: images.float().numpy()})[0]
        except Exception as error:
            raise ObjectiveError(f"{self._path} does not take these images: {error}") from error
        return read_answers(told[:count], count, self.tells)


def export_onnx(module: nn.Module, shape: tuple[int, int, int], path: Path) -> None:
    """Write a module that maps images [b, *shape] to scores as ONNX, for any batch size."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ConfigError(_INSTALL) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        module,
        (torch.zeros(2, *shape),),
        str(path),
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
        dynamo=False,
    )
