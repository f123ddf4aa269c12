"""Victims from words: a shipped name, a file, an address, and what is wrapped around them.

    mnist, fashion, mnist-onnx, ...   see scenarios.victims.shipped
    efficientnet-lite0, ...           see scenarios.data.photo_networks
    path/to/model.onnx                an ONNX file
    http://host/path                  an endpoint as in fedzo.attacks.victims.remote
    command:python serve.py           a command that does, on stdin and stdout
    file.py:name, package.module:name a torch module, a function of images, a Victim, or a function
                                      without arguments that returns one of these

Wrappers are words too: see scenarios.victims.wrapping.
"""

import difflib
import inspect
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from fedzo.attacks.victims.onnx import Layout, OnnxVictim
from fedzo.attacks.victims.remote import RemoteVictim
from fedzo.attacks.victims.showing import ChannelsLast
from fedzo.attacks.victims.victim import CallableVictim, ModuleVictim, Victim
from fedzo.attacks.victims.wrappers import InParts
from fedzo.config import Scalar, check_types, require, require_nonnegative
from fedzo.errors import ConfigError
from fedzo.objectives.addresses import is_address
from fedzo.objectives.transport import Command, Http
from fedzo.user_code import load_object
from scenarios.data.image_folder import LabelledImages
from scenarios.data.photo_networks import SIDES, photo_network
from scenarios.victims.attack_data import PHOTOS, load_data
from scenarios.victims.names import PHOTO_NETWORKS, network_of, shipped_names
from scenarios.victims.shipped import shipped_network, shipped_victim
from scenarios.victims.wrapping import DRAWING, wrapped

