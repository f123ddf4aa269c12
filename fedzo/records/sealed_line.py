"""Lines of JSON with a checksum: a changed bit is noticed, wherever it is.

The checksum is the last field, over the line without it, and always written alike; so a line whose
checksum is damaged is one with an unknown field, which its reader refuses.
"""

import hashlib
import re

_SEAL = re.compile(r', "checksum": "([0-9a-f]{16})"\}')


def seal(line: str) -> str:
    """Return a JSON object, given as one line with fields, with its checksum."""
    return f'{line[:-1]}, "checksum": "{_digest(line)}"}}'


def is_sealed(line: str) -> bool:
    """Return whether a line ends in a checksum, right or wrong."""
    return _sealed(line) is not None


def unseal(line: str) -> str:
    """Return a line without its checksum; one that has none is returned as it is.

    Raises ValueError when it does not fit.
    """
    found = _sealed(line)
    if found is None:
        return line
    content = line[: found.start()] + "}"
    if found[1] != _digest(content):
        raise ValueError("its checksum does not fit")
    return content


def _sealed(line: str) -> re.Match[str] | None:
    return _SEAL.fullmatch(line, max(0, len(line) - len(', "checksum": ""}') - 16))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
