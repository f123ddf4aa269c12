"""Laws of every strategy in the table: runs resume exactly, and small ones end."""

from pathlib import Path

import pytest
import torch
from worlds import ON_VECTORS, few_steps

from fedzo.records.checkpoint import Checkpoint, CheckpointWriter
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.names import STRATEGIES
from scenarios.runs.simulate import simulate

VARIANTS = ["improved", "on_client", "paper", "official"]
CASES = [(name, {}) for name in ON_VECTORS if name not in ("fzoos", "square")] + [
    ("fzoos", {"strategy.variant": variant}) for variant in VARIANTS
]
IDS = [name if not more else more["strategy.variant"] for name, more in CASES]


def experiment(name: str, more: dict[str, str], **other: object) -> Experiment:
    published = more.get("strategy.variant") in ("paper", "official")
    small = {"client.num_features": 20, "strategy.local_steps": 2} if published else {}
    if STRATEGIES[name].rule == "gradient_difference":
        small = {"strategy.participation": 1.0, "strategy.epsilon": 1000.0}
    if STRATEGIES[name].rule in ("coded", "peer_gradient"):  # all work, always
        small = {"strategy.participation": 1.0}
    settings = {"scenario.dim": 6, "strategy.participation": 0.7, **few_steps(name)}
    settings |= {**more, **small, **other}
    return make_experiment("quadratic", name, num_rounds=3, settings=settings)  # type: ignore[arg-type]


@pytest.mark.more
@pytest.mark.parametrize(("name", "more"), CASES, ids=IDS)
def test_a_checkpoint_after_each_round_goes_on_at_the_same_bits(
    name: str, more: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scenarios.runs.rundir.CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr("fedzo.records.checkpoint.SMALL", 0)
    monkeypatch.setattr("fedzo.records.changes._LONG", 1)
    saved: list[tuple[torch.Tensor, torch.Tensor]] = []
    save = CheckpointWriter.save

    def saving(writer: CheckpointWriter, checkpoint: Checkpoint) -> None:
        saved.extend((tensor, tensor.clone()) for tensor in checkpoint.tensors.values())
        save(writer, checkpoint)

    monkeypatch.setattr(CheckpointWriter, "save", saving)
    whole = simulate(experiment(name, more))

    def die(snapshot: object) -> None:
        if snapshot.record.round_index == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment(name, more), out=tmp_path, callbacks=[die])
    resumed = simulate(experiment(name, more), out=tmp_path, resume=True)
    assert resumed.records[-1].round_index == 3
    assert torch.equal(resumed.x, whole.x)
    assert resumed.queries == whole.queries
    changed = [tensor for tensor, copy in saved if not torch.equal(tensor, copy)]
    assert not changed, "the same object must be the same bits: states are replaced, never mutated"


@pytest.mark.more
@pytest.mark.parametrize(("name", "more"), CASES, ids=IDS)
@pytest.mark.parametrize("clients", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_one_client_and_one_dimension_are_enough(
    name: str, more: dict[str, str], clients: int
) -> None:
    if clients == 1 and STRATEGIES[name].rule in ("coded", "peer_gradient"):
        pytest.skip("nobody can stand in for a single machine, or talk to a single node")
    small = {"client.num_features": 20} if more.get("strategy.variant") in VARIANTS[2:] else {}
    made = make_experiment(
        "quadratic",
        name,
        num_rounds=2,
        num_clients=clients,
        settings={"scenario.dim": 1, **few_steps(name), **more, **small},  # type: ignore[arg-type]
    )
    assert simulate(made).final_value is not None
