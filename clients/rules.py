"""Every question a client can answer, by message kind, and the settings of the training rules."""

from clients.first_order import FirstOrder, FirstOrderConfig
from clients.values import answer_values
from clients.zeroth_order import ZerothOrder, ZerothOrderConfig
from fedzo.runtime.local import Rule

RULE_CONFIGS: dict[str, type] = {
    "zeroth_order": ZerothOrderConfig,
    "first_order": FirstOrderConfig,
}


def make_rules() -> dict[str, Rule]:
    """Return a fresh table: message kind -> rule."""
    return {
        "train.zeroth_order": ZerothOrder(),
        "train.first_order": FirstOrder(),
        "query.value": answer_values,
        "evaluate": answer_values,
    }
