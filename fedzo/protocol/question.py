"""Questions: what a strategy asks of clients, a frozen dataclass each.

A field is a tensor that everybody gets, or, made with `each()`, one whose row i is for the i-th
client; a dataclass of settings; or a scalar. Fields made with `unsent()` stay at the server. A
question says what its answer looks like (`shapes`), what it costs (`cost`), and what the numbers in
an answer stand for (`along`), so nobody else needs to know which question it is.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from fedzo.config import Scalar, checked, field_names
from fedzo.errors import ConfigError, MessageError
from fedzo.estimation.bases import Along
from fedzo.objectives.oracle import BoundsPolicy, NonFinitePolicy

Shapes = Sequence[tuple[int, ...]]
"""Those that a tensor of one client's answer may have."""
_OWN, _UNSENT = "own", "unsent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What clients say: tensors [n, ...], None where one is not told."""

    def tensors(self) -> dict[str, Tensor]:
        """Return what is told, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


CATEGORIES = ("train", "query", "evaluate")
"""What messages of Flower are for."""
AnswerT = TypeVar("AnswerT", bound=Answer)


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer takes of one client whose budget is large enough.

    queries, gradients: as the oracle counts them. floats: numbers that points and gradients hold at
    once.
    """

    queries: int = 0
    gradients: int = 0
    floats: int = 1


@dataclass(frozen=True, slots=True)
class Policies:
    """What the oracle does with points outside the box and with values that are not finite.

    can_skip: whether a setting of the question says the latter.
    """

    non_finite: NonFinitePolicy = "fail"
    out_of_bounds: BoundsPolicy = "clip"
    can_skip: bool = False


@dataclass(frozen=True, slots=True)
class WorkedOn:
    """Whose objectives are asked for an answer, and at which position is who asks each."""

    clients: Sequence[int]
    owners: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Generic[AnswerT]):
    """One question; subclasses add fields, and say what follows from them."""

    kind: ClassVar[str]
    """Its name in messages and logs: "train.<what>", "query.<what>" or "evaluate"."""
    answer: ClassVar[type[Answer]]
    judges: ClassVar[bool] = False
    """Whether it only asks how good an x is: it is left alone by liars, and moves nothing."""
    introduces: ClassVar[bool] = False
    """Whether it only asks who a client is, such as how many records it has."""

    vectors_up: ClassVar[tuple[str, ...]] = ()
    """Tensors of an answer that may be compressed: vectors of x's space."""
    replaced: ClassVar[tuple[str, ...]] = ()
    """Those of them that take the place of the last ones instead of adding to them: error feedback
    would put into each what another has lost."""
    vectors_down: ClassVar[tuple[str, ...]] = ()
    """Tensors [d] for all that may come as their changes since the last time."""

    def __init_subclass__(cls, **more: Any) -> None:
        super(Question, cls).__init_subclass__(**more)
        kind = cls.__dict__.get("kind", "query")
        if isinstance(kind, str) and kind.partition(".")[0] not in CATEGORIES:
            raise ConfigError(
                f"{cls.__name__}.kind={kind!r} must be one of {', '.join(CATEGORIES)}, with a name"
                " after a point, such as query.norms: Flower sorts messages by these"
            )

    def shapes(self) -> Mapping[str, Shapes]:
        """Return the shapes that each tensor of a client's answer may have."""
        return {}

    def cost(self) -> Cost:
        """Return what an answer takes of a client."""
        return Cost(floats=held(self.widest()))

    @property
    def policies(self) -> Policies:
        """What the oracle does in this exchange."""
        return Policies()

    @property
    def moves(self) -> bool:
        """Whether x may follow its answers."""
        return not (self.judges or self.introduces)

    @property
    def is_free(self) -> bool:
        """Whether an answer without queries and gradients is no sign of an empty budget."""
        return False

    def works_on(self, client_ids: Sequence[int]) -> WorkedOn | None:
        """Return whose objectives these clients ask; None where each asks its own."""
        return None

    def along(self, name: str, *, seed: int, problem: int) -> Along | None:
        """Return the directions of a tensor that is slopes along directions of each client's own.

        None where clients' numbers are comparable as they are.
        """
        return None

    def told_by_liars(
        self, client_ids: Sequence[int], liars: frozenset[int], *, opposite: bool
    ) -> "Question[AnswerT] | None":
        """Return the question as liars among peers make it; None where the server asks alone."""
        return None

    def select(self, rows: Tensor) -> "Question[AnswerT]":
        """Return the part that concerns the clients at these positions."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get(_OWN)}
        kept = {name: tensor[rows] for name, tensor in own.items() if tensor is not None}
        return replace(self, **kept) if kept else self

    def to(self, device: torch.device) -> "Question[AnswerT]":
        """Return the question with its tensors on a device."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})

    def widest(self) -> int:
        """Return the numbers in the largest tensor that one client gets, 1 where there is none."""
        parts = take_apart(self)
        tensors = [*parts.shared.values(), *(t[:1] for t in parts.own.values())]
        return max([tensor.numel() for tensor in tensors], default=1)


