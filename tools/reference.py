"""Write docs/api/*.md: which docstrings the reference is made of; mkdocstrings does the rest.

python tools/reference.py            # a test says where the pages are old

A page is a table with the first sentence of every docstring, for who reads the file itself, and a
directive for each name, in whose place the site has its signature, docstring, fields and methods.
"""

import ast
from importlib.util import find_spec
from pathlib import Path

import fedzo
from fedzo.aggregation import AGGREGATORS, MIXERS

FOLDER = Path(__file__).parents[1] / "docs" / "api"
FACE = {f"fedzo.{name}": f"{module}.{name}" for name, module in fedzo.FACE.items()}
RULES = {
    f"{function.__module__}.{function.__name__}"
    for function, _ in (*AGGREGATORS.values(), *MIXERS.values())
}
ATTACKERS = "fedzo.attacks.attackers"
QUESTIONS = "fedzo.protocol.questions"
PAGES: dict[str, tuple[str, str, list[str]]] = {
    "objectives": (
        "Objectives",
        "What a client holds beside `Objective` and its adapters, which are on the page"
        " [import fedzo](fedzo.md).",
        [
            "fedzo.objectives.objective.FiniteSum",
            "fedzo.objectives.remote.HttpObjective",
            "fedzo.objectives.remote.CommandObjective",
            "fedzo.objectives.cohort.CohortObjective",
            "fedzo.objectives.cohort.FiniteSumCohort",
            "fedzo.objectives.problem.Problem",
            "scenarios.problems.scenario.Scenario",
        ],
    ),
    "modules": (
        "Training modules by values",
        "What a method is made of, beside `ZerothOrder`, `ActivityZO` and `Method`, which are on"
        " the page [import fedzo](fedzo.md).",
        [
            "fedzo.finetuning.methods.method.Recipe",
            "fedzo.finetuning.finding.Finder",
            "fedzo.finetuning.finding.Found",
            "fedzo.finetuning.finding.ByValues",
            "fedzo.finetuning.samplers.Sampler",
            "fedzo.finetuning.accepting.Acceptance",
            "fedzo.finetuning.moving.Mover",
            "fedzo.finetuning.log.Log",
            "fedzo.finetuning.quantized.quantize_",
            "fedzo.estimation.in_place.InPlace",
            "fedzo.estimation.direction.Direction",
            "fedzo.estimation.view.View",
        ],
    ),
    "strategies": (
        "Strategies",
        "What a method is made of, and what the driver hands to it.",
        [
            "strategies.core.method.RoundMethod",
            "strategies.core.base.RoundStrategy",
            "strategies.core.configured.ConfiguredStrategy",
            "strategies.core.rounds.RoundPlan",
            "strategies.core.rounds.RoundConfig",
            "strategies.core.asking.ask",
            "strategies.core.asking.ask_each",
            "strategies.core.asking.ask_together",
            "strategies.core.asking.Heard",
            "strategies.core.robust.RobustConfig",
            "strategies.core.robust.aggregate",
            "strategies.core.driver.run_rounds",
            "strategies.core.outcome.RunSettings",
            "strategies.core.outcome.Snapshot",
            "strategies.core.outcome.Outcome",
            "fedzo.records.history.RoundRecord",
            "fedzo.privacy.accountant.Ledger",
            "fedzo.randomness.stream",
        ],
    ),
    "questions": (
        "Questions and rules",
        "What is said between server and clients, and how a client answers.",
        [
            "fedzo.protocol.question.Question",
            "fedzo.protocol.question.Answer",
            "fedzo.protocol.question.Cost",
            "fedzo.protocol.exchange.Exchange",
            "fedzo.protocol.exchange.Moment",
            "fedzo.protocol.exchange.Replies",
            f"{QUESTIONS}.values.Values",
            f"{QUESTIONS}.training.LocalSteps",
            f"{QUESTIONS}.training_config.ZerothOrderConfig",
            f"{QUESTIONS}.training_config.FirstOrderConfig",
            "fedzo.runtime.local.Clients",
            "fedzo.runtime.local.Rule",
            "fedzo.objectives.oracle.Oracle",
            "fedzo.runtime.engine.Engine",
            "clients.rules.make_rules",
            "clients.app.build_client_app",
        ],
    ),
    "aggregation": (
        "Aggregators",
        "Rules that make one vector of many, and what may stand before them.",
        ["fedzo.aggregation.composition.parse_aggregator", *sorted(RULES)],
    ),
    "attacks": (
        "Victims and attackers",
        "What is attacked, and how perturbations are looked for.",
        [
            "fedzo.attacks.victims.victim.Victim",
            "fedzo.attacks.victims.victim.Answers",
            "fedzo.attacks.victims.victim.ModuleVictim",
            "fedzo.attacks.victims.victim.CallableVictim",
            "fedzo.attacks.victims.victim.from_scores",
            "fedzo.attacks.victims.victim.from_labels",
            "fedzo.attacks.attacker.Attacker",
            "fedzo.attacks.attacker.Task",
            "fedzo.attacks.attacker.Reply",
            "fedzo.attacks.region.Region",
            "fedzo.attacks.attack.AttackSettings",
            "fedzo.attacks.attack.attack",
            f"{ATTACKERS}.square.Square",
            f"{ATTACKERS}.thompson.Thompson",
        ],
    ),
}


def pages() -> dict[str, str]:
    """Return the pages by the names of their files."""
    head = "What `import fedzo` offers. Made by tools/reference.py, as all pages beside this one."
    return {
        "fedzo.md": page("import fedzo", head, FACE),
        **{
            f"{stem}.md": page(title, line, {name: name for name in names})
            for stem, (title, line, names) in PAGES.items()
        },
    }


def page(title: str, line: str, names: dict[str, str]) -> str:
    """Return a page about objects, by what they are called there."""
    rows = [f"| `{shown}` | {first_sentence(name)} |" for shown, name in names.items()]
    options = "    options:\n      heading: {}\n      toc_label: {}\n"
    parts = [
        f"::: {name}\n{options.format(shown, shown.rpartition('.')[2])}"
        for shown, name in names.items()
    ]
    table = "\n".join(["| name | what it is |", "|---|---|", *rows])
    return "\n".join([f"# {title}\n", f"{line}\n", f"{table}\n", *parts])


def first_sentence(name: str) -> str:
    """Return how the docstring of an object begins; raises KeyError where the source has none."""
    module, _, wanted = name.rpartition(".")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise KeyError(module)
    tree = ast.parse(Path(spec.origin).read_text())
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if getattr(node, "name", "") == wanted and (told := ast.get_docstring(node)):
            return _line(told)
        if isinstance(node, ast.Assign) and wanted in {ast.unparse(t) for t in node.targets}:
            value = getattr(after, "value", None)
            if isinstance(value, ast.Constant):
                return _line(str(value.value))
    for node in tree.body:  # offered by this module, and defined in another
        if isinstance(node, ast.ImportFrom) and wanted in {a.name for a in node.names}:
            return first_sentence(f"{node.module}.{wanted}")
    raise KeyError(f"{name} has no docstring")


def _line(told: str) -> str:
    return " ".join(told.split("\n\n")[0].split()).replace("|", "\\|")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
