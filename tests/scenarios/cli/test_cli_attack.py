"""`fedzo attack` and `fedzo defend`: counts, files, resume, and one sentence for bad input."""

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from fedzo.attacks.victims.onnx import export_onnx
from fedzo.attacks.victims.remote import RemoteVictim
from fedzo.attacks.victims.server import serving
from fedzo.attacks.victims.victim import ModuleVictim
from fedzo.objectives.transport import Http
from fedzo.randomness import stream
from scenarios.cli.app import app
from scenarios.data.images import load_images
from scenarios.data.networks import load_parameters, make_pooled_cnn
from scenarios.victims.defense import load_defense
from scenarios.victims.victim_sources import SourceSettings, open_source
from scenarios.victims.victims import Training, fit_network

SOURCE = """
import torch
import sys
from pathlib import Path
from safetensors.torch import load_file
from scenarios.data.networks import load_parameters, make_pooled_cnn

def model():
    stored = load_file(Path(__file__).parent / "model.safetensors")["x"]
    return load_parameters(make_pooled_cnn(8, 10), stored)

def score(images):
    return model()(torch.from_numpy(images)).numpy()

nothing = 3
"""
FAST = ["--set", "victim.data=digits", "--images", "2", "--radius", "0.3", "--query-budget", "120"]

