"""Black boxes behind HTTP and behind a command: all points at once, retries, one sentence."""

import importlib.util
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objectives.remote import CommandObjective, HttpObjective

PROGRAM = """
import json, pathlib, sys
count = pathlib.Path(sys.argv[1])
asked = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(asked))
if asked <= int(sys.argv[2]):
    sys.exit("out of order")
points = json.load(sys.stdin)["points"]
print(json.dumps({"values": [sum(p) for p in points]}))
"""
X = torch.tensor([[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]], dtype=torch.float64)


def command(tmp_path: Path, *, failures: int = 0, **settings: float) -> CommandObjective:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    line = [sys.executable, str(program), str(tmp_path / "count"), str(failures)]
    return CommandObjective(command=line, dim=2, pause_s=0.0, **settings)  # type: ignore[arg-type]


def test_a_command_gets_all_points_at_once(tmp_path: Path) -> None:
    assert torch.equal(command(tmp_path).value(X), X.sum(-1))
    assert (tmp_path / "count").read_text() == "1"


def test_questions_are_split_where_a_limit_is_set(tmp_path: Path) -> None:
    assert torch.equal(command(tmp_path, batch=2).value(X), X.sum(-1))
    assert (tmp_path / "count").read_text() == "2"


def test_a_command_that_fails_is_tried_again(tmp_path: Path) -> None:
    assert torch.equal(command(tmp_path, failures=2, retries=2).value(X), X.sum(-1))
    assert (tmp_path / "count").read_text() == "3"


def test_the_last_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(ObjectiveError, match=r"failed 2 times.*exit status 1: out of order"):
        command(tmp_path, failures=9, retries=1).value(X)


def test_a_command_that_hangs_is_stopped() -> None:
    line = [sys.executable, "-c", "import time; time.sleep(60)"]
    slow = CommandObjective(command=line, dim=2, timeout_s=0.3, retries=0)
    with pytest.raises(ObjectiveError, match="TimeoutExpired"):
        slow.value(X)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("rubbish", "is not"),
        ('{"values": [1, 2]}', "3 points were asked and 2 values"),
        ('{"values": [1, 2, "x"]}', "is not"),
        ('{"worth": [1, 2, 3]}', "is not"),
        ('{"values": "123"}', "is not"),
    ],
)
def test_answers_that_are_none_are_refused(answer: str, message: str) -> None:
    line = [sys.executable, "-c", f"print({answer!r})"]
    with pytest.raises(ObjectiveError, match=message):
        CommandObjective(command=line, dim=2, retries=0).value(X)


def test_values_that_are_not_finite_pass_for_the_oracle_to_judge() -> None:
    line = [sys.executable, "-c", "print('{\"values\": [1, NaN, Infinity]}')"]
    values = CommandObjective(command=line, dim=2, retries=0).value(X)
    assert values.isfinite().tolist() == [[True, False, False]]


@pytest.fixture
def plant() -> ModuleType:
    """Load the example's server."""
    path = Path(__file__).parents[3] / "docs" / "examples" / "own_node" / "plant.py"
    if not path.exists():
        pytest.skip("the examples are in the sources only")
    spec = importlib.util.spec_from_file_location("plant", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def endpoint(plant: ModuleType) -> Iterator[str]:
    """Serve a plant that refuses every second question."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), plant.make_handler(0.0, 0.5))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_endpoint_is_asked_again_when_it_is_busy(endpoint: str) -> None:
    box = HttpObjective(url=endpoint, dim=2, pause_s=0.0, retries=1, batch=1)
    assert torch.allclose(box.value(X), X.square().sum(-1))


def test_what_an_endpoint_refuses_is_told(endpoint: str) -> None:
    box = HttpObjective(url=endpoint, dim=2, pause_s=0.0, retries=0)
    box.value(X)
    with pytest.raises(ObjectiveError, match=r"endpoint http.* failed 1 times.*503 the plant is"):
        box.value(X)


def test_nobody_listening_is_told() -> None:
    box = HttpObjective(url="http://127.0.0.1:9/", dim=2, pause_s=0.0, retries=1, timeout_s=1.0)
    with pytest.raises(ObjectiveError, match=r"failed 2 times.*Connection refused"):
        box.value(X)


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    """The first connection promises more than it sends."""
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
    body = b'{"values": [1, 5, 9]}'
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in (cut, whole):
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        box = HttpObjective(url=url, dim=2, pause_s=0.0, retries=1, timeout_s=5.0)
        assert torch.equal(box.value(X), X.sum(-1))
        thread.join()


def test_a_program_that_is_missing_is_not_tried_again() -> None:
    with pytest.raises(ObjectiveError, match="the command no-such-program does not exist"):
        CommandObjective(command=["no-such-program"], dim=2, pause_s=60.0).value(X)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="must begin with http"):
        HttpObjective(url="file:///etc/passwd", dim=2)
    with pytest.raises(ConfigError, match="must be a list"):
        CommandObjective(command="rm -rf", dim=2)
    with pytest.raises(ConfigError, match="timeout_s=0 must be positive"):
        CommandObjective(command=["true"], dim=2, timeout_s=0)
