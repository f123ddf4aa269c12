"""experiment.toml: an experiment's text under a comment with its checksum.

`--resume` demands that the checksum fits, where there is one; `--config` reads the file as anybody
may have edited it.
"""

import hashlib
import re
from pathlib import Path

from fedzo.errors import ConfigError

_HEAD = re.compile(r"# checksum ([0-9a-f]{16}) of what follows[^\n]*\n")
_ROUNDS = re.compile(r"^num_rounds = (\d{1,18})$", re.MULTILINE)


def sealed_toml(text: str) -> str:
    """Return an experiment's TOML with its checksum."""
    head = f"# checksum {_digest(text)} of what follows: --resume checks it, --config does not"
    return f"{head}\n{text}"


def is_untouched(text: str) -> bool:
    """Return whether a text is as `sealed_toml` made it."""
    head = _HEAD.match(text)
    return head is not None and head[1] == _digest(text[head.end() :])


def check_same(path: Path, wanted: str) -> int:
    """Return the rounds of the experiment in the file, which is this one with as many or fewer.

    Raises ConfigError for another, and for a file that was changed since it was written. Files of
    versions before there was a checksum have none.
    """
    body = _body(path, wanted)
    there, now = (_ROUNDS.search(text) for text in (body, wanted))
    if there and now and _ROUNDS.sub("", body, count=1) == _ROUNDS.sub("", wanted, count=1):
        if int(there[1]) <= int(now[1]):
            return int(there[1])
        raise ConfigError(
            f"--out {path.parent} holds a run of {there[1]} rounds, and a run can be extended but"
            f" not shortened to {now[1]}; resume with --rounds {there[1]} or more, or name another"
            " directory"
        )
    told = _difference(*(_ROUNDS.sub("", text, count=1) for text in (body, wanted)))
    raise ConfigError(
        f"--out {path.parent} holds another experiment ({told}); resume"
        " with the same settings, or name another directory; a run of another release goes on with"
        " that release"
    )


def read_untouched(path: Path) -> str:
    """Return the experiment in a file; raises ConfigError for one that was changed or damaged."""
    return _body(path, "")


def _body(path: Path, wanted: str) -> str:
    """Return what is under the checksum of a file, which fits."""
    try:
        found = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, f"byte {error.start} is no text") from error
    head = _HEAD.match(found)
    body = found[head.end() :] if head else found
    if head and head[1] != _digest(body):
        differs = _difference(body, wanted) if wanted else ""
        raise _damaged(path, differs or "its checksum does not fit")
    return body


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
            return f"there {before or 'nothing'}, now {now or 'nothing'}"
    return "its settings differ"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