pytestmark = pytest.mark.xdist_group("cli attack")
"""Its victim is trained once, for all tests of one process."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("victims")
    train, _ = load_images("digits", "", seed=0)
    fitted = fit_network(
        make_pooled_cnn(8, 10), train, Training(6, 64, 3e-3), generator=stream(0, "victim")
    )
    save_file({"x": fitted}, folder / "model.safetensors")
    (folder / "mine.py").write_text(SOURCE)
    export_onnx(network(folder), (1, 8, 8), folder / "mine.onnx")
    return folder


def network(folder: Path) -> nn.Module:
    from safetensors.torch import load_file

    return load_parameters(make_pooled_cnn(8, 10), load_file(folder / "model.safetensors")["x"])


def go(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, ["attack", *map(str, arguments), "--json"])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout) if status == 0 else result.stderr


def test_a_module_a_function_onnx_and_http_give_the_same(folder: Path) -> None:
    results = [
        go(f"{folder}/mine.py:model", *FAST),
        go(f"{folder}/mine.py:score", *FAST),
        go(f"{folder}/mine.onnx", *FAST),
    ]
    with serving(ModuleVictim(network(folder))) as server:
        results.append(go(server.url, *FAST))
        assert server.queries == results[-1]["victim_queries"]
    same = ("success_rate", "mean_queries", "median_queries", "queries", "screening_queries")
    for name in same:
        assert len({result[name] for result in results}) == 1, name
    first = results[0]
    assert first["attacker"] == "thompson"
    assert first["victim_queries"] == first["queries"] + first["screening_queries"]
    assert first["success_rate"] >= 0.5


def test_files_are_written_and_a_second_attack_pays_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serving(ModuleVictim(network(folder))) as server:
        first = go(server.url, *FAST, "--out", out)
        paid = server.queries
        assert "add --resume" in go(server.url, *FAST, "--out", out, status=2)
        again = go(server.url, *FAST, "--out", out, "--resume")
        assert server.queries == paid
    assert again["replayed"] == paid
    assert again["victim_queries"] == 0
    same = ("success_rate", "mean_queries", "queries", "screening_queries")
    assert [first[n] for n in same] == [again[n] for n in same]
    report = json.loads((out / "report.json").read_text())
    assert len(report["each"]) == 2
    assert all(one["linf"] <= 0.3 + 1e-5 for one in report["each"])
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "images.safetensors").exists()


@pytest.mark.more
def test_attacks_by_labels_tell_how_near_they_came(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--wrap", "labels", "--norm", "l2", "--radius", "0.05", "--attacker", "cgba"]
    told = go(f"{folder}/mine.py:model", *FAST[:2], *words, "--images", 2, "--out", out)
    each = json.loads((out / "report.json").read_text())["each"]
    assert told["success_rate"] == 0
    assert all(one["nearest"] > 0.05 for one in each)
    assert told["median_nearest"] == pytest.approx(sum(one["nearest"] for one in each) / 2)
    assert (out / "distance.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.more
def test_an_interrupted_attack_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with serving(ModuleVictim(network(folder))) as server:
        expected = go(server.url, *FAST, "--out", whole)
        lines = (whole / "answers.jsonl").read_text().splitlines(keepends=True)
        cut.mkdir()
        half = len(lines) // 2
        (cut / "answers.jsonl").write_text("".join(lines[:half]) + lines[half][:10])
        before = server.queries
        result = go(server.url, *FAST, "--out", cut, "--resume")
        assert server.queries - before == result["victim_queries"] == len(lines) - half
    assert result["replayed"] == half - 1
    assert result["mean_queries"] == expected["mean_queries"]
    assert (cut / "answers.jsonl").read_text().count("\n") == len(lines)


@pytest.mark.more
def test_several_radii_and_attackers_are_one_table(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fast = [*FAST[:2], "--images", "1", "--query-budget", "30", "--radius", "0.3,8/255"]
    several = [*fast, "--attacker", "square,thompson", "--set", "square.area=0.3", "--out", out]
    with serving(ModuleVictim(network(folder))) as server:
        first = go(server.url, *several)
        paid = server.queries
        again = go(server.url, *several, "--resume")
        assert server.queries == paid == first["victim_queries"] == again["replayed"]
        go(server.url, *fast[:-1], "0.3", "--attacker", "square", "--out", out, "--resume")
        assert ((out / "report.json").exists(), (out / "table.json").exists()) == (True, False)
        go(server.url, *several, "--resume")
        assert ((out / "report.json").exists(), (out / "table.json").exists()) == (False, True)
    assert first["attackers"] == ["square", "thompson"]
    assert first["radii"] == [8 / 255, 0.3]
    assert first["most_queries"] == 4 * 30 >= first["queries"]
    cells = [(cell["attacker"], cell["radius"], cell["success_rate"]) for cell in first["cells"]]
    assert cells == [(c["attacker"], c["radius"], c["success_rate"]) for c in again["cells"]]
    stored = json.loads((out / "table.json").read_text())
    assert [len(cell["each"]) for cell in stored["cells"]] == [1] * 4
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "square-0.0313725" / "images.safetensors").exists()


def test_what_attacks_may_cost_is_told_before_and_after(folder: Path) -> None:
    words = [f"{folder}/mine.py:model", *FAST[:4], "--query-budget", "30", "--radius", "0.1,1/5"]
    priced = [*words, "--set", "victim.query_cost=0.5"]
    done = CliRunner().invoke(app, ["attack", *map(str, priced)])
    assert done.exit_code == 0, done.output
    assert "2 attacks on up to 2 images: at most 120 queries (cost 60.00)" in done.stderr
    assert "(120)" in done.stdout
    assert "robust accuracy" in done.stdout


def test_a_dry_run_checks_everything_asks_nothing_and_writes_nothing(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "never.py").write_text("def score(images):\n    raise SystemExit('was asked')\n")
    out, dry = tmp_path / "out", "--dry-run"
    words = [f"{folder}/never.py:score", *FAST[:4], "--query-budget", "30", "--out", out, dry]
    planned = go(*words, "--radius", "0.1,0.2", "--attacker", "square,nes")
    assert planned["dry_run"]
    told = [(one["attacker"], one["radius"], one["most_queries"]) for one in planned["attacks"]]
    assert told == [("square", 0.1, 60), ("square", 0.2, 60), ("nes", 0.1, 60), ("nes", 0.2, 60)]
    assert not out.exists()
    said = CliRunner().invoke(app, ["attack", *map(str, words)]).stderr
    assert "tells logits of images [1, 8, 8]" in said
    assert "nothing was asked or written" in said
    assert "no names of classes" in go(*words, "--target", "cat", status=2)
    assert "budget" in go(*words, "--query-budget", "1", "--attacker", "nes", status=2)


def test_failures_and_a_rate_limit_cost_time_and_no_queries(folder: Path) -> None:
    generator = stream(0, "failures")
    victim = ModuleVictim(network(folder))
    with serving(victim, failure_rate=0.2, rate_limit=200, generator=generator) as server:
        result = go(
            server.url,
            *FAST,
            "--images",
            "4",
            "--set",
            "victim.pause_s=0.001",
            "--set",
            "victim.retries=12",
            "--set",
            "victim.query_cost=0.5",
        )
        assert server.failures > 0
        assert server.queries == result["victim_queries"]
        assert result["cost"] == server.queries / 2


def test_labels_order_and_other_wrappers(folder: Path) -> None:
    victim = f"{folder}/mine.py:model"
    labels = go(victim, *FAST, "--wrap", "labels")
    assert (labels["attacker"], labels["tells"]) == ("edge", "labels")
    order = go(victim, *FAST, "--wrap", "order", "--coordinates", "waves:4")
    assert (order["attacker"], order["screening_queries"]) == ("rank", 0)
    assert order["queries"] == 2 * 120
    limited = go(victim, *FAST, "--wrap", "limit=3", "--wrap", "rounded=2", "--wrap", "top=3")
    assert limited["victim_queries"] == 3
    assert limited["refused"] > 0


def test_targets_universal_levels_and_other_norms(folder: Path) -> None:
    victim = f"{folder}/mine.py:model"
    out = go(victim, *FAST, "--target", "3", "--query-budget", "300")
    assert out["images"] == 2
    universal = go(victim, *FAST, "--universal", "--query-budget", "400")
    assert universal["queries"] <= 400
    assert go(victim, *FAST, "--levels", "16")["images"] == 2
    for norm, radius in (("l2", 2), ("l0", 10), ("patch", 4)):
        assert go(victim, *FAST, "--norm", norm, "--radius", radius)["norm"] == norm


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nobody"], "victim 'nobody' is none of mnist, fashion"),
        (["{}/mine.py:nothing"], "not a torch module, a function or a Victim"),
        (["{}/mine.py:absent"], "has no 'absent'"),
        (["{}/gone.onnx"], "is not a file"),
        (
            ["{}/mine.py:model", "--attacker", "squar"],
            "unknown attacker squar; did you mean square",
        ),
        (["{}/mine.py:model", "--norm", "l3"], "unknown norm l3"),
        (["{}/mine.py:model", "--norm", "l3", "--radius", "0.1"], "unknown norm l3"),
        (["{}/mine.py:model", "--radius", "-1"], "radius=-1.0 must be positive"),
        (["{}/mine.py:model", "--radius", "8/0"], "radius='8/0' is no number; write one such as"),
        (["{}/mine.py:model", "--radius", "0.1,"], "radius='' is no number"),
        (["{}/mine.py:model", "--radius", "0.1,-1"], "radius=-1.0 must be positive"),
        (["{}/mine.py:model", "--radius", "0.1,1/10"], "radius 0.1 is given 2 times"),
        (["{}/mine.py:model", "--radius", "0.1,0.2", "--universal"], "universal=True with several"),
        (
            ["{}/mine.py:model", "--attacker", "square,edg"],
            "unknown attacker edg; did you mean edge",
        ),
        (
            ["{}/mine.py:model", "--attacker", "square", "--set", "square.area=1"],
            "settings begin with attacker. or victim.",
        ),
        (["{}/mine.py:model", "--images", "9999"], "images=9999 asks for more than the"),
        (["{}/mine.py:model", "--images", "0"], "images=0 must be at least 1"),
        (["{}/mine.py:model", "--set", "attacker.spred=1"], "did you mean attacker.spread"),
        (["{}/mine.py:model", "--set", "spread=1"], "settings begin with attacker. or victim."),
        (["{}/mine.py:model", "--wrap", "top=x"], "wrapper top='x' needs a number"),
        (["{}/mine.py:model", "--wrap", "lable"], "unknown wrapper lable; did you mean labels"),
        (
            ["{}/mine.py:model", "--wrap", "labels", "--attacker", "square"],
            "attacker square needs a victim that tells logits or probabilities",
        ),
        (["{}/mine.py:model", "--resume"], "--resume needs --out"),
        (["{}/mine.py:model", "--coordinates", "wave"], "did you mean waves"),
        (
            ["{}/mine.py:model", "--coordinates", "waves:4"],
            "does not search in waves, but in pixels",
        ),
        (["{}/mine.py:model", "--coordinates", "waves:x"], "waves:x: write a whole number"),
        (["{}/mine.py:model", "--target", "-1"], "target=-1 must be a class"),
        (["{}/mine.py:model", "--wrap", "top=0"], "wrapper top=0: count=0 must be at least 1"),
        (["{}/mine.py:model", "--wrap", "limit=2"], "the 2 of 360 that the victim answers"),
        (["{}/mine.py:model", "--out", "{}/mine.py"], "cannot be written: File exists"),
        (["command:"], "names no program"),
        (["{}/mine.py:model", "--norm", "l0", "--radius", "1.5"], "a whole number of pixels"),
        (["{}/mine.py:model", "--set", "victim.data=none.npz"], "no .npz file with arrays"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, arguments: list[str], sentence: str) -> None:
    first, *rest = (argument.format(folder) for argument in arguments)
    data = [] if any("victim.data" in a for a in rest) else ["--set", "victim.data=digits"]
    told = go(first, *data, *rest, status=2)
    assert sentence in " ".join(told.split())
    assert "Traceback" not in told


@pytest.mark.slow
def test_a_model_of_ones_own_is_defended_and_attacked(folder: Path, tmp_path: Path) -> None:
    victim, out = f"{folder}/mine.py:model", tmp_path / "defense"
    fast = ["--steps", "2", "--certify", "4", "--samples", "60", "--out", str(out)]
    data = ["--set", "victim.data=digits"]
    made = CliRunner().invoke(app, ["defend", victim, *data, *fast, "--sigma", "0.3", "--json"])
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert told["images"] == 4
    gradients = 2 * 32 * (2 * 32 + 1)
    assert gradients + 32 <= told["training_queries"] <= gradients + 2 * 32
    assert set(told["certified_defended"]) == set(told["certified_undefended"])
    assert (out / "figure.png").stat().st_size > 1000
    assert go(victim, *FAST, "--wrap", f"defense={out}")["tells"] == "probabilities"


def test_colored_pictures_are_defended_and_the_defense_attacked(tmp_path: Path) -> None:
    source = "def score(images):\n    return images.mean(axis=(2, 3))[:, [0, 1, 2] * 4]\n"
    (tmp_path / "mine.py").write_text(source)
    for number, color in enumerate(((200, 60, 60), (60, 200, 60), (60, 60, 200))):
        folder = tmp_path / "pictures" / str(number)
        folder.mkdir(parents=True)
        for i in range(6):
            noise = stream(number, "picture", i).integers(-40, 40, (8, 12, 3))
            picture = (np.array(color) + noise).astype(np.uint8)
            Image.fromarray(picture).save(folder / f"{i}.png")
    victim, out = f"{tmp_path}/mine.py:score", tmp_path / "defense"
    data = ["--set", f"victim.data={tmp_path / 'pictures'}"]
    fast = [
        "--steps",
        "1",
        "--certify",
        "6",
        "--samples",
        "60",
        "--sigma",
        "0.2",
        "--out",
        str(out),
    ]
    small = ["defense.latent=4", "defense.batch_size=4", "defense.epochs=60"]
    words = [
        "defend",
        victim,
        *data,
        *fast,
        "--out",
        str(out),
        *(w for s in small for w in ("--set", s)),
        "--json",
    ]
    made = CliRunner().invoke(app, words)
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert told["training_queries"] == 4 * (2 * 4 + 1) + 4
    assert told["certified_undefended"]["0.0"] > 0.6
    radius = ["--norm", "l2", "--radius", "3", "--images", "2", "--query-budget", "20"]
    attack = [
        "attack",
        victim,
        *data,
        "--wrap",
        f"defense={out}",
        *radius,
        "--expect",
        "2",
        "--json",
    ]
    answered = CliRunner().invoke(app, attack)
    assert answered.exit_code == 0, answered.output
    told = json.loads(answered.stdout)
    assert (told["tells"], told["expect"]) == ("probabilities", 2)
    assert load_defense(out).purifier.shape == (3, 8, 12)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{}/mine.py:model", "--certify", "350"], "certify=350 must be from 1 to"),
        (["{}/mine.py:model", "--set", "radius=1"], "settings begin with defense. or victim."),
        (["{}/mine.py:model", "--sigma", "0"], "sigma=0.0 must be positive"),
        (["{}/mine.py:nothing"], "not a torch module, a function or a Victim"),
        (["{}/mine.py:score", "--set", "victim.tells=labels"], "trained through scores"),
    ],
)
def test_bad_input_of_defend_is_one_sentence(
    folder: Path, arguments: list[str], sentence: str
) -> None:
    given = [argument.format(folder) for argument in arguments]
    done = CliRunner().invoke(
        app, ["defend", *given, "--set", "victim.data=digits", "--steps", "1"]
    )
    assert done.exit_code == 2, done.output
    assert sentence in " ".join(done.stderr.split())


def test_headers_come_from_a_file(tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("Authorization: Bearer a:b\n\nX-Team: red\n")
    with ExitStack() as stack:
        settings = SourceSettings(headers=str(headers), data="digits")
        victim = open_source("http://127.0.0.1:9/", [], settings, stack).victim
    assert isinstance(victim, RemoteVictim)
    assert isinstance(victim.transport, Http)
    assert victim.transport.headers == {"Authorization": "Bearer a:b", "X-Team": "red"}
    headers.write_text("Authorization: x\nsecret\n")
    told = go("http://127.0.0.1:9/", *FAST, "--set", f"victim.headers={headers}", status=2)
    assert "line 2 of" in " ".join(told.split())
    assert "secret" not in told


def test_a_server_that_is_not_there_is_a_failed_run() -> None:
    told = go(
        "http://127.0.0.1:9/",
        *FAST,
        "--set",
        "victim.retries=1",
        "--set",
        "victim.pause_s=0",
        status=1,
    )
    assert "the endpoint http://127.0.0.1:9/ failed 2 times" in told


def test_data_from_a_file(folder: Path, tmp_path: Path) -> None:
    _, test = load_images("digits", "", seed=0)
    np.savez(tmp_path / "own.npz", images=test.pixels.numpy(), labels=test.labels.numpy())
    own = go(f"{folder}/mine.py:model", *FAST[2:], "--set", f"victim.data={tmp_path}/own.npz")
    assert own["mean_queries"] == go(f"{folder}/mine.py:model", *FAST)["mean_queries"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda i, y: (i * 255, y), "pixels lie in [0.0, 255.0]; scale them"),
        (lambda i, y: (i * np.nan, y), "numbers that are not finite"),
        (lambda i, y: (i.reshape(len(i), -1), y), "images have shape (360, 64)"),
        (lambda i, y: (i[:0], y[:0]), "images have shape (0, 8, 8)"),
        (lambda i, y: (i[..., None], y), "channels come second: images.transpose(0, 3, 1, 2)"),
        (lambda i, y: (i, y[:50]), "labels have shape (50,)"),
        (lambda i, y: (i, np.eye(10)[y]), "labels have shape (360, 10)"),
        (lambda i, y: (i, y.astype(str)), "labels have shape (360,) of <U"),
        (lambda i, y: (i, y - 1), "the least label=-1 must be 0 or more"),
        (lambda i, y: (i, y.astype(object)), "is no .npz file with arrays"),
    ],
)
def test_data_that_are_none_are_named(
    folder: Path, tmp_path: Path, change: Any, sentence: str
) -> None:
    _, test = load_images("digits", "", seed=0)
    images, labels = change(test.pixels.numpy(), test.labels.numpy())
    np.savez(tmp_path / "own.npz", images=images, labels=labels)
    given = [*FAST[2:], "--set", f"victim.data={tmp_path}/own.npz"]
    told = go(f"{folder}/mine.py:model", *given, status=2)
    assert sentence in " ".join(told.split())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("crash", "failed on images of shape (2, 1, 8, 8): ValueError: boom"),
        ("nan", "scores that are not finite"),
        ("table", "an array of shape (2, 2, 2) for 2 images"),
        ("Words()", "the module returned str; it must return scores"),
    ],
)
def test_functions_that_fail_are_failed_runs(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "broken.py").write_text(
        "import torch\n"
        "def crash(images): raise ValueError('boom')\n"
        "def nan(images): return [[float('nan')] * 10 for _ in images]\n"
        "def table(images): return [[[1, 2], [3, 4]]] * 2\n"
        "class Words(torch.nn.Module):\n"
        "    def forward(self, x): return 'seven'\n"
        f"it = {name}\n"
    )
    told = go(f"{tmp_path}/broken.py:it", *FAST, status=1)
    assert sentence in " ".join(told.split())


def test_the_number_of_threads_is_left_as_it_was(folder: Path) -> None:
    before = torch.get_num_threads()
    go(f"{folder}/mine.py:model", *FAST)
    assert torch.get_num_threads() in (1, before)


def test_answers_of_another_model_are_not_taken(tmp_path: Path) -> None:
    """The same name is not the same victim: its file may say something else."""
    images = np.random.default_rng(0).random((6, 1, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.zeros(6, dtype=np.int64))
    text = (
        "import numpy as np\n"
        "def f(x):\n"
        "    mean = x.mean((1, 2, 3))\n"
        "    return np.stack([SIGN * (mean + 1), 0 * mean], 1)\n"
    )
    file = tmp_path / "net.py"
    file.write_text(text.replace("SIGN", "1"))
    words = [
        "attack", f"{file}:f", "--set", f"victim.data={tmp_path / 'mine.npz'}", "--images", "2",
        "--query-budget", "12", "--radius", "0.05", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert CliRunner().invoke(app, words).exit_code == 0
    again = CliRunner().invoke(app, [*words, "--resume"])
    assert again.exit_code == 0, again.output
    file.write_text(text.replace("SIGN", "-1"))
    other = CliRunner().invoke(app, [*words, "--resume"])
    assert other.exit_code == 2
    assert "holds answers of" in other.output


def test_answers_numbered_by_another_list_of_names_are_not_taken(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((6, 1, 4, 4)).astype(np.float32)
    bright = (images.mean((1, 2, 3)) > 0.5).astype(np.int64)
    np.savez(tmp_path / "mine.npz", images=images, labels=bright)
    (tmp_path / "v.py").write_text(
        "import json, sys, numpy as np\n"
        "x = np.array(json.load(sys.stdin)['images'])\n"
        "names = np.where(x.mean((1, 2, 3)) > 0.5, 'bright', 'dark')\n"
        "print(json.dumps({'labels': names.tolist()}))\n"
    )
    names = tmp_path / "names.txt"
    names.write_text("dark\nbright\n")
    words = [
        "attack", f"command:{sys.executable} {tmp_path / 'v.py'}", "--attacker", "hopskipjump",
        "--norm", "l2", "--radius", "5", "--query-budget", "20", "--images", "1",
        "--set", "victim.tells=labels", "--set", f"victim.data={tmp_path / 'mine.npz'}",
        "--set", f"victim.classes={names}", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert CliRunner().invoke(app, words).exit_code == 0
    assert CliRunner().invoke(app, [*words, "--resume"]).exit_code == 0
    names.write_text("bright\ndark\n")
    other = CliRunner().invoke(app, [*words, "--resume"])
    assert other.exit_code == 2, other.output


def test_an_attack_stays_in_its_directory_whatever_the_victims_code_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    moves = f"import os\nos.chdir({str(tmp_path / 'elsewhere')!r})\n"
    text = SOURCE.replace("Path(__file__).parent", f"Path({str(folder)!r})")
    (tmp_path / "moves.py").write_text(text + moves)
    go("moves.py:score", *FAST, "--out", "found")
    assert {"report.json", "figure.png", "answers.jsonl"} <= {*os.listdir(tmp_path / "found")}
    assert not list((tmp_path / "elsewhere").iterdir())
    first = (tmp_path / "found" / "answers.jsonl").read_text().splitlines()[0]
    assert "of sha256" in first
