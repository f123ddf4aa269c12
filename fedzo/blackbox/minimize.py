"""Minimize a function in one call."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, SupportsFloat

import torch

from fedzo.blackbox.charged import FREE, Charged
from fedzo.blackbox.constraints import as_constraints
from fedzo.blackbox.evaluate import Workers, make_evaluator
from fedzo.blackbox.optimizer import Optimizer
from fedzo.blackbox.result import Result
from fedzo.blackbox.space import make_space
from fedzo.blackbox.told import require_whole
from fedzo.errors import ConfigError, RunError
from fedzo.objectives.objective import Objective

ENOUGH_FAILURES = 10
"""Evaluations, all failed, after which a function is taken for broken."""


def minimize(
    f: Callable[[Any], Any] | Objective,
    x0: Any = None,
    bounds: Any = None,
    *,
    budget: int,
    method: str = "auto",
    seed: int = 0,
    step: float | None = None,
    target: SupportsFloat | None = None,
    parallel: int = 1,
    workers: int = 1,
    run_in: Workers = "threads",
    batched: bool = False,
    constraints: Sequence[Callable[[Any], Any]] = (),
    callback: Callable[[Result], Any] | None = None,
) -> Result:
    """Return the lowest point that `budget` evaluations of a function find.

    f: a function of a point, an array [d] or what typed variables make (fedzo.Optimizer says what
    x0, bounds, method, budget, seed, step and parallel are), or an objective of fedzo, whose box
    and start are taken where bounds and x0 are missing. budget: how often f is called at most.
    A point at which f raises or returns no finite number has failed; the search goes on. target:
    the value at which it ends earlier. workers: how many points are evaluated at a time, in
    threads, in processes (forked where the system can) or on ray (`run_in`); the points are the
    same for any of them. batched: f takes all points of a batch at once and returns their values.
    constraints: functions of a point, a number or an array that is at most 0 where the point is
    allowed; f is not called elsewhere, and after 20 such points an evaluation the search ends.
    Where all variables are whole numbers and choices, f is called once at a point. callback: called
    with the result so far after every batch; the search ends where it returns True. A search that
    is interrupted leaves what it has found in the `result` of the KeyboardInterrupt.

    Raises ConfigError for bad arguments, RunError when the first ten evaluations all fail.

        result = minimize(lambda x: ((x - 1) ** 2).sum(), x0=[0.0, 0.0], budget=100)
    """
    if isinstance(f, Objective):
        x0 = getattr(f, "initial_x", None) if x0 is None else x0
        bounds = _box_of(f) if bounds is None else bounds
    if not callable(f) and not isinstance(f, Objective):
        raise ConfigError(f"f={f!r:.60} is no function; give a function of a point")
    require_whole("budget", budget, 0)
    enough = _enough(target)
    if callback is not None and not callable(callback):
        raise ConfigError(f"callback={callback!r:.60} must be a function of a result")
    limits, space = as_constraints(constraints), make_space(x0, bounds, step)
    opt = Optimizer(
        x0,
        bounds,
        method=method,
        budget=budget,
        seed=seed,
        step=step,
        parallel=parallel,
        constrained=bool(limits),
    )
    opt.free = FREE * budget if space.count or limits else 0  # points that may cost nothing
    with make_evaluator(f, workers=workers, run_in=run_in, batched=batched) as evaluate:
        key = space.key if space.count else None
        charged = Charged(evaluate, limits, key, budget, space.count)
        try:
            ended = _search(opt, charged, enough, callback)
        except KeyboardInterrupt as stopped:
            stopped.result = _result(opt, charged, "interrupted")  # type: ignore[attr-defined]
            stopped.add_note("what was found so far is the `result` of this exception")
            raise
    return _result(opt, charged, ended)


def _result(opt: Optimizer, charged: Charged, ended: str) -> Result:
    found = replace(opt.result(), repeats=charged.repeats)
    return replace(found, stop=ended) if ended else found


def _enough(target: Any) -> float | None:
    """Return the value that is enough; raises ConfigError for what is no number."""
    if target is None:
        return None
    try:
        number = math.nan if isinstance(target, bool | str) else float(target)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if math.isnan(number):
        raise ConfigError(f"target={target!r:.60} must be a number, the value that is enough")
    return number


def _search(
    opt: Optimizer,
    charged: Charged,
    target: float | None,
    callback: Callable[[Result], Any] | None,
) -> str:
    """Ask and tell until the end; return why it ended early."""
    failed = 0
    while not opt.stop:
        points = opt.ask()
        answers = {i: told for i, told in enumerate(charged(points)) if told is not None}
        good = [i for i, told in answers.items() if not told.reason]
        bad = [i for i, told in answers.items() if told.reason]
        if bad:
            opt.tell([points[i] for i in bad], failures=[answers[i].reason for i in bad])
        if good:
            above = [answers[i].violation for i in good] if opt.constrained else None
            opt.tell([points[i] for i in good], [answers[i].value for i in good], violations=above)
        failed += len(bad)
        if ENOUGH_FAILURES <= opt.asked == failed:
            raise RunError(
                f"all of the first {opt.asked} evaluations failed, the first with"
                f" {opt.result().first_failure}; mend f, or start where it has values"
            )
        if target is not None and opt.best_value <= target:
            return "target"
        if callback is not None and _is_true(callback(opt.result())):
            return "callback"
        if charged.exhausted:
            return "exhausted"
        if not charged.left:
            return "" if opt.stop else "budget"
    return "exhausted" if charged.left and opt.stop == "budget" else ""


def _is_true(told: Any) -> bool:
    """Return whether a callback has said True, as Python, numpy or torch have it."""
    is_truth = isinstance(told, bool) or str(getattr(told, "dtype", "")) in ("bool", "torch.bool")
    return is_truth and math.prod(getattr(told, "shape", ())) == 1 and bool(told)


def _box_of(f: Objective) -> Any:
    """Return an objective's bounds, a pair for each number."""
    ends = [torch.as_tensor(end).double().expand(f.dim).tolist() for end in (f.lower, f.upper)]
    return list(zip(*ends, strict=True))
