"""The attackers by name, and which suits what a victim tells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, get_args

from fedzo.attacks.attacker import Attacker
from fedzo.attacks.attackers.cgba import Cgba
from fedzo.attacks.attackers.edge import Edge
from fedzo.attacks.attackers.estimated import EstimatedDescent, RankSGD
from fedzo.attacks.attackers.hopskipjump import HopSkipJump
from fedzo.attacks.attackers.simba import SimBA
from fedzo.attacks.attackers.square import Square
from fedzo.attacks.attackers.stripes import Stripes
from fedzo.attacks.attackers.surrogate import Surrogate
from fedzo.attacks.attackers.thompson import Thompson
from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.goal import LossName
from fedzo.attacks.names import COORDINATES, CoordinateName, Norm
from fedzo.attacks.victims.victim import AnswerKind
from fedzo.catalog import ATTACKER_LINES
from fedzo.config import Scalar, build_config, default_values, unknown_key
from fedzo.errors import ConfigError
from fedzo.used_with import require_effective
from fedzo.user_code import is_reference, load_kept

SCORES: tuple[AnswerKind, ...] = ("logits", "probabilities")
LABELS: tuple[AnswerKind, ...] = (*SCORES, "labels")
ORDER: tuple[AnswerKind, ...] = (*SCORES, "order")


@dataclass(frozen=True, slots=True)
class AttackerEntry:
    """An attacker's config, and its defaults over the config's.

    needs: the victims it can attack. line: what it is, in one line. coordinates: in which it can
    search; others would change nothing.
    """

    config: type[Attacker]
    needs: tuple[AnswerKind, ...]
    line: str
    coordinates: tuple[CoordinateName, ...] = COORDINATES
    defaults: Mapping[str, Scalar] = field(default_factory=dict)


_PIXELS: tuple[CoordinateName, ...] = ("pixels",)
_BASES: tuple[CoordinateName, ...] = ("pixels", "waves", "blocks")
ATTACKERS: dict[str, AttackerEntry] = {
    "thompson": AttackerEntry(Thompson, SCORES, ATTACKER_LINES["thompson"], _PIXELS),
    "square": AttackerEntry(Square, SCORES, ATTACKER_LINES["square"], _PIXELS),
    "stripes": AttackerEntry(Stripes, SCORES, ATTACKER_LINES["stripes"], _PIXELS),
    "nes": AttackerEntry(EstimatedDescent, SCORES, ATTACKER_LINES["nes"]),
    "zo": AttackerEntry(
        EstimatedDescent,
        SCORES,
        ATTACKER_LINES["zo"],
        defaults={"estimator": "forward", "optimizer": "adam", "momentum": 0.9},
    ),
    "simba": AttackerEntry(SimBA, SCORES, ATTACKER_LINES["simba"], _BASES),
    "fzoos": AttackerEntry(Surrogate, SCORES, ATTACKER_LINES["fzoos"]),
    "edge": AttackerEntry(Edge, LABELS, ATTACKER_LINES["edge"], _PIXELS),
    "hopskipjump": AttackerEntry(HopSkipJump, LABELS, ATTACKER_LINES["hopskipjump"], _BASES),
    "cgba": AttackerEntry(Cgba, LABELS, ATTACKER_LINES["cgba"], _PIXELS),
    "rank": AttackerEntry(RankSGD, ORDER, ATTACKER_LINES["rank"]),
}
_HINT: dict[AnswerKind, str] = {"labels": ", or loss boundary"}
_DEFAULTS: dict[AnswerKind, str] = {"labels": "edge", "order": "rank"}


_LARGE = 64
"""Pixels of a side beyond which an image is a photograph."""


def default_attacker(
    tells: AnswerKind, loss: LossName = "margin", *, norm: Norm = "linf", side: int = 0
) -> str:
    """Return the name of the best attacker for what a victim tells of images with such a side."""
    photograph = side > _LARGE and norm in ("linf", "l2") and loss != "boundary"
    if tells in _DEFAULTS and loss != "boundary":
        by_circles = photograph and norm == "l2" and tells == "labels"
        return "cgba" if by_circles else _DEFAULTS[tells]
    return "stripes" if photograph else "thompson"


def attacker_entry(name: str) -> AttackerEntry:
    """Return what a name of the table, or a reference such as mine.py:Mine, stands for.

    A class of the user's says by its attributes `needs` and `coordinates` what it can attack, and
    in which coordinates it searches: by default victims that tell scores, and pixels. Raises
    ConfigError for an unknown name, and for a class that is no attacker.
    """
    if not is_reference(name):
        if name not in ATTACKERS:
            raise unknown_key(name, ATTACKERS, what="attacker")
        return ATTACKERS[name]
    found: Any = load_kept(name, what="attacker")
    wanted = isinstance(found, type) and hasattr(found, "search") and is_dataclass(found)
    if not wanted:
        raise ConfigError(
            f"attacker {name!r} is {found!r:.60}; name a dataclass of its settings with a method"
            " search (`fedzo new attacker NAME` writes one)"
        )
    needs, where = getattr(found, "needs", SCORES), getattr(found, "coordinates", _PIXELS)
    _check_names(name, "needs", needs, get_args(AnswerKind))
    _check_names(name, "coordinates", where, COORDINATES)
    return AttackerEntry(found, needs, found.__doc__ or "", where)


def _check_names(name: str, attribute: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    wrong = [each for each in given if each not in allowed]
    if wrong or isinstance(given, str):
        raise ConfigError(
            f"attacker {name}: {attribute}={given!r} must be a tuple of {', '.join(allowed)}"
        )


def check_coordinates(name: str, coordinates: Coordinates) -> None:
    """Raise ConfigError for coordinates that an attacker does not search in."""
    entry = attacker_entry(name)
    if coordinates.name not in entry.coordinates:
        able = [n for n, entry in ATTACKERS.items() if coordinates.name in entry.coordinates]
        raise ConfigError(
            f"attacker {name} does not search in {coordinates.name}, but in"
            f" {', '.join(entry.coordinates)}; use attacker {' or '.join(able)}"
        )


def make_attacker(
    name: str,
    tells: AnswerKind,
    settings: Mapping[str, Scalar],
    *,
    loss: LossName = "margin",
    coordinates: CoordinateName = "pixels",
    norm: Norm | None = None,
) -> Attacker:
    """Return an attacker with its settings over the entry's.

    With loss boundary attackers by scores need labels alone. Raises ConfigError for an unknown name
    or setting, one without effect, and for a victim that tells too little.
    """
    entry = attacker_entry(name)
    if loss == "boundary":
        if entry.needs != SCORES:
            raise ConfigError(f"attacker {name} finds the boundary itself; leave loss boundary out")
        if tells == "order":
            raise ConfigError("loss boundary needs a victim that tells labels, not an order alone")
    elif tells not in entry.needs:
        able = [other for other, rival in ATTACKERS.items() if tells in rival.needs]
        raise ConfigError(
            f"attacker {name} needs a victim that tells {' or '.join(entry.needs)}, and this one"
            f" tells {tells}; use {' or '.join(able)}{_HINT.get(tells, '')}"
        )
    if loss == "cross_entropy" and tells in ("labels", "order"):
        raise ConfigError(
            f"loss={loss} has no effect on a victim that tells {tells}; leave it out, or use it"
            " with a victim that tells scores"
        )
    made = build_config(entry.config, {**entry.defaults, **settings}, section="attacker")
    usual = {**default_values(entry.config), **entry.defaults}
    beside = {"attack.coordinates": coordinates, **({"attack.norm": norm} if norm else {})}
    require_effective(made, usual, section="attacker", beside=beside)
    return made
