"""A torch optimizer that only asks for the loss.

    optimizer = fedzo.ZerothOrder(model, lr=1e-4)
    for x, y in batches:
        loss = optimizer.step(lambda: F.cross_entropy(model(x), y))

A method (fedzo.finetuning.methods) says along which directions the loss is asked and what is made
of its values; MeZO by default. The closure is called without gradients, several times a step, while
operations read the parameters as moved (fedzo.estimation.shifted_reads): x is written once, by the
step. Memory above a forward pass: about the largest tensor, and what the method says. No `.grad` is
made unless the method uses an optimizer of torch, and those that are there stay.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from fedzo.config import Scalar, as_seed, require
from fedzo.errors import CheckpointError, ConfigError, ObjectiveError
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.view import View
from fedzo.finetuning.asking import Asked, Told
from fedzo.finetuning.log import Log, Origin, fingerprint
from fedzo.finetuning.methods.method import Method
from fedzo.finetuning.methods.table import method_of, name_of
from fedzo.finetuning.parallel import Parallel
from fedzo.finetuning.resolution import warn_of_unseen
from fedzo.finetuning.same_draws import same_draws
from fedzo.finetuning.variance_reduced import VarianceReduced

Closure = Callable[[], Tensor | float]


@dataclass(slots=True)
class Spent:
    """What has been asked: passes forward, and passes that carry a tangent as well.

    on_all: passes forward on all examples, of those.
    """

    forwards: int = 0
    on_all: int = 0
    tangents: int = 0


class ZerothOrder(torch.optim.Optimizer):
    """Trains a module by values of its loss.

    module: its trained parameters are x; or an iterable of parameters. lr: of a step, which
    torch's schedulers may change. method: a name of fedzo.finetuning.methods.table, or an instance
    of a class there, or of your own. settings: of a method by name, such as {"rank": 4}. view:
    patterns of names, of which only those parameters move (`encoder.layer.5` stands for all in it).
    seed: of all directions. stacked: small modules are asked at all places of a step at once
    (fedzo.estimation.stacked_asks), which rounds differently. parallel: the processes that train
    this module together, each of which takes all steps (fedzo.finetuning.parallel).

    Modules are asked in evaluation mode, so buffers stay and nothing is dropped out. Of parameters
    alone nobody can see the module: it runs in the mode that it is in, and buffers of batch norm
    move with every pass. All passes of a step draw the same from torch's generators; what other
    threads draw there meanwhile, they may draw again. Raises ConfigError where nothing is to be
    trained, for numbers that are complex or not there (meta), and where processes begin at other
    parameters.
    """

    def __init__(
        self,
        module: nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]],
        lr: float,
        *,
        method: str | Method | type[Method] = "mezo",
        settings: Mapping[str, Scalar] | None = None,
        view: str | Sequence[str] = (),
        seed: int = 0,
        stacked: bool = False,
        parallel: Parallel | None = None,
    ) -> None:
        number = isinstance(lr, Real) or (isinstance(lr, Tensor) and lr.numel() == 1)
        require(number and 0 <= lr < math.inf, "lr", repr(lr), "a number, at least 0 and finite")
        self.module = module if isinstance(module, nn.Module) else None
        whole = View.of_module(module) if isinstance(module, nn.Module) else _named(module)
        patterns = [view] if isinstance(view, str) else list(view)
        given = bool(patterns) or isinstance(view, tuple)
        require(given, "view", view, "a pattern of names, or left out for all parameters")
        self.view = whole.select(*patterns) if patterns else whole
        _require_numbers(self.view)
        seed = as_seed(seed)
        self.method, self.seed = method_of(method, settings), seed
        if self.method.asks_values:
            warn_of_unseen(self.view, self.method.mu)
        self.spent, self._stacked, self._parallel = Spent(), stacked, parallel
        self._recipe = self.method.recipe(self.view, seed)
        super().__init__(list(self.view.tensors), {"lr": lr})
        self.log = Log(
            Origin(
                method=name_of(self.method),
                settings=asdict(self.method),
                seed=seed,
                names=list(self.view.names),
                sizes=[tensor.numel() for tensor in self.view.tensors],
                start=fingerprint(self.view),
            ),
            group=self.param_groups[0],
        )
        if parallel is not None:
            parallel.require_same(repr((self.log.origin, lr, stacked)))

    @property
    def steps(self) -> int:
        """How many steps have been taken."""
        return len(self.log)

    def step(self, closure: Closure, *, full: Closure | None = None) -> float:  # type: ignore[override]
        """Take a step and return the loss, as far as the step has seen it; NaN where it was not.

        closure: the loss on the batch. full: on all examples, for methods that ask for it. A step
        without any finite value leaves x as it is. An exception of the closure leaves all as it
        was before the step.
        """
        lr = float(self.param_groups[0]["lr"])
        require(math.isfinite(lr), "lr", lr, "finite; see what has set it in param_groups")
        _require_trained(self.view)
        again = same_draws(self.view)
        own = InPlace(self.view, _alike(closure, again), self.module, self._stacked)
        place = Asked(own, self._parallel)
        if isinstance(self._recipe.finder, VarianceReduced):
            self._recipe.finder.full = None if full is None else _alike(full, again)
        with _evaluating(self.module):
            loss = self._go(place, lr)
        forwards = len(place.told) - 2 * place.with_tangents
        self.spent.forwards += forwards
        self.spent.on_all += forwards if place.asked_another else 0
        self.spent.tangents += place.with_tangents
        self.log.add(lr, place.told)
        if self._parallel is not None and self.steps == 1:
            self._parallel.warn_of_idle()
        return loss

    def replay(self, log: Log) -> None:
        """Take the steps of a log, without asking: to the same parameters, bit for bit.

        The learning rate of the next step is then what it was when the log was saved, which a
        scheduler may have set: it goes on after its own load_state_dict.

        Raises CheckpointError where the log belongs to another method, seed or start, or does not
        begin with the steps that have been taken.
        """
        own, told = self.log.origin, log.origin
        for what in ("method", "settings", "seed", "names", "sizes", "start"):
            if getattr(own, what) != getattr(told, what):
                raise CheckpointError(
                    f"the log's {what} ({_short(getattr(told, what))}) is not the optimizer's"
                    f" ({_short(getattr(own, what))}); replay it from the start, with the module as"
                    " it was"
                )
        if not log.begins_with(self.log):
            raise CheckpointError(
                f"the log does not begin with the {self.steps} steps that were taken; replay it"
                " with the module as it was at the start"
            )
        for lr, answers in list(log)[self.steps :]:
            self._go(Told(self.view, answers), lr)
            self.log.add(lr, list(answers))
        if "lr" in log.group:
            self.param_groups[0]["lr"] = log.group["lr"]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the one group of all tensors; raises ConfigError for a second one."""
        if self.param_groups:
            raise ConfigError(
                "ZerothOrder has one group of parameters, for all numbers of a direction move"
                " together; make another optimizer with view=... for another lr"
            )
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """Raise ConfigError: the log is the state, and small."""
        raise ConfigError(
            "the state of ZerothOrder is its log: save optimizer.log.save(path), and continue with"
            " replay(Log.load(path)) on the module as it was at the start"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Raise ConfigError, for copies of any kind: see state_dict."""
        return self.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raise ConfigError: see state_dict."""
        self.state_dict()

    def _go(self, place: InPlace, lr: float) -> float:
        recipe = self._recipe
        found = recipe.finder.find(place, self.steps)
        if bool(found.estimate.coefficients.isfinite().all()) and len(found.estimate.keys):
            factor = recipe.acceptance.factor(place, found.estimate, lr)
            if factor:
                recipe.mover.move(self.view, found.estimate, lr * factor)
                if recipe.after is not None:
                    recipe.after(self.view)
        return found.loss


@contextmanager
def _evaluating(module: nn.Module | None) -> Iterator[None]:
    """Put a module into evaluation mode for a while."""
    modes = {part: part.training for part in module.modules()} if module is not None else {}
    try:
        for part in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _named(parameters: Iterable[Tensor] | Iterable[tuple[str, Tensor]]) -> View:
    """Return parameters by their names, or by numbers; those that are frozen have no part."""
    given = list(parameters)
    require(bool(given), "module", "no parameters", "a module, or parameters to be trained")
    pairs = [one if isinstance(one, tuple) else (str(i), one) for i, one in enumerate(given)]
    named: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, p in pairs:
        if not isinstance(p, Tensor):
            raise ConfigError(
                f"ZerothOrder trains a module or parameters, not {type(p).__name__}; it has one"
                " group of parameters, so make an optimizer with view=... for each lr"
            )
        if not p.requires_grad or id(p) in taken:
            continue
        if name in named:
            raise ConfigError(f"two parameters are named {name!r}; give names that differ, or none")
        named[name] = p
        taken.add(id(p))
    return View.of_named(named, "given parameters")


def _require_numbers(view: View) -> None:
    """Raise ConfigError for parameters that cannot be moved along real directions."""
    for name, tensor in zip(view.names, view.tensors, strict=True):
        require(not tensor.is_complex(), f"parameter {name!r}", tensor.dtype, "of real numbers")
        require(
            not tensor.is_inference(),
            f"parameter {name!r}",
            "made in inference mode",
            "one that can be written; make the module outside of torch.inference_mode",
        )
        require(
            not tensor.is_meta,
            f"parameter {name!r}",
            "on meta",
            "on a device, with numbers; make the module there, or call to_empty and set it",
        )


def _require_trained(view: View) -> None:
    """Raise ConfigError for parameters that were frozen after the optimizer was made."""
    for name, tensor in zip(view.names, view.tensors, strict=True):
        require(
            tensor.requires_grad,
            f"parameter {name!r}",
            "frozen",
            "trained, as when the optimizer was made; make another one, whose log begins here",
        )


def _alike(closure: Closure, again: Callable[[], None]) -> Callable[[], Tensor]:
    """Return a closure that draws as it did before, and returns a tensor with one number."""

    def asked() -> Tensor:
        again()
        try:
            value = closure()
        except RuntimeError as error:
            if "does not require grad" in str(error):
                why = "ZerothOrder asks without gradients: leave out loss.backward()"
                error.args = (f"{error}; {why}",)
            raise
        if isinstance(value, Tensor):
            return value
        try:
            return torch.tensor(float(value), dtype=torch.float64)
        except OverflowError:
            return torch.tensor(math.inf)
        except (TypeError, ValueError) as error:
            raise ObjectiveError(
                f"the closure returned {value!r:.60}; it must return the loss, a tensor or a number"
            ) from error

    return asked


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
