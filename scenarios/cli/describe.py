"""What the code says of all settings; `python -m scenarios.cli.describe` writes settings.json."""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

from fedzo.config import Scalar, allowed_names, default_values, setting_hints
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


def described(*own: str) -> Words:
    """Return what is said of the settings of every scenario, strategy and engine.

    own: references to strategies of the user's, which are described too.
    """
    sections = _sections(own)
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
            name
            for name in [*STRATEGIES, *own]
            if has_part(strategy_entry(name).config, PrivacyConfig)
        ],
        public=[name for name, entry in SCENARIOS.items() if not is_own(entry.config())],
        black_boxes=[name for name, build in scenarios.items() if build.black_box],
        unknown={name: found for name in [*STRATEGIES, *own] if (found := _unknown(name))},
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


def _sections(own: Sequence[str]) -> dict[str, dict[str, type]]:
    """Return the classes of every section by what chooses one; "" where there is no choice."""
    scenario, strategy, engine = _PLACE
    found: dict[str, dict[str, type]] = {section: {} for section in SECTIONS}
    for name in SCENARIOS:
        found["scenario"][name] = config_classes(name, strategy, engine)["scenario"]
    for name in [*STRATEGIES, *own]:
        classes = config_classes(scenario, name, engine)
        found["strategy"][name], found["client"][name] = classes["strategy"], classes["client"]
    for name in ENGINES:
        found["engine"][name] = config_classes(scenario, strategy, name)["engine"]
    for section in ("faults", "byzantine"):
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
