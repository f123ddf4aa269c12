"""Addresses of endpoints: what is in them, and what of it may be shown."""

import base64
import hashlib
import re
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from fedzo.errors import ConfigError

_PORTS = {"http": 80, "https": 443}


def split_login(url: str) -> tuple[str, str]:
    """Return an address without a user and a password, and these as the value of a header.

    Raises ConfigError for what is none, without showing it where it may hold a password.
    """
    shown = f"url={url!r}" if "@" not in url else "url (it holds a password and is not shown)"
    if not is_address(url):
        raise ConfigError(f"{shown} must begin with http:// or https://")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        good = bool(host) and port != 0 and not re.search(r"[\s\0-\x1f\x7f]", url)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{shown} is no address; write http://HOST:PORT/PATH without blanks")
    user, _, where = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    login = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    path, query = (quote(text, safe="/%:;=@&+$,!?*'()[]~#") for text in (parts.path, parts.query))
    plain = urlunsplit((parts.scheme, where, path, query, ""))
    return plain, f"Basic {login}" if user else ""


def origin(parts: SplitResult) -> tuple[str, str, int | None]:
    """Return scheme, host and port of an address."""
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme)


def shown_url(url: str) -> str:
    """Return an address as anybody may read it: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "http://?"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}{'?...' if parts.query else ''}"


def public_name(name: str) -> str:
    """Return a name as it may lie in files: an address without secrets, all else as it is.

    Addresses that differ in their query keep different names.
    """
    if not is_address(name):
        return name
    query = name.partition("#")[0].partition("?")[2]
    digest = hashlib.blake2b(query.encode(), digest_size=4).hexdigest() if query else ""
    return shown_url(name) + digest


def is_address(name: str) -> bool:
    """Return whether a name is that of an endpoint."""
    return name.lower().startswith(("http://", "https://"))
