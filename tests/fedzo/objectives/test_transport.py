"""What other ends may do: redirects, statuses, waits, sizes, times, compressions, pipes."""

import gzip
import json
import os
import socket
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

import fedzo.objectives.tries
from fedzo.attacks.victims.remote import RemoteVictim
from fedzo.errors import ConfigError, FedzoWarning, ObjectiveError
from fedzo.objectives.cohort import cohort_of
from fedzo.objectives.http_post import post
from fedzo.objectives.oracle import Oracle
from fedzo.objectives.remote import CommandObjective, HttpObjective
from fedzo.objectives.transport import Command, Http

GOOD = b'{"values": [1.0]}'
SECRETS = {"Authorization": "Bearer s3cret-key", "X-Api-Key": "another-s3cret"}
Reply = tuple[int, Mapping[str, str], bytes]


class Seen:
    """What a server was asked: the paths, methods and headers of its requests."""

    def __init__(self) -> None:
        self.url = ""
        self.paths: list[str] = []
        self.methods: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.bodies: list[bytes] = []


@contextmanager
def serving(reply: Callable[[Seen], Reply]) -> Iterator[Seen]:
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            seen.paths.append(self.path)
            seen.methods.append(self.command)
            seen.headers.append(dict(self.headers))
            status, headers, body = reply(seen)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield seen
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def speaking(speak: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve one connection byte by byte."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                connection, _ = server.accept()
                with connection:
                    question = b""
                    while not question.endswith(b"]]}"):
                        question += connection.recv(65536)
                    speak(connection)
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        thread.join(5)
        assert not thread.is_alive(), "the connection was not closed"


def asked(url: str, **settings: Any) -> float:
    settings = {"retries": 0, "pause_s": 0.0, "timeout_s": 5.0, **settings}
    return float(HttpObjective(url=url, dim=1, **settings).value(torch.zeros(1, 1)))


def failure(url: str, **settings: Any) -> str:
    with pytest.raises(ObjectiveError) as caught:
        asked(url, **settings)
    told = str(caught.value)
    assert "s3cret" not in told
    return told


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_redirect_to_another_origin_is_told_and_gets_nothing(status: int, host: str) -> None:
    with serving(lambda _: (200, {}, GOOD)) as other:
        away = other.url.replace("127.0.0.1", host).replace("//", "//me:pw@") + "new?token=abc"
        with serving(lambda _: (status, {"Location": away}, b"")) as first:
            told = failure(first.url, headers=SECRETS, retries=3)
        assert (len(first.paths), other.paths) == (1, [])
    assert f"status {status}: it redirects to http://{host}" in told
    assert "another origin" in told
    assert "pw@" not in told
    assert "token" not in told


@pytest.mark.parametrize(
    "where", ["https://127.0.0.1/", "//127.0.0.1:1/", "file:///etc/passwd", "http://127.0.0.1:x/"]
)
def test_other_schemes_and_ports_are_other_origins(where: str) -> None:
    with serving(lambda _: (307, {"Location": where}, b"")) as first:
        failure(first.url, headers=SECRETS, retries=3)
    assert len(first.paths) == 1


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("where", ["/new", "new", "?a=1", "{}new"])
def test_a_redirect_that_keeps_the_question_is_followed(status: int, where: str) -> None:
    def reply(seen: Seen) -> Reply:
        if seen.paths[-1] == "/":
            return status, {"Location": where.format(seen.url)}, b"moved"
        return 200, {}, GOOD

    with serving(reply) as seen:
        assert asked(seen.url, headers=SECRETS) == 1.0
    assert seen.methods == ["POST", "POST"]
    assert seen.bodies[0] == seen.bodies[1]
    assert seen.headers[1]["X-Api-Key"] == SECRETS["X-Api-Key"]
    assert seen.headers[1]["Content-Type"] == "application/json"


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_to_a_get_is_told(status: int) -> None:
    with serving(lambda _: (status, {"Location": "/login"}, b"")) as seen:
        told = failure(seen.url, retries=3)
    assert seen.methods == ["POST"]
    assert "/login, which would turn the question into a GET" in told


def test_redirects_in_a_circle_end() -> None:
    with serving(lambda _: (307, {"Location": "/"}, b"")) as seen:
        assert "redirect" in failure(seen.url, retries=3)
    assert len(seen.paths) < 12


def test_a_redirect_to_nowhere_is_told() -> None:
    with serving(lambda _: (302, {}, b"")) as seen:
        assert "status 302" in failure(seen.url, retries=3)
    assert len(seen.paths) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422])
