"""What the code says of all settings; `python -m scenarios.cli.describe` writes settings.json."""

import inspect
import json
from abc import ABC
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, get_args

from fedzo.catalog import METHOD_LINES
from fedzo.config import Scalar, allowed_names, default_values, setting_hints
from fedzo.finetuning.methods.method import Allowed
from fedzo.finetuning.methods.table import METHODS
from fedzo.parts import has_part, parts_of
from fedzo.used_with import conditions_of
from scenarios.attacks.attackers import attacker_entry
from scenarios.cli.described import STORED, ClassWords, Section, Words, told
from scenarios.runs.experiment import SECTIONS, config_classes, effects_of
from scenarios.runs.names import ENGINES, SCENARIOS, STRATEGIES, strategy_entry
from scenarios.runs.ownership import is_own, simulated_privacy
from strategies.core.privacy_config import PrivacyConfig

_PLACE = ("quadratic", "fedzo", "inprocess")
"""Names to stand where others are asked about."""


def described() -> Words:
    """Return what is said of the settings of every scenario, strategy and engine."""
    sections = _sections()
    classes = {cls: section for section, each in sections.items() for cls in each.values()}
    explained = {one.__name__: one for cls in classes for one in _explained(cls)}
    scenarios = {name: entry.build for name, entry in SCENARIOS.items()}
    return Words(
        classes={cls.__name__: _class_words(cls, section) for cls, section in classes.items()},
        docstrings={name: inspect.getdoc(cls) or "" for name, cls in explained.items()},
        sections={
            section: {name: cls.__name__ for name, cls in each.items()}
            for section, each in sections.items()
        },
        suggested={
            name: {cls.__name__: _told(values) for cls, values in build.suggested.items()}
            for name, build in scenarios.items()
        },
        simulated=_told(simulated_privacy(PrivacyConfig, SCENARIOS["quadratic"].config(), "")),
        private=[
            name for name, entry in STRATEGIES.items() if has_part(entry.config, PrivacyConfig)
        ],
        public=[name for name, entry in SCENARIOS.items() if not is_own(entry.config())],
        black_boxes=[name for name, build in scenarios.items() if build.black_box],
        unknown={name: found for name in STRATEGIES if (found := _unknown(name))},
    )


def written(words: Words) -> str:
    """Return what the file holds."""
    return json.dumps(asdict(words), indent=1, ensure_ascii=False) + "\n"


def own_attacker(name: str) -> Section:
    """Return the settings of an attacker of the user's."""
    cls = attacker_entry(name).config
    words, used_with = _class_words(cls, "attacker"), conditions_of(cls, "attacker")
    rows = [
        (
            f"attacker.{setting}",
            words.defaults[setting],
            allowed,
            "; ".join(one.words() for one in used_with.get(f"attacker.{setting}", ())),
        )
        for setting, allowed in words.allowed.items()
    ]
    return Section("attacker", rows, [inspect.getdoc(cls) or ""])


def method_section(name: str) -> Section:
    """Return the settings of what `fedzo finetune --method` names, as --set takes them."""
    from scenarios.finetune.trainers import ACTIVITY, ActivitySettings

    if name not in METHODS and name != ACTIVITY:
        return Section(f"method {name}", [], [METHOD_LINES[name], "It has no settings."])
    cls = METHODS.get(name, ActivitySettings)
    words = _class_words(cls, "method")
    ranges = getattr(cls, "ALLOWED", {})
    rows = [
        (setting, words.defaults[setting], allowed + _range(ranges.get(setting)), "")
        for setting, allowed in words.allowed.items()
    ]
    texts = [inspect.getdoc(each) or "" for each in _explained(cls) if each is not ABC]
    return Section(f"method {name}, fedzo finetune --set", rows, texts)


def _range(allowed: Allowed | None) -> str:
    return f", {allowed.told}" if allowed else ""


def with_own(words: Words, reference: str) -> Words:
    """Return what is said of settings, and of those of a strategy of the user's."""
    entry = strategy_entry(reference)
    chosen = {"strategy": entry.config, "client": entry.client_config}
    names = {section: _name_of(cls, words) for section, cls in chosen.items()}
    new = {names[s]: _class_words(cls, s) for s, cls in chosen.items()}
    docs = {one.__name__: one for cls in chosen.values() for one in _explained(cls)}
    told = {name: inspect.getdoc(cls) or "" for name, cls in docs.items()}
    own = {s: {**words.sections[s], reference: name} for s, name in names.items()}
    private = [reference] if has_part(entry.config, PrivacyConfig) else []
    return replace(
        words,
        classes={**words.classes, **new},
        docstrings={**words.docstrings, **told},
        sections={**words.sections, **own},
        private=[*words.private, *private],
    )


def _name_of(cls: type, words: Words) -> str:
    """Return a name for a class of settings; of a user's, one that no other has."""
    ours = cls.__module__.partition(".")[0] in ("fedzo", "clients", "strategies", "scenarios")
    free = ours or cls.__name__ not in words.classes
    return cls.__name__ if free else f"{cls.__module__}.{cls.__name__}"


def _sections() -> dict[str, dict[str, type]]:
    """Return the classes of every section by what chooses one; "" where there is no choice."""
    scenario, strategy, engine = _PLACE
    found: dict[str, dict[str, type]] = {section: {} for section in SECTIONS}
    for name in SCENARIOS:
        found["scenario"][name] = config_classes(name, strategy, engine)["scenario"]
    for name in STRATEGIES:
        classes = config_classes(scenario, name, engine)
        found["strategy"][name], found["client"][name] = classes["strategy"], classes["client"]
    for name in ENGINES:
        found["engine"][name] = config_classes(scenario, strategy, name)["engine"]
    for section in SECTIONS[4:]:
        found[section][""] = config_classes(*_PLACE)[section]
    return found


def _class_words(cls: type, section: str) -> ClassWords:
    hints = setting_hints(cls)
    return ClassWords(
        defaults=_told(default_values(cls)),
        allowed={name: _allowed(hints[name]) for name in default_values(cls)},
        used_with={
            name: [condition.words() for condition in conditions]
            for name, conditions in conditions_of(cls, section).items()
        },
        explained=[each.__name__ for each in _explained(cls)],
    )


def _told(values: Mapping[str, Scalar]) -> dict[str, str]:
    return {name: told(value) for name, value in values.items()}


def _unknown(strategy: str) -> list[str]:
    """Return the settings that the usual variant of a strategy does not know."""
    effects = effects_of("quadratic", strategy, "inprocess", {})
    return [name for name in effects.values if name not in effects.settings]


def _allowed(hint: Any) -> str:
    """Return the names, or the types of a union, that a setting may have."""
    each = allowed_names(hint) or [str(option) for option in get_args(hint)]
    return ", ".join(each) or str(hint.__name__)


def _explained(cls: type) -> list[type]:
    """Return the classes whose docstrings explain the settings: parts and parents first."""
    parts = [one for kind in parts_of(cls).values() for one in _explained(kind)]
    return [*parts, *reversed(cls.__mro__[:-1])]


if __name__ == "__main__":
    STORED.write_text(written(described()))
