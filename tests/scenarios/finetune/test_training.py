"""Runs of `fedzo finetune`: curves by forward passes, logs that go on and lead to the same bits."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from counting_device import PLACE, Device
from safetensors.torch import load_file
from typer.testing import CliRunner

from fedzo.catalog import METHOD_LINES
from fedzo.errors import CheckpointError, ConfigError, FedzoWarning
from fedzo.finetuning.log import Log
from scenarios.cli import app
from scenarios.finetune.rates import OWN_SIZE, TIMES_NUMBERS, suggested_lr
from scenarios.finetune.stepping import Stepping
from scenarios.finetune.tasks import make_task
from scenarios.finetune.trainers import TRAINERS, Finetuning
from scenarios.finetune.training import LOG, MODEL, STATE, Look, finetune, replayed, trained
from scenarios.runs.replaying import digest_of

SMALL = {"task": "digits_cnn", "examples": 64, "looks": 3}


def config(**changed) -> Finetuning:  # type: ignore[no-untyped-def]
    return Finetuning(**{**SMALL, "forwards": 640, **changed})


def command(*words: str) -> dict[str, object]:
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, (done.stderr, done.exception)
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_the_list_names_all_methods() -> None:
    assert set(METHOD_LINES) == set(TRAINERS)


@pytest.mark.parametrize("method", ["zo_sgd", "lozo", "activity", "first_order"])
def test_every_kind_of_method_has_a_curve_by_forwards(method: str) -> None:
    heard = []
    looks = finetune(config(method=method), told=heard.append)
    assert looks == heard
    assert looks[0].forwards == 0
    assert looks[1].forwards >= 320
    assert looks[2].forwards >= 640
    passes = {"activity": None, "first_order": 1}.get(method, 2)
    if passes:
        assert looks[2].forwards == looks[2].step * 16 * passes


@pytest.mark.parametrize("method", ["zo_sgd", "activity", "first_order"])
def test_a_rate_falls_to_nothing(method: str) -> None:
    stepping = Stepping(config(method=method, lr=0.4, decay=True))
    rates = []
    while stepping.forwards < 640:
        stepping.advance()
        rates += [group["lr"] for group in stepping.trainer.optimizer.param_groups]
    assert rates[0] == 0.4
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] <= 0.4 * 48 / 640


def test_a_run_whose_rate_falls_goes_on_and_cannot_be_longer(tmp_path: Path) -> None:
    falling = config(decay=True)
    finetune(falling, out=tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(look: Look) -> None:
        if look.forwards >= 320:
            raise Stopped

    with pytest.raises(Stopped):
        finetune(falling, out=tmp_path / "parts", told=stop)
    with pytest.raises(ConfigError, match="falls to 0 after 640 forwards"):
        finetune(config(decay=True, forwards=900), out=tmp_path / "parts")
    finetune(falling, out=tmp_path / "parts")
    ours, theirs = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_activity_has_settings_too() -> None:
    """Without feedback every step is a pair of passes, beside the one that finds the head."""
    looks = finetune(config(method="activity", settings="feedback=off eps=0.01"))
    assert looks[2].forwards == 16 + looks[2].step * 16 * 2


@pytest.mark.parametrize("stacked", [False, True])
def test_places_that_are_asked_at_once_are_counted_one_by_one(stacked: bool) -> None:
    settings = "num_directions=4"
    looks = finetune(config(method="zo_sgd", settings=settings, forwards=512, stacked=stacked))
    assert [look.step for look in looks] == [0, 2, 4]
    assert looks[-1].forwards == 4 * 8 * 16


def test_full_passes_are_counted_as_the_examples_that_they_are() -> None:
    looks = finetune(config(method="mezo_svrg"))
    assert looks[-1].step < 20
    per_period = 2 * 64 + 4 * 4 * 16
    assert looks[-1].forwards in range(640, 640 + per_period)


def test_a_run_goes_on_from_its_log_and_can_be_made_anew(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finetune(config(method="zo_adam"), out=whole)
    finetune(config(method="zo_adam", forwards=320, looks=2), out=tmp_path / "other")
    half = config(method="zo_adam")

    class Stopped(Exception):
        pass

    def stop(look) -> None:  # type: ignore[no-untyped-def]
        if look.forwards >= 320:
            raise Stopped

    with pytest.raises(Stopped):
        finetune(half, out=parts, told=stop)
    finetune(half, out=parts)
    assert (parts / "curve.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (parts / "curve.jsonl").read_text().splitlines()]
    assert lines[0]["train_loss"] is None
    assert [line["forwards"] for line in lines] == [0, 320, 640]
    ours, theirs = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    (parts / "model.safetensors").unlink()
    told = command("replay", str(parts))["sha256"]
    again = load_file(parts / "model.safetensors")
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    fresh = make_task("digits_cnn", seed=0, examples=64)
    assert told != digest_of(trained(fresh))
    fresh.module.load_state_dict(again, strict=False)
    assert told == digest_of(trained(fresh))


@pytest.mark.more
def test_adapters_are_all_that_is_trained_and_kept(tmp_path: Path) -> None:
    words = ["--adapters", "2", "--examples", "64", "--forwards", "64", "--looks", "2"]
    told = command("finetune", "shifted_digits", *words, "--out", str(tmp_path / "run"))
    assert told["looks"][-1]["step"] == 2  # type: ignore[index]
    held = load_file(tmp_path / "run" / "model.safetensors")
    layers = {f"layer{i}.{part}" for i in (0, 1) for part in ("down", "up")}
    assert held.keys() == layers | {"head.weight", "head.bias"}
    digest = command("replay", str(tmp_path / "run"))["sha256"]
    again = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(held[name], again[name]) for name in held)
    fresh = make_task("shifted_digits", seed=0, examples=64, adapters=2)
    assert digest != digest_of(trained(fresh))


@pytest.mark.more
@pytest.mark.parametrize("strategy", ["seed_scalar", "fedavg"])
def test_a_federation_trains_adapters(strategy: str, tmp_path: Path) -> None:
    trained_numbers = 2 * (784 + 64 + 64 + 32) + 32 * 10 + 10
    words = ["--clients", "2", "--rounds", "2", "--set", "scenario.examples=64"]
    run = ["run", "finetune", "--strategy", strategy, "--set", "scenario.adapters=2", *words]
    told = command(*run, "--out", str(tmp_path / "run"))
    if strategy == "fedavg":
        assert told["floats_down"] == 2 * 2 * trained_numbers  # type: ignore[comparison-overlap]
        return
    command("replay", str(tmp_path / "run"))
    held = load_file(tmp_path / "run" / "model.safetensors")
    assert sum(tensor.numel() for tensor in held.values()) == trained_numbers


@pytest.mark.parametrize("engine", ["inprocess", pytest.param("flower", marks=pytest.mark.slow)])
def test_a_federation_is_made_anew_from_its_log(tmp_path: Path, engine: str) -> None:
    out = tmp_path / engine
    told = ["scenario.task=digits_cnn", "scenario.examples=64", "client.num_directions=2"]
    words = [word for setting in told for word in ("--set", setting)]
    words += ["--strategy", "mezo", "--clients", "2", "--rounds", "3", "--engine", engine]
    command("run", "finetune", *words, "--out", str(out))
    digest = command("replay", str(out))["sha256"]
    tensors = load_file(out / "model.safetensors")
    start = trained(make_task("digits_cnn", seed=0, examples=64))
    assert any(not torch.equal(tensors[name], start[name]) for name in start)
    assert digest == digest_of(tensors)
    assert digest == command("replay", str(out))["sha256"]


def test_a_federation_with_a_vector_has_no_log(tmp_path: Path) -> None:
    command("run", "quadratic", "--rounds", "1", "--out", str(tmp_path / "run"))
    done = CliRunner().invoke(app, ["replay", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert "whose x is a vector" in done.stderr


def test_the_commands(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--method", "fzoo", "--set", "num_directions=3", "--forwards", "300", "--looks", "2"]
    told = command("finetune", "digits_cnn", "--examples", "64", *words, "--out", str(out))
    assert told["looks"][-1]["step"] == 5  # type: ignore[index]
    assert len(str(command("replay", str(out))["sha256"])) == 64


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["finetune", "digits_cnn", "--method", "mzo"], "method"),
        (["finetune", "digit", "--method", "mezo"], "task"),
        (["finetune", "digits_cnn", "--set", "rnk=3"], "method.rnk"),
        (["finetune", "digits_cnn", "--method", "activity", "--set", "rank=3"], "activity.rank"),
        (["finetune", "digits_cnn", "--method", "first_order", "--set", "rank=3"], "settings"),
        (["finetune", "digits_cnn", "--looks", "1"], "looks"),
        (
            ["finetune", "digits_cnn", "--adapters", "2", "--layers", "0"],
            "adapters=2 are for linear",
        ),
        (
            ["finetune", "digits_cnn", "--adapters", "7"],
            "rank=7 must be from 1 to 6, by the widths",
        ),
        (["finetune", "shifted_digits", "--adapters", "99"], "rank=99 must be from 1 to 64"),
        (["finetune", "shifted_digits", "--adapters", "-1"], "adapters=-1"),
        (["finetune", "shifted_digits", "--adapters", "2", "--method", "activity"], "activity"),
        (["finetune", "digits_cnn", "--forwards", "0"], "forwards"),
        (["finetune", "digits_cnn", "--examples", "-3"], "examples=-3"),
        (["finetune", "digits_cnn", "--examples", "100000"], "at most 1,437"),
        (["finetune", "digits_cnn", "--layers", "-5"], "layers=-5"),
        (["finetune", "digits_cnn", "--stacked", "--method", "activity"], "stacked=True"),
        (["finetune", "digits_cnn", "--method", "lozo", "--set", "rank=0"], "rank=0"),
        (["finetune", "digits_cnn", "--bits", "9"], "bits=9 must be 0 (none), or 2 to 8"),
        (["finetune", "digits_cnn", "--bits", "4", "--method", "activity"], "bits=4"),
        (["finetune", "shifted_digits", "--method", "qzo", "--adapters", "2"], "bits=4"),
    ],
)
def test_bad_words_end_in_a_sentence(words: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.more
@pytest.mark.parametrize("looks", [3, 4])
def test_a_run_that_is_made_longer_is_one_that_was_as_long(looks: int, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finetune(config(forwards=1000, looks=looks), out=whole)
    for forwards in (640, 1000):
        seen = finetune(config(forwards=forwards, looks=looks), out=parts)
    assert seen[-1].forwards == 1024
    assert len(Log.load(parts / LOG)) == seen[-1].step == 32
    before = (parts / "model.safetensors").read_bytes()
    assert before == (whole / "model.safetensors").read_bytes()
    command("replay", str(parts))
    assert (parts / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("task", "method", "settings"),
    [
        ("shifted_digits", "first_order", ""),
        ("shifted_digits", "activity", "warm_up=4 solve_every=4 patience=1 feedback=auto"),
        pytest.param("digits_transformer", "activity", "warm_up=4", marks=pytest.mark.more),
    ],
)
def test_a_run_that_keeps_no_log_goes_on_from_its_state(
    task: str, method: str, settings: str, tmp_path: Path
) -> None:
    asked = {"task": task, "method": method, "settings": settings, "decay": False, "lr": 3e-3}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    long = finetune(config(**asked, forwards=1600, looks=5), out=whole)
    for forwards in (800, 1600):
        seen = finetune(config(**asked, forwards=forwards, looks=5), out=parts)
    assert (seen[-1].step, seen[-1].forwards) == (long[-1].step, long[-1].forwards)
    assert seen[-1].test_loss == long[-1].test_loss
    assert (parts / MODEL).read_bytes() == (whole / MODEL).read_bytes()


def test_a_run_by_activity_is_not_made_longer_than_its_warm_up_suits(tmp_path: Path) -> None:
    finetune(config(method="activity", forwards=200), out=tmp_path)
    with pytest.raises(ConfigError, match="warm-up suits its 200 forwards"):
        finetune(config(method="activity", forwards=400), out=tmp_path)
    (tmp_path / STATE).write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="name another folder"):
        finetune(config(method="activity", forwards=200), out=tmp_path)


@pytest.mark.more
@pytest.mark.parametrize(("method", "bits"), [("qzo", 0), ("zo_sgd", 2), ("first_order", 8)])
def test_scales_of_quantized_layers_are_trained(method: str, bits: int, tmp_path: Path) -> None:
    chosen = {"task": "shifted_digits", "bits": bits, "lr": 1e-3, "forwards": 320, "looks": 2}
    looks = finetune(config(method=method, **chosen), out=tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    assert held
    assert all(name.endswith(".scales") for name in held)
    assert looks[-1].test_loss == looks[-1].test_loss
    if method != "first_order":
        assert all(torch.equal(held[n], p) for n, p in replayed(tmp_path).items())


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    finetune(config(method="first_order"), out=tmp_path / "first")
    with pytest.raises(ConfigError, match="other settings"):
        finetune(config(method="mezo"), out=tmp_path / "first")
    with pytest.raises(CheckpointError, match="keeps no log"):
        replayed(tmp_path / "first")
    with pytest.raises(CheckpointError, match="holds no run"):
        replayed(tmp_path)


@pytest.mark.parametrize("method", ["first_order", "activity"])
def test_a_network_on_a_device_has_its_examples_there(method: str, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """On a device that refuses tensors of the CPU: the same bits as without it."""

    def trained_on(place: object) -> torch.Tensor:
        monkeypatch.setattr(
            "scenarios.finetune.stepping.make_task",
            lambda *given, **named: make_task(*given, **{**named, "device": place}),
        )
        stepping = Stepping(config(method=method, forwards=160))
        while stepping.forwards < 160:
            stepping.advance()
        stepping.task.evaluate(stepping.task.test)
        return torch.cat([p.cpu().reshape(-1) for p in trained(stepping.task).values()])

    alone = trained_on("cpu")
    with Device():
        assert torch.equal(trained_on(PLACE), alone)


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="sees no GPU"):
        finetune(config(device="cuda"))
    with pytest.raises(ConfigError, match="workers=2 compute on CPUs"):
        config(device="auto", workers=2)
    assert finetune(config(device="auto", forwards=32, looks=2))[-1].step == 1


@pytest.mark.parametrize("method", TRAINERS)
def test_suggested_rates_fall_with_the_size_or_are_of_a_size_of_their_own(method: str) -> None:
    exact = method in ("activity", "first_order")
    small, large = (suggested_lr(method, n, by_gradients=exact) for n in (600, 5_000_000))
    assert 0 < large <= small <= 3
    coarse, fine = (suggested_lr(method, 600, by_gradients=exact, bits=b) for b in (4, 8))
    assert fine < coarse <= small
    assert (large == small) == (method in OWN_SIZE)
    assert not {*OWN_SIZE, *TIMES_NUMBERS} - {*TRAINERS}


def test_who_names_no_rate_gets_one_that_does_not_diverge() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        looks = finetune(config(task="shifted_digits", forwards=1600, examples=0))
    assert looks[-1].test_loss < looks[0].test_loss


def test_a_loss_that_rises_is_told_once() -> None:
    with pytest.warns(FedzoWarning, match=r"risen from .* to .*lr=1 are too large for zo_sgd") as w:
        looks = finetune(config(task="shifted_digits", lr=1.0, forwards=1600, looks=6))
    assert not looks[-1].test_loss < looks[0].test_loss
    assert len([each for each in w if "risen" in str(each.message)]) == 1


def test_a_batch_of_more_than_the_examples_is_told() -> None:
    with pytest.warns(FedzoWarning, match="batch_size=100 is more than the 64 examples"):
        Stepping(config(batch_size=100)).advance()
