"""What all settings are, in words that are kept in settings.json: to list them takes no torch.

Classes of settings lie beside the methods that they are of, and most of those need torch, which
takes two seconds to import. So what `fedzo list SCENARIO` shows is written down (`make settings`,
scenarios.cli.describe), and a test says when that is due. A name that is not in the file is asked
of the code.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedzo.config import Scalar
from scenarios.runs.effects import ALWAYS
from scenarios.runs.names import require_black_box, strategy_entry

STORED = Path(__file__).with_name("settings.json")
Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ClassWords:
    """A class of settings.

    defaults, allowed: by name. used_with: dotted name -> conditions. explained: the classes whose
    docstrings explain the settings, parts and parents first.
    """

    defaults: Texts
    allowed: Texts
    used_with: Mapping[str, list[str]]
    explained: list[str]


@dataclass(frozen=True, slots=True)
class Words:
    """Everything that is said of settings.

    classes: by name. docstrings: class -> text. sections: section -> name -> class. suggested:
    scenario -> class of the clients' settings -> settings. simulated: settings of private
    strategies in scenarios with public data. unknown: strategy -> settings that it has no use for.
    """

    classes: Mapping[str, ClassWords]
    docstrings: Texts
    sections: Mapping[str, Texts]
    suggested: Mapping[str, Mapping[str, Texts]]
    simulated: Texts
    private: list[str]
    public: list[str]
    black_boxes: list[str]
    unknown: Mapping[str, list[str]]

    def know(self, scenario: str, strategy: str, engine: str) -> bool:
        """Return whether these names are among those described."""
        chosen = {"scenario": scenario, "strategy": strategy, "engine": engine}
        return all(name in self.sections[section] for section, name in chosen.items())


@dataclass(frozen=True, slots=True)
class Section:
    """What is shown of a section: setting, value, allowed, used with; and the texts below."""

    name: str
    rows: list[tuple[str, str, str, str]]
    texts: list[str]


def told(value: Scalar) -> str:
    """Return a value as it is shown."""
    return repr(value) if isinstance(value, str) else str(value)


def stored() -> Words:
    """Return what is written down."""
    raw = json.loads(STORED.read_text())
    return Words(**{**raw, "classes": {n: ClassWords(**c) for n, c in raw["classes"].items()}})


def sections_of(words: Words, scenario: str, strategy: str, engine: str) -> list[Section]:
    """Return the settings of an experiment of which nothing else is said.

    Raises ConfigError for gradients of a black box.
    """
    chosen = {"scenario": scenario, "strategy": strategy, "client": strategy, "engine": engine}
    names = {section: each[chosen.get(section, "")] for section, each in words.sections.items()}
    values = {
        f"{section}.{name}": default
        for section, cls in names.items()
        for name, default in words.classes[cls].defaults.items()
    }
    values.update(_usual(words, scenario, strategy, engine))
    if scenario in words.black_boxes:
        require_black_box(scenario, strategy, exact=values.get("client.gradient") == "'exact'")
    hidden = {*strategy_entry(strategy).refused, *words.unknown.get(strategy, ())}
    used_with = _used_with(words, names)
    return [
        Section(
            section,
            [
                (full, values[full], allowed, "; ".join(used_with.get(full, ())))
                for name, allowed in words.classes[cls].allowed.items()
                if (full := f"{section}.{name}") not in hidden
            ],
            [words.docstrings[each] for each in words.classes[cls].explained],
        )
        for section, cls in names.items()
    ]


def _usual(words: Words, scenario: str, strategy: str, engine: str) -> dict[str, str]:
    """Return settings that are not the default where nobody says anything, as effects_of does."""
    simulated = engine != "superlink" and strategy in words.private and scenario in words.public
    suggested = words.suggested[scenario].get(words.sections["client"][strategy], {})
    preset = {name: told(value) for name, value in strategy_entry(strategy).preset.items()}
    return {**(words.simulated if simulated else {}), **suggested, **preset}


def _used_with(words: Words, names: Texts) -> dict[str, list[str]]:
    """Return what every setting is used with, in the words of all classes; `client.*` is each."""
    found: dict[str, list[str]] = {}
    clients = [
        f"client.{name}" for name in words.classes[names["client"]].defaults if name not in ALWAYS
    ]
    for cls in names.values():
        for key, conditions in words.classes[cls].used_with.items():
            for name in clients if key == "client.*" else [key]:
                section = name.partition(".")[0]
                found.setdefault(name, []).extend(c.replace(f"{section}.", "") for c in conditions)
    return found
