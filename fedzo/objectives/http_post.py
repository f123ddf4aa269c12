"""One POST over HTTP: all of it within a time, its answer within a size, its headers to one origin.

Redirects are followed where they keep the question and its headers: status 307 and 308 to the same
scheme, host and port. All others end in a sentence, for a POST turned into a GET asks nothing, and
what lies in the headers is meant for the origin that the user named. gzip and deflate are read.
Proxies are those of the environment.
"""

import re
import socket
import ssl
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection, IncompleteRead, InvalidURL
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fedzo.errors import ObjectiveError
from fedzo.objectives.addresses import origin, shown_url
from fedzo.objectives.tries import Final, Later, too_long

ResultT = TypeVar("ResultT")
_TEMPORARY = (408, 425, 429)
_SECONDS = re.compile(r"\d+(\.\d*)?")
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_CHUNK = 1 << 16


@dataclass(slots=True)
class _Line:
    """The connections of one request; once it is cut none of them sends or receives any more."""

    cut: bool = False
    sockets: list[socket.socket] = field(default_factory=list)

    def watched(self, kind: type[HTTPConnection]) -> type[HTTPConnection]:
        """Return a kind of connection that is cut with this line."""
        line = self

        class Watched(kind):  # type: ignore[valid-type, misc]
            def connect(self) -> None:
                super().connect()
                line.sockets.append(self.sock)
                if line.cut:
                    raise TimeoutError("connected after the time was up")

        return Watched

    def stop(self) -> None:
        """Cut all connections, also those that are made after this."""
        self.cut = True
        for opened in list(self.sockets):
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._kind = line.watched(HTTPConnection)

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._kind, req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._kind = line.watched(HTTPSConnection)

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._kind, req)


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    """Follows three redirects that keep the question, to the origin that was asked."""

    followed = 0

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request:
        fp.close()
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        where = f"answers status {code}: it redirects to {shown_url(newurl)}, "
        if origin(old) != origin(new):
            raise Final(
                f"{where}another origin, where neither the question nor its headers are sent; give"
                " that address if you trust it"
            )
        if code not in (307, 308):
            raise Final(f"{where}which would turn the question into a GET; give that address")
        self.followed += 1
        if self.followed > 3:
            raise Final(f"{where}after three other redirects; give the last address")
        return urllib.request.Request(
            newurl, data=req.data, headers=req.headers, method=req.get_method()
        )


def post(
    url: str, question: bytes, headers: Mapping[str, str], *, timeout_s: float, limit: int
) -> bytes:
    """Return the body of the answer, decompressed.

    Raises TimeoutError when the whole of it has not come after `timeout_s`, Final where it is
    longer than `limit` bytes or asking again will not help, other errors where it may.
    """
    line = _Line()
    request = urllib.request.Request(url, data=question, headers=dict(headers), method="POST")
    opener = urllib.request.build_opener(_Plain(line), _Secure(line), _SameOrigin())
    return _within(timeout_s, lambda: _asked(opener, request, timeout_s, limit), line.stop)


def _within(timeout_s: float, work: Callable[[], ResultT], stop: Callable[[], None]) -> ResultT:
    """Return what `work` returns in a thread, or stop it when the time is up.

    A time limit of a socket is one for each read; nothing but a thread limits all of them, and the
    look-up of the host's name too.
    """
    future: Future[ResultT] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # it is raised where the result is asked for
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(timeout_s)
    except TimeoutError as error:
        raise TimeoutError(f"no complete answer within {timeout_s:g} s") from error
    finally:
        stop()


def _asked(
    opener: urllib.request.OpenerDirector,
    request: urllib.request.Request,
    timeout_s: float,
    limit: int,
) -> bytes:
    try:
        with opener.open(request, timeout=timeout_s) as response:
            body = _read(response, limit)
            return _decoded(body, response.headers.get("Content-Encoding", ""), limit)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(error) from error
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError):
            raise Final(f"has no secure connection: {reason}") from error
        if isinstance(reason, TimeoutError):  # the socket's own limit, a moment before ours
            raise reason from error
        raise
    except (ValueError, InvalidURL) as error:  # its text may hold the password of a proxy
        raise Final(
            "has no usable address, or a proxy of the environment has none"
            f" ({type(error).__name__})"
        ) from None


def _refused(error: urllib.error.HTTPError) -> ObjectiveError:
    """Return what a status other than success means."""
    said = " ".join(error.read(200).decode(errors="replace").split())
    text = f"status {error.code} {error.reason}: {said}"
    if error.code < 500 and error.code not in _TEMPORARY:
        return Final(f"refuses the question: {text}")
    wait = _wait_asked(error.headers.get("Retry-After", ""))
    return ObjectiveError(text) if wait is None else Later(text, wait)


def _wait_asked(text: str) -> float | None:
    """Return the seconds of a Retry-After, a number or a date; None where it is neither."""
    if _SECONDS.fullmatch(text.strip()):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _read(response: HTTPResponse, limit: int) -> bytes:
    """Return the body; raises Final as soon as it is too long, IncompleteRead if it breaks off."""
    if response.length is not None and response.length > limit:
        raise too_long(limit)
    body = bytearray()
    while part := response.read(_CHUNK):
        body += part
        if len(body) > limit:
            raise too_long(limit)
    if response.length:
        raise IncompleteRead(bytes(body[:0]), response.length)
    return bytes(body)


def _decoded(body: bytes, encodings: str, limit: int) -> bytes:
    """Return a body without its compressions, the last one first; gzip is seen without a name."""
    names = [name.strip().lower() for name in encodings.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if not names and body.startswith(b"\x1f\x8b"):
        names = ["gzip"]
    for name in reversed(names):
        if name not in _WINDOWS:
            raise Final(
                f"sends an answer compressed by {name}, and gzip and deflate are read; let it send"
                " answers as they are"
            )
        body = _inflated(body, name, limit)
    return body


def _inflated(body: bytes, name: str, limit: int) -> bytes:
    """Return what was compressed; there may be several parts, one after the other."""
    raw = name == "deflate" and body[:1] and body[0] & 15 != 8
    whole = bytearray()
    while body.strip(b"\0"):
        machine = zlib.decompressobj(-15 if raw else _WINDOWS[name])
        try:
            whole += machine.decompress(body, limit + 1 - len(whole))
        except zlib.error as error:
            raise ObjectiveError(
                f"the answer says that it is {name} and is not: {error}"
            ) from error
        if len(whole) > limit:
            raise too_long(limit)
        if not machine.eof:
            raise ObjectiveError(f"the answer, compressed by {name}, breaks off")
        body = machine.unused_data
    return bytes(whole)
