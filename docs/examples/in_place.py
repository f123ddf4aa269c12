"""A network that no client has twice: zeroth-order training in place.

    fedzo run custom --strategy seed_scalar --clients 2 --rounds 200 \\
        --set scenario.objective=docs/examples/in_place.py:objective \\
        --set client.num_directions=4 --set strategy.server_lr=0.02

The function makes the module once for both clients, who have data of their own. Only losses are
asked, and beside the module nobody needs more memory than its largest layer; at the end the module
is trained. Run as a script, this file compares its loss before and after.
"""

import functools

import torch
from torch import nn

from fedzo.objectives.objective import ModuleObjective
from scenarios import federate


@functools.cache
def network() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    made = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return made


def objective(client: int) -> ModuleObjective:
    inputs = torch.randn(100, 20, generator=torch.Generator().manual_seed(1 + client))
    return ModuleObjective(
        network(), nn.functional.cross_entropy, inputs, inputs.sum(dim=1).gt(0).long()
    )


if __name__ == "__main__":
    result = federate(
        objective,
        num_clients=2,
        strategy="seed_scalar",
        num_rounds=200,
        settings={"client.num_directions": 4, "strategy.server_lr": 0.02},
    )
    print(f"loss {result.initial_value:.3f} -> {result.final_value:.3f}, {result.queries} queries")
