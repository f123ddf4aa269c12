"""Mixed variables: minimize against random search and Optuna's TPE, at equal calls of the function.

    python benchmarks/mixed.py          # three minutes; prints a table of docs/results/blackbox.md

`reactor` has a real number, one on a scale of powers, a whole number, a choice and a constraint;
`layout` three real numbers, two whole ones and two choices. Free of noise; TPE is told a violation
where the constraint forbids a point, and that costs it nothing either.
"""

import math
import statistics
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna

import fedzo

SEEDS, BUDGETS = range(12), (30, 60, 120, 240)
Point = Mapping[str, Any]


def reactor(p: Point) -> float:
    """Return the cost of a reactor; the optimum is -0.77."""
    best = {"A": 320.0, "B": 340.0, "C": 400.0}[p["cat"]]
    yield_ = math.exp(-(((p["t"] - best) / 25) ** 2)) * {"A": 0.6, "B": 1.0, "C": 0.8}[p["cat"]]
    pressed = math.exp(-((math.log10(p["p"]) - 0.5) ** 2))
    return 0.03 * abs(p["n"] - 6) + 0.144 - 0.914 * yield_ * pressed


def too_much(p: Point) -> float:
    """Return how far a reactor is from allowed."""
    return float(p["n"] * p["p"] - 20)


def layout(p: Point) -> float:
    """Return the cost of a layout; the optimum is 0."""
    near = 4 * (p["a"] - 0.3) ** 2 + 4 * (p["b"] - 0.8) ** 2
    steps = 0.2 * abs(p["n"] - 7) + 0.1 * abs(p["m"] - 2)
    chosen = {"x": 0.0, "y": 0.5, "z": 1.0}[p["k"]] + {"u": 0.3, "v": 0.0}[p["l"]]
    return near + steps + chosen + (p["c"] - 0.5) ** 2 * (1 + 2 * (p["k"] == "x"))


PROBLEMS: dict[str, tuple[Callable[[Point], float], dict[str, Any], list[Any]]] = {
    "reactor": (
        reactor,
        {
            "t": fedzo.Float(250, 450),
            "p": fedzo.Log(0.1, 100),
            "n": fedzo.Int(1, 12),
            "cat": fedzo.Choice("A", "B", "C"),
        },
        [too_much],
    ),
    "layout": (
        layout,
        {
            **{name: fedzo.Float(0, 1) for name in "abc"},
            "n": fedzo.Int(1, 20),
            "m": fedzo.Int(0, 5),
            "k": fedzo.Choice("x", "y", "z"),
            "l": fedzo.Choice("u", "v"),
        },
        [],
    ),
}


def by_fedzo(name: str, budget: int, seed: int, method: str) -> float:
    f, space, limits = PROBLEMS[name]
    found = fedzo.minimize(
        f, bounds=space, budget=budget, seed=seed, method=method, constraints=limits
    )
    return float(found.value)


def by_tpe(name: str, budget: int, seed: int) -> float:
    """Ask TPE until the function was called as often as the budget says."""
    f, space, limits = PROBLEMS[name]
    sampler = optuna.samplers.TPESampler(seed=seed, constraints_func=lambda t: t.user_attrs["far"])
    study, lowest, calls = optuna.create_study(sampler=sampler), math.inf, 0
    while calls < budget:
        trial = study.ask()
        point = {name: suggested(trial, name, kind) for name, kind in space.items()}
        far = [limit(point) for limit in limits]
        trial.set_user_attr("far", far or [0.0])
        if any(violation > 0 for violation in far):
            study.tell(trial, 50 + max(far))
            continue
        calls += 1
        value = f(point)
        lowest = min(lowest, value)
        study.tell(trial, value)
    return lowest


def suggested(trial: optuna.Trial, name: str, kind: Any) -> Any:
    """Return what TPE proposes for a variable."""
    if isinstance(kind, fedzo.Choice):
        return trial.suggest_categorical(name, list(kind.options))
    if isinstance(kind, fedzo.Int):
        return trial.suggest_int(name, kind.low, kind.high)
    return trial.suggest_float(name, kind.low, kind.high, log=isinstance(kind, fedzo.Log))


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    print("| function | calls | auto | random | TPE |\n| --- | --- | --- | --- | --- |")
    for name in PROBLEMS:
        for budget in BUDGETS:
            found = [
                [by_fedzo(name, budget, seed, "auto") for seed in SEEDS],
                [by_fedzo(name, budget, seed, "random") for seed in SEEDS],
                [by_tpe(name, budget, seed) for seed in SEEDS],
            ]
            cells = " | ".join(f"{statistics.median(each):.3f}" for each in found)
            print(f"| {name} | {budget} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
