"""experiment.toml: an experiment's text under a comment with its checksum.

`--resume` demands that the checksum fits, where there is one; `--config` reads the file as anybody
may have edited it.
"""

import hashlib
import re
from pathlib import Path

from fedzo.errors import ConfigError

_HEAD = re.compile(r"# checksum ([0-9a-f]{16}) of what follows[^\n]*\n")


def sealed_toml(text: str) -> str:
    """Return an experiment's TOML with its checksum."""
    head = f"# checksum {_digest(text)} of what follows: --resume checks it, --config does not"
    return f"{head}\n{text}"


def is_untouched(text: str) -> bool:
    """Return whether a text is as `sealed_toml` made it."""
    head = _HEAD.match(text)
    return head is not None and head[1] == _digest(text[head.end() :])


def check_same(path: Path, wanted: str) -> None:
    """Raise ConfigError unless the file holds this experiment, unchanged since it was written.

    Files of versions before there was a checksum have none.
    """
    try:
        found = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, f"byte {error.start} is no text") from error
    head = _HEAD.match(found)
    body = found[head.end() :] if head else found
    if head and head[1] != _digest(body):
        raise _damaged(path, _difference(body, wanted) or "its checksum does not fit")
    if body != wanted:
        raise ConfigError(
            f"--out {path.parent} holds another experiment ({_difference(body, wanted)}); resume"
            " with the same settings, or name another directory"
        )


def _damaged(path: Path, how: str) -> ConfigError:
    return ConfigError(
        f"{path} was changed or damaged since the run began ({how}); restore it, or start again in"
        " another directory"
    )


def _difference(old: str, new: str) -> str:
    """Return the first line that differs, nothing where none does."""
    if old == new:
        return ""
    pairs = zip(old.splitlines(), new.splitlines(), strict=False)
    for before, now in pairs:
        if before != now:
            return f"there {before}, now {now}"
    return "its settings differ"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
