"""Small modules and losses that the tests of this room share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedzo.finetuning.methods import learned, plain, ranked, structured
from fedzo.finetuning.methods.method import Method

GENERATOR = torch.Generator().manual_seed(3)
INPUTS = torch.randn(32, 6, generator=GENERATOR)
TARGETS = (INPUTS[:, 0] > 0).long() + (INPUTS[:, 1] > 0).long()

FORWARDS = {
    "mezo": (plain.MeZO(), 2),
    "mezo, 3 directions": (plain.MeZO(num_directions=3), 6),
    "mezo, forward": (plain.MeZO(estimator="forward", num_directions=3), 4),
    "mezo, residual": (plain.MeZO(estimator="residual", num_directions=2, mu=0.1), 2),
    "zo_sgd": (plain.ZOSGD(), 2),
    "zo_momentum": (plain.ZOMomentum(window=8), 2),
    "zo_adam": (plain.ZOAdam(), 2),
    "zo_sign": (plain.ZOSign(), 2),
    "zo_sign, elementwise": (plain.ZOSign(elementwise=True), 2),
    "zo_conservative": (plain.ZOConservative(), 5),
    "fzoo": (plain.FZOO(), 9),
    "forward_gradient": (plain.ForwardGradient(), 0),
    "block_zo": (plain.BlockZO(blocks=2), 4),
    "sparse_mezo": (structured.SparseMeZO(), 2),
    "sparse_mezo, random": (structured.SparseMeZO(mask="random", refresh=2), 2),
    "lozo": (structured.LOZO(), 2),
    "subzero": (structured.SubZero(rank=2), 2),
    "zo_muon": (structured.ZOMuon(rank=4), 5),
    "cge": (structured.CGE(), 2 * 83),
    "zoodip": (structured.ZOODiP(period=4), 3),
    "rank_sgd": (ranked.ZORankSGD(), 8 + 5),
    "consensus": (ranked.ConsensusHopping(), 16),
    "evolution": (ranked.EvolutionStrategy(), 16),
    "hizoo": (learned.HiZOO(), 3),
    "guided_es": (learned.GuidedES(k=2), 2),
    "relizo": (learned.ReLIZO(), 5),
    "gp": (learned.GPGradient(), 5),
    "zoro": (learned.ZORO(num_directions=12, sparsity=3), 13),
}
"""A method, and how often it asks in every step, of a module of 83 numbers."""

SOMETIMES = {
    "deepzero": structured.DeepZero(num_directions=4, share=0.2),
    "mezo_svrg": learned.MeZOSVRG(period=3),
}
"""Methods of which some steps ask more than others."""

ALL: dict[str, Method] = {**{name: method for name, (method, _) in FORWARDS.items()}, **SOMETIMES}


def net(seed: int = 1) -> nn.Sequential:
    """Return a network of 83 numbers that is always the same, whatever the global state."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def loss_of(module: nn.Module) -> Callable[[], Tensor]:
    """Return the closure of a module on all examples."""
    return lambda: F.cross_entropy(module(INPUTS), TARGETS)


def numbers(module: nn.Module) -> Tensor:
    """Return a copy of all parameters as one vector, in their own bits."""
    return torch.cat([p.detach().reshape(-1).float() for p in module.parameters()])