Tells = Literal["logits", "probabilities", "labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """How a victim is reached.

    tells: what it answers; shipped victims know. data: images to attack: mnist, fashion, digits,
    photos (scenarios.data.photos), an .npz file with `images` [n, c, h, w] or [n, h, w] in [0, 1]
    and `labels` [n], or a folder of pictures (scenarios.data.image_folder); by default those of the
    shipped victim, or mnist. size: photos and the pictures of a folder are cut to so many pixels a
    side. classes: a file with the names of the model's classes, one a line; photos and networks of
    photographs have ImageNet's. query_cost: price of a query, in any unit; only
    reported. headers: a file of lines `Name: value` that an endpoint is sent, such as a key.
    layout: in which an ONNX file, a module or a function takes images: nchw, nhwc or auto, which is
    by the file's shape, else nchw. output: of an ONNX file, the one that is read, "" for the first.
    batch: images that are asked at a time, such as 1 where a model of yours takes no more; 0 for 64
    in a request, and for all of them where there is none. The others are for endpoints and
    commands.
    """

    tells: Tells = "logits"
    data: str = ""
    size: int = 0
    classes: str = ""
    query_cost: float = 0.0
    headers: str = ""
    layout: Layout = "auto"
    output: str = ""
    timeout_s: float = 30.0
    retries: int = 5
    pause_s: float = 0.2
    rate_limit: float = 0.0
    batch: int = 0
    cache_dir: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("query_cost", "retries", "pause_s", "rate_limit", "seed", "size", "batch"):
            require_nonnegative(name, getattr(self, name))
        require(0 < self.timeout_s < np.inf, "timeout_s", self.timeout_s, "positive and finite")


_IN_A_REQUEST = 64
"""Images, where nobody says how many."""

_WAITS = ("timeout_s", "retries", "pause_s", "rate_limit")
_DEFAULTS = SourceSettings()


@dataclass(frozen=True, slots=True)
class Source:
    """A victim, and what to attack it with."""

    victim: Victim
    data: LabelledImages


def open_source(
    name: str, wrappers: Sequence[str], settings: SourceSettings, stack: ExitStack
) -> Source:
    """Return a victim by its words; the stack ends what was started for it.

    Raises ConfigError for words that are none.
    """
    network, kind = network_of(name)
    _check_used(name, settings)
    found = _data_for(network, settings)
    channels, height, width = found.images.shape[1:]
    if network in PHOTO_NETWORKS:
        _check_photos(network, found.images.shape)
        victim = shipped_victim(photo_network(network), kind, (channels, height, width), stack)
    elif network:
        module = shipped_network(network, cache_dir=settings.cache_dir).module
        victim = shipped_victim(module, kind, (1, height, width), stack)
    else:
        victim = _outside(name, settings, found.classes)
    return Source(wrapped(victim, wrappers, settings.seed, found.num_classes), found)


def _data_for(network: str, settings: SourceSettings) -> LabelledImages:
    """Return the images that a victim is attacked with; network: "" for one that is not ours."""
    photographs, typed = network in PHOTO_NETWORKS, bool(settings.data)
    data = settings.data or (PHOTOS if photographs else network or "mnist")
    size = settings.size
    if photographs and (data == PHOTOS or Path(data).is_dir()):
        size = size or SIDES[network]
    return load_data(data, size, settings.classes, photographs=photographs, typed=typed)


def _check_photos(network: str, shape: Sequence[int]) -> None:
    """Raise ConfigError for images that a network of photographs does not take."""
    side = SIDES[network]
    if tuple(shape[1:]) != (3, side, side):
        raise ConfigError(
            f"{network} takes images of 3 x {side} x {side}, and these are"
            f" {' x '.join(map(str, shape[1:]))}; leave victim.size out, or give others"
            " with victim.data"
        )


def _check_used(name: str, settings: SourceSettings) -> None:
    """Raise ConfigError for a setting that would change nothing for this victim."""
    remote = is_address(name) or name.startswith("command:")
    unused = [] if remote else [*_WAITS]
    unused += [] if is_address(name) else ["headers"]
    network = network_of(name)[0]
    unused += ["batch"] if network or name.lower().endswith(".onnx") else []
    unused += ["tells"] if network else ["cache_dir"]
    unused += ["cache_dir"] if network in PHOTO_NETWORKS else []
    unused += [] if name.lower().endswith(".onnx") else ["output"]
    unused += ["layout"] if remote or network else []
    for field in unused:
        value = getattr(settings, field)
        if value != getattr(_DEFAULTS, field):
            raise ConfigError(
                f"victim.{field}={value} changes nothing for victim {name}; leave it out"
                + ("" if field != "tells" else ", or add --wrap labels")
            )


def check_seed(typed: Mapping[str, Scalar], wrappers: Sequence[str]) -> None:
    """Raise ConfigError for a seed of the victim's own where nothing around it is drawn."""
    if "seed" in typed and not any(word.partition("=")[0] in DRAWING for word in wrappers):
        raise ConfigError(
            f"victim.seed={typed['seed']} has no effect here; leave it out, or use it with --wrap"
            f" {' or '.join(DRAWING)}"
        )


def _outside(name: str, settings: SourceSettings, classes: Sequence[str]) -> Victim:
    """Return a victim that does not ship with fedzo."""
    waits: dict[str, Any] = {n: getattr(settings, n) for n in _WAITS}
    if is_address(name):
        transport: Http | Command = Http(url=name, headers=_headers(settings.headers), **waits)
    elif name.startswith("command:"):
        command = _words(name)
        if not command:
            raise ConfigError(f"victim {name!r} names no program; write command:PROGRAM ARGUMENTS")
        transport = Command(command=command, **waits)
    elif name.lower().endswith(".onnx"):
        return OnnxVictim(
            Path(name), settings.tells, layout=settings.layout, output=settings.output
        )
    elif ":" in name:
        victim = victim_from(load_object(name, what="victim"), settings.tells, name)
        return _in_parts(_laid_out(victim, settings.layout, name), settings.batch)
    else:
        near = difflib.get_close_matches(name, shipped_names(), n=1)
        names = ", ".join(shipped_names())
        meant = f"unknown; did you mean {near[0]}?" if near else f"none of {names};"
        raise ConfigError(
            f"victim {name!r} is {meant} or give file.py:name, a .onnx file, an http:// address, or"
            " command:..."
        )
    batch = settings.batch or _IN_A_REQUEST
    return RemoteVictim(transport=transport, tells=settings.tells, batch=batch, classes=classes)


def _words(name: str) -> list[str]:
    try:
        return shlex.split(name.removeprefix("command:"))
    except ValueError as error:
        raise ConfigError(f"victim {name!r} is no command: {error}") from error


def _headers(path: str) -> dict[str, str]:
    """Return the headers in a file, none for no file; values are not repeated in errors."""
    if not path:
        return {}
    try:
        lines = [line for line in Path(path).read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"victim.headers={path} cannot be read: {error}") from error
    pairs = [line.partition(":") for line in lines]
    for number, (name, colon, value) in enumerate(pairs, start=1):
        if not (colon and name.strip() and value.strip()):
            raise ConfigError(f"line {number} of {path} is no header; write lines `Name: value`")
    names = [name.strip().lower() for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path} has two headers of one name; leave one of them out")
    return {name.strip(): value.strip() for name, _, value in pairs}


def victim_from(thing: object, tells: Tells, name: str) -> Victim:
    """Make a victim of what a Python file holds; raises ConfigError for what can be none."""
    if inspect.isfunction(thing) and not inspect.signature(thing).parameters:
        thing = thing()
    if isinstance(thing, Victim) and not isinstance(thing, type):
        if tells != _DEFAULTS.tells:
            raise ConfigError(
                f"victim.tells={tells} has no effect on {name}, a Victim that says itself what it"
                f" tells ({thing.tells}); leave it out, or use --wrap labels"
            )
        return thing
    if isinstance(thing, nn.Module):
        if tells == "labels":
            raise ConfigError("a torch module tells scores; leave --tells out and --wrap labels")
        return ModuleVictim(thing, tells)
    if callable(thing):
        return CallableVictim(thing, tells)
    raise ConfigError(f"{name} is {thing!r:.60}, not a torch module, a function or a Victim")


def _in_parts(victim: Victim, batch: int) -> Victim:
    """Return a victim that is asked so many images at a time; 0 for all."""
    if batch and victim.tells == "order":
        raise ConfigError(
            f"victim.batch={batch} would change what a victim tells that orders the images of a"
            " request; leave it out"
        )
    return InParts(victim, batch) if batch else victim


def _laid_out(victim: Victim, layout: Layout, name: str) -> Victim:
    """Return a module or a function that is asked in its layout."""
    if layout == "auto":
        return victim
    if not isinstance(victim, ModuleVictim | CallableVictim):
        raise ConfigError(
            f"victim.layout={layout} has no effect on {name}, a Victim, which is asked"
            " [b, c, h, w]; leave it out"
        )
    return ChannelsLast(victim) if layout == "nhwc" else victim
