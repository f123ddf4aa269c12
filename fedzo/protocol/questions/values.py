"""The objective's value at given points.

    Values, Judge:   x [q, d]  ->  values [n, q], or [n, 0] where the budget is too small

Cost: q queries a client. Sent: q d floats down, q up, in float64 whatever the type of x.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from fedzo.config import check_types
from fedzo.protocol.question import Answer, Cost, Question, Shapes, held


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesConfig:
    """Settings of strategies whose clients only answer values.

    on_failure: whether a client "fail"s where its code raises, or is asked again ("retry").
    """

    on_failure: Literal["fail", "retry"] = "fail"

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesTold(Answer):
    """Values at the points asked."""

    values: Float[Tensor, "n q"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Values(Question[ValuesTold]):
    """Values at points that all clients are asked at."""

    kind: ClassVar[str] = "query.value"
    answer: ClassVar[type[Answer]] = ValuesTold

    x: Float[Tensor, "q d"]

    def shapes(self) -> Mapping[str, Shapes]:
        return {"values": [(len(self.x),), (0,)]}

    def cost(self) -> Cost:
        return Cost(queries=len(self.x), floats=held(self.x.numel()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge(Values):
    """The same for the record alone, whoever else is asked for it."""

    kind: ClassVar[str] = "evaluate"
    judges: ClassVar[bool] = True
