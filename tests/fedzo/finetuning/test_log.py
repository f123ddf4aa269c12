"""Logs on disk: small, exact, refused where they do not belong."""

from pathlib import Path

import pytest
import torch
from module_nets import loss_of, net, numbers

from fedzo.errors import CheckpointError
from fedzo.estimation.view import View
from fedzo.finetuning.log import Log, fingerprint
from fedzo.finetuning.zeroth_order import ZerothOrder


def trained(steps: int = 5, **settings) -> tuple[torch.nn.Module, ZerothOrder]:  # type: ignore[no-untyped-def]
    module = net()
    optimizer = ZerothOrder(module, 0.02, **settings)
    for _ in range(steps):
        optimizer.step(loss_of(module))
    return module, optimizer


def test_a_file_leads_to_the_same_bits_and_is_small(tmp_path: Path) -> None:
    module, optimizer = trained(250, method="zo_sgd")
    optimizer.log.save(tmp_path / "log.safetensors")
    assert (tmp_path / "log.safetensors").stat().st_size < 10_000
    other = net()
    again = ZerothOrder(other, 0.3, method="zo_sgd")
    again.replay(Log.load(tmp_path / "log.safetensors"))
    assert torch.equal(numbers(module), numbers(other))
    assert (again.steps, again.spent.forwards) == (250, 0)


def test_a_run_goes_on_from_its_log_as_if_it_had_not_stopped() -> None:
    whole, _ = trained(8, method="hizoo")
    _, first = trained(5, method="hizoo")
    module = net()
    optimizer = ZerothOrder(module, 0.02, method="hizoo")
    optimizer.replay(first.log)
    for _ in range(3):
        optimizer.step(loss_of(module))
    assert torch.equal(numbers(whole), numbers(module))


@pytest.mark.parametrize(
    ("settings", "what"),
    [({"seed": 1}, "seed"), ({"method": "lozo"}, "method"), ({"view": "2"}, "names")],
)
def test_a_log_of_something_else_is_refused(settings: dict[str, object], what: str) -> None:
    _, optimizer = trained()
    other = ZerothOrder(net(), 0.02, **settings)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=f"the log's {what} "):
        other.replay(optimizer.log)


def test_a_module_that_is_elsewhere_is_refused() -> None:
    module, optimizer = trained()
    with pytest.raises(CheckpointError, match="the log's start"):
        ZerothOrder(module, 0.02).replay(optimizer.log)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    _, optimizer = trained()
    path = tmp_path / "log.safetensors"
    optimizer.log.save(path)
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 4
    path.write_bytes(bytes(whole))
    with pytest.raises(CheckpointError):
        Log.load(path)
    with pytest.raises(CheckpointError, match="no such file"):
        Log.load(tmp_path / "none")


def test_a_fingerprint_sees_every_bit_and_the_order() -> None:
    view = View.of_named({"a": torch.zeros(3), "b": torch.ones(3)})
    other = View.of_named({"a": torch.ones(3), "b": torch.zeros(3)})
    bent = View.of_named({"a": torch.zeros(3), "b": torch.tensor([1.0, 1.0, 1.0000001])})
    turned = View.of_named({"a": torch.zeros(3), "b": torch.tensor([1.0, 1.0, 1.0]).flip(0)})
    prints = [fingerprint(v) for v in (view, other, bent)]
    assert len(set(prints)) == 3
    assert fingerprint(turned) == prints[0]
