"""Every task by its name.

task = make_task("snippets", seed=0, data_dir="downloads")
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import nn

from fedzo.randomness import stream
from scenarios.finetune.digits import digits_cnn, digits_transformer, initialize, shifted_digits
from scenarios.finetune.minilm import WIDTH, minilm, tokenized
from scenarios.finetune.photos import corrupted_photos
from scenarios.finetune.task import Examples, Source, Task, pose
from scenarios.finetune.texts import TextTaskName, labelled, read_snippets

TaskName = Literal[
    "shifted_digits",
    "digits_transformer",
    "digits_cnn",
    "corrupted_photos",
    "snippets",
    "order",
    "order_marked",
]
_IMAGES: Mapping[str, Callable[..., Source]] = {
    "shifted_digits": shifted_digits,
    "digits_transformer": digits_transformer,
    "digits_cnn": digits_cnn,
    "corrupted_photos": corrupted_photos,
}
_TRAIN_TEXTS, _TEST_TEXTS = 2000, 1000


def make_task(
    name: TaskName,
    *,
    seed: int,
    layers: int = -1,
    adapters: int = 0,
    examples: int = 0,
    data_dir: str = "",
    device: torch.device | str = "cpu",
) -> Task:
    """Return a task; what is drawn for it is drawn from the seed.

    layers: how many of the last layers are trained beside the head, -1 for what the task suggests;
    all of them, the embedding among them, leave nothing to be kept. adapters: the rank of those
    that are trained in their place. examples: to train on, 0 for as many as the task suggests.
    data_dir: where the archive of the text tasks is. device: where the network is trained. Raises
    ConfigError for what is not installed, with what to do.
    """
    if name == "snippets" or name == "order" or name == "order_marked":
        source = _texts(name, examples or _TRAIN_TEXTS, data_dir, seed=seed)
    else:
        source = _IMAGES[name](examples, seed=seed)
    return pose(name, source.on(device), layers, adapters=adapters, seed=seed)


def _texts(name: TextTaskName, examples: int, data_dir: str, *, seed: int) -> Source:
    encoder = minilm()
    found = labelled(
        name,
        read_snippets(data_dir),
        examples + _TEST_TEXTS,
        generator=stream(seed, "finetune", name, "examples"),
    )
    tokens = tokenized(found.texts)
    every = Examples(tokens, torch.tensor(found.labels))
    head = nn.Linear(WIDTH, 2, device="meta")
    initialize(head, generator=stream(seed, "finetune", name, "head"))
    return Source(
        network=nn.Sequential(OrderedDict([*encoder.named_children(), ("head", head)])),
        train=every.take(slice(examples)),
        test=every.take(slice(examples, None)),
        layers=2,
        padded=True,
        new_head=True,
    )
