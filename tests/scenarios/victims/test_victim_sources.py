"""Words for a victim: nothing typed is ignored, and no secret of an address is shown or kept."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fedzo.attacks.victims.remote import RemoteVictim
from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objectives.addresses import public_name, shown_url
from fedzo.objectives.transport import Http
from scenarios.cli.app import app
from scenarios.victims.victim_sources import SourceSettings, open_source

URL = "http://me:pw-s3cret@127.0.0.1:9/score?key=s3cret#part"


def opened(name: str, **settings: object) -> object:
    with ExitStack() as stack:
        source = SourceSettings(data="digits", **settings)  # type: ignore[arg-type]
        return open_source(name, [], source, stack).victim


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mnist", {"rate_limit": 5.0}),
        ("mnist", {"timeout_s": 1.0}),
        ("mnist", {"batch": 2}),
        ("mnist", {"headers": "file"}),
        ("mnist", {"tells": "labels"}),
        ("mnist-http", {"retries": 1}),
        ("mnist", {"layout": "nhwc"}),
        ("command:cat", {"layout": "nhwc"}),
        ("mine.py:model", {"pause_s": 1.0}),
        ("model.onnx", {"headers": "file"}),
        ("command:cat", {"headers": "file"}),
    ],
)
def test_settings_that_change_nothing_are_refused(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"victim.{next(iter(settings))}=.* changes nothing"):
        opened(name, **settings)


def test_functions_are_asked_in_their_layout(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "from fedzo.attacks.victims.victim import CallableVictim\n"
        "def seen(images): return np.array([images.shape[1:]] * len(images))\n"
        "def victim(): return Own()\n"
        "class Own:\n"
        "    tells = 'logits'\n"
        "    def ask(self, images): return CallableVictim(seen).ask(images)\n"
    )
    for layout, shape in (("nchw", [3, 8, 9]), ("auto", [3, 8, 9]), ("nhwc", [8, 9, 3])):
        victim = opened(f"{tmp_path}/own.py:seen", layout=layout)
        scores = victim.ask(torch.zeros(1, 3, 8, 9)).scores  # type: ignore[attr-defined]
        assert scores[0].tolist() == shape
    with pytest.raises(ConfigError, match=r"layout=nhwc has no effect on .*, a Victim"):
        opened(f"{tmp_path}/own.py:victim", layout="nhwc")


def test_models_that_take_one_image_are_asked_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def net(images):\n"
        "    assert len(images) == 1, 'no batches'\n"
        "    return [[float(images.sum()), 0.5]]\n"
    )
    images = torch.arange(3.0).view(3, 1, 1, 1)
    victim = opened(f"{tmp_path}/own.py:net", batch=1)
    assert victim.ask(images).scores[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert victim.batch == 1
    with pytest.raises(ObjectiveError, match="no batches"):
        opened(f"{tmp_path}/own.py:net").ask(images)


def test_settings_of_endpoints_arrive() -> None:
    victim = opened("HTTP://127.0.0.1:9/", timeout_s=1.0, retries=2, batch=3, rate_limit=4.0)
    assert isinstance(victim, RemoteVictim)
    assert isinstance(victim.transport, Http)
    transport = victim.transport
    assert (transport.timeout_s, transport.retries, transport.rate_limit) == (1.0, 2, 4.0)
    assert victim.batch == 3
    assert isinstance(opened("command:cat -u", retries=1), RemoteVictim)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A: 1\na: 2\n", "two headers of one name"),
        ("A B: s3cret\n", "other signs than letters"),
        ("A: s3cret \u20ac\n", "one line of Latin-1"),
        ("Content-Length: 3\n", "set by fedzo"),
    ],
)
def test_headers_that_cannot_be_sent_are_told(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "headers").write_text(text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        opened("http://127.0.0.1:9/", headers=str(tmp_path / "headers"))
    assert "s3cret" not in str(caught.value)


def test_a_mark_at_the_beginning_of_the_headers_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("A: 1\n", "utf-8-sig")
    victim = opened("http://127.0.0.1:9/", headers=str(tmp_path / "headers"))
    assert victim.transport.headers == {"A": "1"}  # type: ignore[attr-defined]


def test_commands_with_open_quotes_are_told() -> None:
    with pytest.raises(ConfigError, match="is no command"):
        opened("command:python 'score.py")


def test_names_of_addresses_hold_no_secret_and_differ() -> None:
    assert shown_url(URL) == "http://127.0.0.1:9/score?..."
    assert public_name("mine.py:model") == "mine.py:model"
    assert public_name("http://h/a") == "http://h/a"
    assert "s3cret" not in public_name(URL)
    assert public_name("http://h/?model=a") != public_name("http://h/?model=b")
    assert public_name("http://a:b@h/?model=a#x") == public_name("http://h/?model=a")
    assert public_name("http://me:s3cret@[::1/?a").startswith("http://?")


def test_an_attack_keeps_no_secret_of_its_address(tmp_path: Path) -> None:
    line = ["attack", URL, "--set", "victim.data=digits", "--set", "victim.retries=0"]
    done = CliRunner().invoke(app, [*line, "--out", str(tmp_path)])
    assert done.exit_code == 1, done.output
    told = " ".join(done.stderr.split())
    assert "the endpoint http://127.0.0.1:9/score?... failed 1 times" in told
    journal = (tmp_path / "answers.jsonl").read_text()
    assert json.loads(journal)["answers_of"] == public_name(URL)
    assert "s3cret" not in told + journal
    bad = CliRunner().invoke(app, ["attack", "http://a:s3cret@[::1/", *line[2:4]])
    assert bad.exit_code == 2, bad.output
    assert "s3cret" not in bad.output
