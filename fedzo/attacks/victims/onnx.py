"""A model in an ONNX file, run by onnxruntime: no gradient exists there.

Its one input takes images of any float type, or uint8: pixels are then whole steps of 1/255 (the
setting levels=255 keeps perturbations so). Layout `auto` is what the shape in the file says,
[n, c, h, w] or [n, h, w, c].
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from fedzo.attacks.victims.victim import Answers, join_answers, read_answers
from fedzo.config import require, unknown_key
from fedzo.errors import ConfigError, FedzoWarning, ObjectiveError

Layout = Literal["auto", "nchw", "nhwc"]
_INSTALL = "attacks on ONNX files need onnxruntime and onnx; pip install 'fedzo[onnx]'"


def _whole(images: NDArray[np.float32]) -> NDArray[Any]:
    return np.round(images * 255).astype(np.uint8)


_TYPES: dict[str, Callable[[NDArray[np.float32]], NDArray[Any]]] = {
    "tensor(float)": lambda images: images,
    "tensor(double)": lambda images: images.astype(np.float64),
    "tensor(float16)": lambda images: images.astype(np.float16),
    "tensor(uint8)": _whole,
}


class OnnxVictim:
    """An output of an ONNX model with one input of images; the first, unless one is named.

    A model of a fixed batch size is asked that many images at a time. Raises ConfigError when the
    file is not there, is no ONNX model, has other inputs or outputs than these, or onnxruntime is
    not installed.
    """

    def __init__(
        self,
        path: Path | str,
        tells: Literal["logits", "probabilities", "labels"] = "logits",
        *,
        layout: Layout = "auto",
        output: str = "",
    ) -> None:
        require(layout in ("auto", "nchw", "nhwc"), "layout", layout, "auto, nchw or nhwc")
        self.tells, self._path, self._layout = tells, Path(path), layout
        self._session = _session(self._path)
        given = _only_input(self._session, self._path)
        self._input, self._shape = given.name, list(given.shape)
        self._convert = _TYPES[given.type]
        self._rounds = given.type == "tensor(uint8)"
        self._output = _chosen_output(self._session, self._path, tells, output)
        self._batch = self._shape[0] if isinstance(self._shape[0], int) else 0

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        """Run the model; raises ConfigError for images of another shape than it takes."""
        parts = images.split(self._batch or len(images))
        return join_answers([self._ask(part) for part in parts])

    def _ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        count = len(images)
        if self._batch > count:
            images = torch.cat([images, images[-1:].expand(self._batch - count, -1, -1, -1)])
        pixels = self._placed(images.detach().cpu().float()).contiguous().numpy()
        if self._rounds:
            self._warn_of_rounding(pixels)
        try:
            told = self._session.run([self._output], {self._input: self._convert(pixels)})[0]
        except Exception as error:
            raise ObjectiveError(
                f"{self._path} does not take these images ({self._layout}): {error}"
            ) from error
        return read_answers(told[:count], count, self.tells, partial=False)

    def _placed(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """Return images in the layout of the file; `auto` is settled by the first of them."""
        if self._layout == "auto":
            self._layout = _layout_of(self._shape[1:], images.shape[1:], self._path)
        last = images.permute(0, 2, 3, 1)
        placed = last if self._layout == "nhwc" else images
        if not _fits(self._shape[1:], placed.shape[1:]):
            raise ConfigError(
                f"{self._path} takes images {self._shape}, and these are {list(placed.shape[1:])}"
                f" ({self._layout}); give others, or victim.layout=nchw or nhwc"
            )
        return placed

    def _warn_of_rounding(self, pixels: NDArray[np.float32]) -> None:
        if np.abs(pixels * 255 - np.round(pixels * 255)).max() > 1e-2:
            self._rounds = False
            warnings.warn(
                f"{self._path} takes whole pixel values, and others are rounded to them; set"
                " levels=255, so that perturbations are what the model sees",
                FedzoWarning,
                stacklevel=2,
            )


def _session(path: Path) -> Any:
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
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ConfigError(f"{path} is no model that onnxruntime can run: {error}") from error


def _only_input(session: Any, path: Path) -> Any:
    """Return the input of images; raises ConfigError for other inputs."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape or ()) != 4:
        shapes = ", ".join(f"{one.name} {one.shape}" for one in inputs)
        raise ConfigError(
            f"{path} must have one input of images [batch, channels, h, w] or [batch, h, w,"
            f" channels], and has {shapes or 'none'}"
        )
    if inputs[0].type not in _TYPES:
        raise ConfigError(
            f"{path} takes {inputs[0].type}, whose scale is not known; give a model that takes one"
            f" of {', '.join(_TYPES)}"
        )
    return inputs[0]


def _chosen_output(session: Any, path: Path, tells: str, name: str) -> str:
    """Return the output that is read; raises ConfigError for one that tells something else."""
    outputs = {one.name: one for one in session.get_outputs()}
    if name and name not in outputs:
        raise unknown_key(name, outputs, what="victim.output")
    chosen = outputs[name or next(iter(outputs))]
    others = [one for one in outputs if one != chosen.name]
    if not chosen.type.startswith("tensor"):
        raise ConfigError(
            f"{path}: output {chosen.name} is {chosen.type}, no table [images, classes]; export it"
            " as a tensor (scikit-learn: zipmap=False), or name another with victim.output"
        )
    if tells != "labels" and "int" in chosen.type and len(chosen.shape or ()) == 1:
        raise ConfigError(
            f"{path}: output {chosen.name} is {chosen.type}, labels; say victim.tells=labels, or"
            f" name another with victim.output ({', '.join(others) or 'there is none'})"
        )
    if others and not name:
        warnings.warn(
            f"{path} has the outputs {', '.join(outputs)}; {chosen.name} is read, and"
            " victim.output names another",
            FedzoWarning,
            stacklevel=2,
        )
    return str(chosen.name)


def _fits(wanted: list[Any], shape: torch.Size | tuple[int, ...]) -> bool:
    pairs = zip(wanted, shape, strict=True)
    return all(not isinstance(size, int) or size == given for size, given in pairs)


def _layout_of(wanted: list[Any], shape: torch.Size, path: Path) -> Layout:
    """Return the layout that images [c, h, w] fit in; first is taken where both do, and told."""
    c, h, w = shape
    first, last = _fits(wanted, (c, h, w)), _fits(wanted, (h, w, c))
    if first and last and (c, h, w) != (1, 1, 1):
        warnings.warn(
            f"{path} takes images {wanted}, which may be channels first or last; taken as first,"
            " and victim.layout=nhwc (layout='nhwc') says last",
            FedzoWarning,
            stacklevel=2,
        )
    return "nhwc" if last and not first else "nchw"


def export_onnx(module: nn.Module, shape: tuple[int, int, int], path: Path) -> None:
    """Write a module that maps images [b, *shape] to scores as ONNX, for any batch size."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ConfigError(_INSTALL) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps that torch leaves as they are
        torch.onnx.export(
            module,
            (torch.zeros(2, *shape),),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            dynamo=False,
        )
