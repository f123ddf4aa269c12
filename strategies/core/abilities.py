"""What a state can do, by a Protocol of strategies.core.rounds: looked up once for its type.

isinstance with such a Protocol takes some ten microseconds, which every round paid five times.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeGuard, TypeVar, cast

AbilityT = TypeVar("AbilityT")


def can(state: Any, ability: Callable[..., AbilityT]) -> TypeGuard[AbilityT]:
    """Return what isinstance(state, ability) does."""
    kind: Any = type(state)
    told = _told_by_type(kind, ability)
    return isinstance(state, cast(type, ability)) if told is None else told


@lru_cache(maxsize=512)
def _told_by_type(kind: Any, ability: Any) -> bool | None:
    """Return whether objects of a type have all that a Protocol names; None where it differs.

    Objects without slots may have more than their type says.
    """
    wanted = [name for name in vars(ability) if not name.startswith("_")]
    if all(getattr(kind, name, None) is not None for name in wanted):
        return True
    has_slots = kind.__dictoffset__ == 0 and not hasattr(kind, "__getattr__")
    return False if has_slots else None
