"""Layers of a module that others take the place of."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import nn

from fedzo.errors import ConfigError
from fedzo.estimation.view import matches

Layer = TypeVar("Layer", bound=nn.Module)


def replace_(
    module: nn.Module,
    kinds: tuple[type[Layer], ...],
    make: Callable[[str, Layer], nn.Module],
    *,
    patterns: Sequence[str] = ("*",),
    kept: Sequence[str] = (),
) -> None:
    """Put what is made of their names and themselves in the place of a module's layers.

    patterns: of names that are replaced; kept: of names that are not. A layer in several places is
    replaced once, in all of them. Raises ConfigError where there is none. An error of `make` leaves
    the module as it was.
    """
    made: dict[nn.Module, nn.Module] = {}
    places: list[tuple[nn.Module, str, nn.Module]] = []
    for place, parent in module.named_modules(remove_duplicate=False):
        for name, child in parent._modules.items():
            whole = f"{place}.{name}" if place else name
            if isinstance(child, kinds) and matches(whole, patterns) and not matches(whole, kept):
                if child not in made:
                    made[child] = make(whole, child)
                places.append((parent, name, child))
    for parent, name, child in places:
        parent._modules[name] = made[child]
    if not made:
        named = "" if patterns == ("*",) else f" whose name matches {' or '.join(patterns)}"
        beside = f" beside {', '.join(kept)}" if kept else ""
        layers = " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError(f"{type(module).__name__} has no {layers} layer{named}{beside}")


def require_matches(module: nn.Module, patterns: Sequence[str]) -> None:
    """Raise ConfigError for a pattern that no part or parameter of a module is named by."""
    names = [name for name, _ in [*module.named_modules(), *module.named_parameters()] if name]
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in names):
            raise ConfigError(
                f"{pattern!r} matches no name of {type(module).__name__}, such as"
                f" {', '.join(names[:4])}"
            )