def test_refusals_are_not_repeated(status: int) -> None:
    with serving(lambda _: (status, {}, b"Bearer s3cret-key is\x1b[31m wrong")) as seen:
        told = failure(seen.url, headers=SECRETS, retries=3)
    assert len(seen.paths) == 1
    assert f"refuses the question: status {status}" in told
    assert "\x1b" not in told


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_passes_is_asked_again(status: int) -> None:
    with serving(lambda s: (status if len(s.paths) < 3 else 200, {}, GOOD)) as seen:
        assert asked(seen.url, retries=2) == 1.0
        assert len(seen.paths) == 3


def waits(monkeypatch: pytest.MonkeyPatch, retry_after: str, **settings: Any) -> list[float]:
    """Return what was slept after a 503 with such a Retry-After, then an answer."""
    slept: list[float] = []
    monkeypatch.setattr(fedzo.objectives.tries.time, "sleep", slept.append)
    headers = {"Retry-After": retry_after}
    with serving(lambda s: (503 if len(s.paths) < 2 else 200, headers, GOOD)) as seen:
        asked(seen.url, retries=1, **settings)
    return slept


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("0", 0.0), ("0.25", 0.25), ("7", 7.0), ("-3", 0.5), ("soon", 0.5), ("", 0.5), ("nan", 0.5)],
)
def test_a_retry_after_is_waited(
    told: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert waits(monkeypatch, told, pause_s=0.5) == [seconds]
    sentences = [str(one.message) for one in said if one.category is FedzoWarning]
    assert len(sentences) == (seconds >= 1)
    assert all("asked again in 7 s, try 2 of 2" in sentence for sentence in sentences)


@pytest.mark.parametrize("ahead", [20, -20])
def test_a_retry_after_may_be_a_date(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        [slept] = waits(monkeypatch, date)
    assert max(0, ahead - 2) <= slept <= max(0, ahead)


@pytest.mark.parametrize(
    "told", ["1000000000", "9" * 400, "301", "Fri, 01 Jan 2999 00:00:00 GMT", "86400"]
)
def test_a_long_retry_after_is_told_and_not_waited(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ObjectiveError, match=r"asks to be left alone for .* 300 s are waited"):
        waits(monkeypatch, told)


def test_long_pauses_of_our_own_are_bounded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(fedzo.objectives.tries.time, "sleep", slept.append)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        with pytest.warns(FedzoWarning, match="is asked again in"):
            failure(url, retries=70, pause_s=100.0)
    assert (slept[:2], max(slept)) == ([100.0, 200.0], 300.0)


def drip(connection: socket.socket, first: bytes, piece: bytes) -> None:
    connection.sendall(first)
    for _ in range(100):
        time.sleep(0.02)
        connection.sendall(piece)
        if not piece and not connection.recv(1):
            return


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.more
@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"", b""),
        (HEAD, b"X"),
        (HEAD, b"X: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (HEAD + b"\r\n", b" "),
        (HEAD + b"Content-Length: 999\r\n\r\n", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", b" "),
        (b"HTTP/1.1 307 Go\r\nLocation: /\r\n\r\n", b" "),
    ],
)
def test_a_try_ends_in_time_whatever_drips(first: bytes, piece: bytes) -> None:
    with speaking(lambda connection: drip(connection, first, piece)) as url:
        begun = time.monotonic()
        told = failure(url, timeout_s=0.2)
        assert time.monotonic() - begun < 1.0
    assert "TimeoutError: no complete answer within 0.2 s" in told or "refused" in told


def test_nothing_is_sent_after_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose name takes long to look up is not asked when nobody waits any more."""
    found = socket.getaddrinfo

    def slow(*arguments: Any, **more: Any) -> Any:
        time.sleep(0.3)
        return found(*arguments, **more)

    with serving(lambda _: (200, {}, GOOD)) as seen:
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        assert "within 0.1 s" in failure(seen.url, timeout_s=0.1)
        time.sleep(0.4)
        assert seen.paths == []


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"\r\n",
        HEAD + b"Content-Length: 99999999999\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_an_answer_without_end_is_left(head: bytes) -> None:
    def speak(connection: socket.socket) -> None:
        connection.sendall(head)
        piece = b" " * (1 << 20)
        for _ in range(50):
            connection.sendall(b"100000\r\n" + piece + b"\r\n" if b"chunked" in head else piece)

    with speaking(speak) as url:
        assert "sends more than 4 MiB for an answer" in failure(url)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "deflate", "raw", "gzip, gzip", ""])
def test_compressed_answers_are_read(encoding: str) -> None:
    raw = zlib.compressobj(wbits=-15)
    body = {
        "deflate": zlib.compress(GOOD),
        "raw": raw.compress(GOOD) + raw.flush(),
        "gzip, gzip": gzip.compress(gzip.compress(GOOD)),
    }.get(encoding, gzip.compress(GOOD[:5]) + gzip.compress(GOOD[5:]))
    headers = {"Content-Encoding": encoding.replace("raw", "deflate")} if encoding else {}
    with serving(lambda _: (200, headers, body)) as seen:
        assert asked(seen.url) == 1.0


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, br"])
def test_other_compressions_are_named(encoding: str) -> None:
    with serving(lambda _: (200, {"Content-Encoding": encoding}, b"\x8b\x03")) as seen:
        assert f"compressed by {encoding.split()[-1]}" in failure(seen.url, retries=3)
    assert len(seen.paths) == 1


def test_bad_compressions_are_told() -> None:
    whole = gzip.compress(GOOD)
    for body, sentence in ((GOOD, "says that it is gzip"), (whole[:-9], "breaks off")):
        with serving(lambda _, body=body: (200, {"Content-Encoding": "gzip"}, body)) as seen:
            assert sentence in failure(seen.url)


def test_a_bomb_is_left() -> None:
    bomb = gzip.compress(b" " * (32 << 20), compresslevel=1)
    for body in (bomb, gzip.compress(bomb)):
        encodings = {"Content-Encoding": "gzip" if body is bomb else "gzip, gzip"}
        with serving(lambda _, b=body, e=encodings: (200, e, b)) as seen:
            assert "sends more than 4 MiB" in failure(seen.url, retries=3)
        assert len(seen.paths) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100000,
        b'{"values": ' + b"[" * 100000,
        b'{"values": [1' + b"0" * 400 + b"]}",
        b'{"values": [1' + b"0" * 5000 + b"]}",
        b'{"values": [1], "values": [2]}',
        b'{"values": [true]}',
        b'{"values": ["1"]}',
        b'{"values": [null]}',
        b'{"values": {"0": 1}}',
        b"\xff\xfe\x00",
        b"",
    ],
)
def test_answers_that_are_none_end_in_a_sentence(body: bytes) -> None:
    with serving(lambda _: (200, {}, body)) as seen:
        failure(seen.url)
        victim = RemoteVictim(transport=Http(url=seen.url, retries=0))
        with pytest.raises(ObjectiveError):
            victim.ask(torch.zeros(1, 1, 2, 2))


def test_scores_that_are_integers_beyond_floats_are_told() -> None:
    body = b'{"logits": [[1' + b"0" * 400 + b", 2]]}"
    with serving(lambda _: (200, {}, body)) as seen:
        victim = RemoteVictim(transport=Http(url=seen.url, retries=0))
        with pytest.raises(ObjectiveError):
            victim.ask(torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    "body", [b"\xef\xbb\xbf" + GOOD, GOOD.decode().encode("utf-16"), b"\n " + GOOD + b"\r\n"]
)
def test_other_forms_of_the_same_answer_are_read(body: bytes) -> None:
    with serving(lambda _: (200, {"Content-Type": "text/plain"}, body)) as seen:
        assert asked(seen.url) == 1.0
    with speaking(lambda c: c.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD)) as url:
        assert asked(url) == 1.0


def test_an_answer_shorter_than_promised_is_asked_for_again() -> None:
    head = HEAD + b"Content-Length: 99\r\n\r\n"
    with speaking(lambda connection: connection.sendall(head + GOOD)) as url:
        assert "IncompleteRead" in failure(url)


def test_a_user_in_the_address_becomes_a_header_and_is_not_shown() -> None:
    with serving(lambda _: (404, {}, b"")) as seen:
        told = failure(seen.url.replace("//", "//me:s3cret%21@") + "a%20b?key=s3cret-value#part")
    assert seen.headers[0]["Authorization"] == "Basic bWU6czNjcmV0IQ=="
    assert Http(url="http://me@h/").headers == {"Authorization": "Basic bWU6"}
    assert seen.paths == ["/a%20b?key=s3cret-value"]
    assert f"{seen.url}a%20b?... refuses" in told
    http = Http(url="http://me:s3cret@h/", headers={"authorization": "mine"})
    assert http.headers == {"authorization": "mine"}
    assert "s3cret" not in repr(http)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///path",
        "http://h:port/",
        "http://h:99999/",
        "http://h:0/",
        "http://a b/",
        "http://h/a\nb",
        "http://[::1/",
        "ftp://h/",
        "http://me:s3cret@/",
        "ftp://me:s3cret@h/",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Http(url=url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Key": "s3cret\r\nX-More: 1"},
        {"X-Key": "s3cret\u20ac"},
        {"X Key": "1"},
        {"X-Key\n": "1"},
        {"": "1"},
        {"Content-Length": "1"},
    ],
)
def test_headers_that_cannot_be_sent(headers: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Http(url="http://h/", headers=headers)
    assert "s3cret" not in str(caught.value)


def test_a_proxy_that_is_none_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:s3cret@h:port/")
    monkeypatch.delenv("no_proxy", raising=False)
    assert "a proxy of the environment" in failure("http://example.invalid/", retries=3)


def test_a_server_that_speaks_no_tls_is_not_asked_again() -> None:
    with serving(lambda _: (200, {}, GOOD)) as seen:
        assert "no secure connection" in failure(seen.url.replace("http:", "https:"), retries=3)


def test_a_server_that_reads_no_question_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=r"within 0.3 s"):
            post(url, b" " * (1 << 25), {}, timeout_s=0.3, limit=1)
        assert time.monotonic() - begun < 5


def test_the_limit_of_a_socket_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object, **__: object) -> None:
        raise URLError(TimeoutError("timed out"))

    monkeypatch.setattr("urllib.request.OpenerDirector.open", late)
    with pytest.raises(TimeoutError, match=r"within 9 s"):
        post("http://127.0.0.1:9/", b"{}", {}, timeout_s=9, limit=1)


@pytest.mark.parametrize(
    "settings",
    [{"timeout_s": 1e10}, {"timeout_s": torch.inf}, {"rate_limit": 1e-300}, {"pause_s": torch.inf}],
)
def test_waits_that_never_end_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Http(url="http://h/", **settings)  # type: ignore[arg-type]


def test_nan_is_not_asked() -> None:
    with serving(lambda _: (200, {}, GOOD)) as seen:
        box = HttpObjective(url=seen.url, dim=1)
        with pytest.raises(ObjectiveError, match="NaN"):
            box.value(torch.full((1, 1), torch.nan))
        assert box.value(torch.zeros(0, 1)).shape == (0,)
    assert seen.paths == []


def test_points_after_a_part_that_failed_are_not_counted() -> None:
    def reply(seen: Seen) -> Reply:
        count = len(json.loads(seen.bodies[-1])["points"])
        return (
            (400 if len(seen.paths) == 2 else 200),
            {},
            json.dumps({"values": [1] * count}).encode(),
        )

    with serving(reply) as seen:
        box = HttpObjective(url=seen.url, dim=1, batch=2)
        with pytest.raises(ObjectiveError) as caught:
            box.value(torch.zeros(7, 1))
    assert caught.value.points_asked == 4  # type: ignore[attr-defined]
    assert len(seen.paths) == 2
    with serving(reply) as seen:
        box = HttpObjective(url=seen.url, dim=1, batch=2)
        oracle = Oracle(cohort_of([box, Sphere()]))
        oracle.value(torch.zeros(2, 7, 1))
    assert oracle.counts()["queries"] == [4, 7]
    assert "refuses the question" in oracle.failures[0]


def test_rates_hold_for_repeated_tries() -> None:
    with serving(lambda s: (500 if len(s.paths) < 4 else 200, {}, GOOD)) as seen:
        begun = time.monotonic()
        asked(seen.url, retries=3, rate_limit=50.0)
        assert time.monotonic() - begun >= 0.06


class Sphere:
    """An objective that always answers."""

    dim, lower, upper = 1, -torch.inf, torch.inf

    def value(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(-1)


def python(code: str, **settings: Any) -> CommandObjective:
    settings = {"retries": 0, "pause_s": 0.0, "timeout_s": 0.7, **settings}
    return CommandObjective(command=[sys.executable, "-S", "-c", code], dim=1, **settings)


def complaint(code: str, **settings: Any) -> str:
    begun = time.monotonic()
    with pytest.raises(ObjectiveError) as caught:
        python(code, **settings).value(torch.zeros(1, 1))
    assert time.monotonic() - begun < 5.0
    return str(caught.value)


@pytest.mark.more
@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)",
        "import sys\nwhile True: print('x' * 999, file=sys.stderr)",
        "import sys, time\nwhile True: print(end=' ', flush=True); time.sleep(0.01)",
        "import os, time; os.close(1); os.close(2); time.sleep(60)",
        "import os, time; os.close(0); time.sleep(60)",
    ],
)
def test_a_command_ends_in_time(code: str) -> None:
    assert "TimeoutExpired" in complaint(code, timeout_s=0.2)


def test_a_command_that_prints_without_end_is_left() -> None:
    told = complaint("while True: print('x' * 9999)", retries=3, timeout_s=30)
    assert "sends more than 4 MiB" in told


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import sys; sys.stderr.write('\\x1b[31mout of\\norder'); sys.exit(3)", "3: "),
        ("import os; os.kill(os.getpid(), 9)", "exit status -9"),
        ("import os; print('{', flush=True); os._exit(0)", "is not"),
        ("pass", "is not"),
    ],
)
def test_a_command_that_fails_is_told(code: str, sentence: str) -> None:
    told = complaint(code, timeout_s=20)
    assert sentence in told
    assert told.isprintable()


def test_a_command_may_leave_its_question_unread() -> None:
    box = CommandObjective(command=["echo", GOOD.decode()], dim=100000, retries=0)
    assert box.value(torch.zeros(1, 100000)).tolist() == [1.0]


CHILD = """
import os, sys, time
if os.fork() == 0:
    {apart}
    open(sys.argv[1], "w").write(str(os.getpid()))
    time.sleep(30)
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read(): time.sleep(0.01)
print('{{"values": [1.0]}}', flush=True)
os._exit(0)
"""


def test_children_that_a_command_leaves_are_ended(tmp_path: Path) -> None:
    """They hold its pipes open, and nobody waits for them."""
    file = tmp_path / "pid"
    line = [sys.executable, "-S", "-c", CHILD.format(apart="pass"), str(file)]
    begun = time.monotonic()
    box = CommandObjective(command=line, dim=1, retries=0, timeout_s=20)
    assert box.value(torch.zeros(1, 1)).tolist() == [1.0]
    assert time.monotonic() - begun < 5
    time.sleep(0.1)
    state = Path(f"/proc/{file.read_text()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_child_in_a_session_of_its_own_keeps_nobody_waiting(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    line = [sys.executable, "-S", "-c", CHILD.format(apart="os.setsid()"), str(file)]
    begun = time.monotonic()
    box = CommandObjective(command=line, dim=1, retries=0, timeout_s=20)
    assert box.value(torch.zeros(1, 1)).tolist() == [1.0]
    assert time.monotonic() - begun < 5
    os.kill(int(file.read_text()), 9)


def test_programs_that_cannot_be_run_are_told_once(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    odd = tmp_path / "odd"
    odd.write_bytes(b"\x01\x02\x03 no program")
    odd.chmod(0o755)
    for line, sentence in (
        ([str(plain)], "cannot be run"),
        ([str(plain / "below")], "does not exist"),
        ([str(odd)], "cannot be run: Exec format"),
    ):
        box = CommandObjective(command=line, dim=1, pause_s=60.0)
        with pytest.raises(ObjectiveError, match=sentence):
            box.value(torch.zeros(1, 1))
    with pytest.raises(ConfigError, match="zero byte"):
        Command(command=["a\0b"])
