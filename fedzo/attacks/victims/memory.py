"""Never ask twice: answers are remembered, and kept in a file that an attack can go on from.

An image that was asked before in this run is answered from memory and is no query. An image whose
answer is in the journal of an earlier, interrupted run is not asked either, but is counted as it
was then: the same attack with the same seed then goes the same way, up to where it was, for free.
The journal has one line of JSON an image: a hash of its pixels, the label, the scores; its first
line names the victim. A victim that takes requests of some size is asked request by request, and
what one has answered is in the journal before the next is made.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.resuming import at_once, recall, replay
from fedzo.attacks.victims.victim import UNKNOWN, AnswerKind, Answers, Victim, join_answers
from fedzo.errors import ConfigError
from fedzo.records.sealed_line import is_sealed, seal, unseal
from fedzo.records.storage import cut_to_lines, storing, write_whole

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}
_FIELDS = {"answers_of", "tells", "image", "label", "scores", "dtype"}


class Remembered:
    """A victim whose answers are remembered; orders, which depend on the request, are not taken.

    replayed: images answered from the journal of an earlier run.
    """

    def __init__(self, victim: Victim, journal: Path | None = None, *, name: str = "") -> None:
        if victim.tells == "order":
            raise ConfigError("an order depends on the whole request and cannot be remembered")
        self._victim, self._journal = victim, journal
        self._known: dict[str, Answers] = {}
        self._earlier: dict[str, Answers] = _read(journal, name, victim.tells) if journal else {}
        if journal and not journal.exists():
            with storing(journal):
                journal.parent.mkdir(parents=True, exist_ok=True)
                first = json.dumps({"answers_of": name, "tells": victim.tells})
                write_whole(journal, seal(first) + "\n")
        recall(victim, len(self._earlier))
        self._shared: dict[str, Answers] | None = None
        self._refused = Answers(torch.tensor([UNKNOWN]), None, torch.tensor([False]))
        self.replayed = 0

    @property
    def tells(self) -> AnswerKind:
        return self._victim.tells

    def begin(self) -> None:
        """Begin an attack that is counted as if none had been before it.

        It knows what was known when the first began; all else is as in the journal of an earlier
        run.
        """
        if self._shared is None:
            self._shared = dict(self._known)
        self._earlier.update(self._known)
        self._known = dict(self._shared)

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        return self._asked(images, [_key(image) for image in images])

    def again(self, images: Float[Tensor, "b c h w"], number: int) -> Answers:
        """Ask images that were asked before anew, for the `number`-th time; that is remembered."""
        return self._asked(images, [f"{_key(image)}-{number}" for image in images])

    def _asked(self, images: Float[Tensor, "b c h w"], keys: list[str]) -> Answers:
        paid = torch.tensor([self._is_first(keys, i) for i in range(len(keys))])
        first = paid.nonzero().flatten()
        told = torch.tensor([keys[i] in self._earlier for i in first.tolist()], dtype=torch.bool)
        self._replay(keys, images, first[told])
        new = first[~told]
        for part in new.split(at_once(self._victim) or len(new)) if len(new) else ():
            self._learn([keys[i] for i in part.tolist()], self._victim.ask(images[part]))
        found = [self._known.get(key, self._refused) for key in keys]
        together = join_answers(found)
        return replace(together, paid=paid & together.answered)

    def _is_first(self, keys: list[str], i: int) -> bool:
        return keys[i] not in self._known and keys[i] not in keys[:i]

    def _replay(
        self, keys: list[str], images: Float[Tensor, "b c h w"], places: Int[Tensor, " p"]
    ) -> None:
        """Take answers from the journal."""
        self.replayed += len(places)
        for i in places.tolist():
            self._known[keys[i]] = self._earlier[keys[i]]
        if len(places):
            replay(self._victim, images[places])

    def _learn(self, keys: list[str], answers: Answers) -> None:
        """Remember what was answered; what was refused may be asked again."""
        lines = []
        for i, key in enumerate(keys):
            row = _row(answers, i)
            if bool(row.answered[0]):
                self._known[key] = row
                lines.append(_line(key, row))
            else:
                self._refused = row
        if self._journal and lines:
            with storing(self._journal), self._journal.open("a") as file:
                file.write("".join(lines))


def _row(answers: Answers, i: int) -> Answers:
    scores = None if answers.scores is None else answers.scores[i : i + 1]
    return Answers(answers.labels[i : i + 1], scores, answers.answered[i : i + 1])


def _key(image: Float[Tensor, "c h w"]) -> str:
    return hashlib.blake2b(image.float().numpy().tobytes(), digest_size=16).hexdigest()


def _line(key: str, row: Answers) -> str:
    scores = None if row.scores is None else row.scores[0].tolist()
    entry = {"image": key, "label": int(row.labels[0]), "scores": scores}
    if row.scores is not None and row.scores.dtype != torch.float32:
        entry["dtype"] = str(row.scores.dtype).removeprefix("torch.")
    return seal(json.dumps(entry)) + "\n"


def _read(journal: Path, name: str, tells: AnswerKind) -> dict[str, Answers]:
    """Return the answers in a journal; a last line that was cut off is taken out of the file.

    Raises ConfigError for a journal of another victim, or one that told something else, and for a
    damaged one; such files are left as they are.
    """
    if not journal.exists():
        return {}
    try:
        raw = journal.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        first, *rest = _entries(whole.decode().split("\n")[:-1])
        owner, told = first["answers_of"], first.get("tells", tells)
        known = {entry["image"]: _entry(entry) for entry in rest}
    except (
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        RecursionError,
        AttributeError,
    ) as error:
        raise ConfigError(
            f"{journal} is damaged ({error}); remove it to attack from the beginning"
        ) from error
    if owner != name:
        raise ConfigError(
            f"{journal} holds answers of {owner!r}, not of {name!r}; give another --out"
        )
    if told != tells or any((row.scores is None) != (tells == "labels") for row in known.values()):
        raise ConfigError(
            f"{journal} holds other answers than the {tells} that the victim tells now; ask as"
            " before, or give another --out"
        )
    with storing(journal):
        cut_to_lines(journal)
    return known


def _entries(lines: list[str]) -> list[dict[str, Any]]:
    """Return what the lines hold; raises ValueError for damage, a damaged checksum's included.

    Journals of versions before there were checksums have none.
    """
    if len({is_sealed(line) for line in lines}) > 1:
        raise ValueError("some lines have a checksum and others have none")
    entries: list[dict[str, Any]] = [json.loads(unseal(line)) for line in lines]
    for entry in entries:
        unknown = entry.keys() - _FIELDS
        if unknown:
            raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    return entries


def _entry(entry: dict[str, Any]) -> Answers:
    scores = entry["scores"]
    dtype = _DTYPES[entry.get("dtype", "float32")]
    table = None if scores is None else torch.tensor([scores], dtype=dtype)
    return Answers(torch.tensor([int(entry["label"])]), table, torch.tensor([True]))