def each(default: Any = MISSING) -> Any:
    """Return a field for a tensor of which each client gets its row."""
    return field(default=default, metadata={_OWN: True})


def unsent(default: Any) -> Any:
    """Return a field for what only the server needs to know."""
    return field(default=default, metadata={_UNSENT: True})


def held(dim: int, num_directions: int = 1) -> int:
    """Return the numbers of a client's points: both ends of each direction, and the middle."""
    return max(1, dim) * (2 * num_directions + 1)


@dataclass(frozen=True, slots=True)
class Parts:
    """A question in pieces: tensors for all, rows of tensors, scalars by name.

    Scalars that are what they are by default are left out, but all settings are named, except those
    that the driver adds to every exchange.
    """

    shared: Mapping[str, Tensor]
    own: Mapping[str, Tensor]
    scalars: Mapping[str, Scalar]


def take_apart(question: Question[Any]) -> Parts:
    """Return the pieces of which the question can be put together again."""
    shared: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    scalars: dict[str, Scalar] = {}
    kind: Any = type(question)
    for name, default, own in _pieces(kind):
        value = getattr(question, name)
        if value is None:
            continue
        if isinstance(value, Tensor):
            (rows if own else shared)[name] = value
        elif is_dataclass(value):
            settings: Any = type(value)
            scalars.update({told: getattr(value, told) for told in _told(settings)})
        elif value != default:
            scalars[name] = value
    return Parts(shared, rows, scalars)


@functools.cache
def _pieces(cls: Any) -> list[tuple[str, Any, bool]]:
    """Return name, default, and whether each client gets its row, of every field that travels."""
    sent = [entry for entry in fields(cls) if not entry.metadata.get(_UNSENT)]
    return [(entry.name, entry.default, bool(entry.metadata.get(_OWN))) for entry in sent]


@functools.cache
def _told(settings: Any) -> list[str]:
    """Return the names of the settings that travel with a question."""
    return [name for name in field_names(settings) if name not in _OF_THE_EXCHANGE]


def put_together(cls: type[Question[Any]], parts: Parts) -> Question[Any]:
    """Return the question of these pieces.

    Raises MessageError for pieces that are missing, too many, or of another type.
    """
    left = {**parts.shared, **parts.own, **parts.scalars}
    try:
        values = {name: value for name, value in _values(cls, parts, left)}
        if left:
            raise MessageError(f"{cls.kind} has no {sorted(left)[0]!r}")
        return cls(**values)
    except (ConfigError, TypeError) as error:
        raise MessageError(f"{cls.kind}: {error}") from error


def _values(cls: type[Question[Any]], parts: Parts, left: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the fields that the pieces give, and take them off what is left."""
    found: list[tuple[str, Any]] = []
    asked: Any = cls
    for name, hint, place in _sent_fields(asked):
        if is_dataclass(hint):
            names = [f.name for f in fields(hint)]
            given = {n: left.pop(n) for n in names if n in left}
            found.append((name, hint(**given)))  # type: ignore[operator]
        elif name in left:
            value = left.pop(name)
            if name not in getattr(parts, place):
                raise MessageError(f"{cls.kind}: {name} does not come as {_PLACES[place]}")
            found.append((name, checked(name, value, hint) if place == "scalars" else value))
    return found


_OF_THE_EXCHANGE = ("on_failure",)
"""Settings that travel with the exchange, whatever is asked."""
_PLACES = {"shared": "a tensor for all", "own": "a tensor for one client", "scalars": "a scalar"}


@functools.cache
def _sent_fields(cls: Any) -> list[tuple[str, Any, str]]:
    """Return name, type and place among the parts of every field that travels."""
    hints = get_type_hints(cls)
    return [
        (f.name, hints[f.name], _place(hints[f.name], bool(f.metadata.get(_OWN))))
        for f in fields(cls)
        if not f.metadata.get(_UNSENT)
    ]


def _place(hint: Any, own: bool) -> str:
    scalar = hint in get_args(Scalar) or get_origin(hint) is Literal
    return "scalars" if scalar else "own" if own else "shared"


def no_numbers(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return what clients say whose budget is too small: [n, 0]."""
    return like.new_empty(len(like), 0, dtype=dtype)
