"""Every question a client can answer, by message kind, and the settings of the training rules."""

from clients.anchor import AnchorConfig, answer_anchor, answer_difference, answer_walk, train_miner
from clients.clipped_walk import train_clipped_walk
from clients.first_order import FirstOrder, FirstOrderConfig
from clients.gradient_difference import ClippedConfig, answer_clipped, answer_records
from clients.gradients import GradientConfig
from clients.local_slopes import LocalSlopes, answer_slope_gradient
from clients.mixing import mix_models
from clients.momentum import MomentumConfig, train_momentum, train_own_model
from clients.probes import ProbesConfig, answer_probes
from clients.surrogate import Surrogate, answer_weights
from clients.surrogate_config import SurrogateConfig
from clients.values import ValuesConfig, answer_values
from clients.zeroth_order import ZerothOrder, ZerothOrderConfig, answer_gradient
from fedzo.runtime.local import Rule

RULE_CONFIGS: dict[str, type] = {
    "zeroth_order": ZerothOrderConfig,
    "first_order": FirstOrderConfig,
    "probes": ProbesConfig,
    "surrogate": SurrogateConfig,
    "values": ValuesConfig,
    "momentum": MomentumConfig,
    "anchor": AnchorConfig,
    "gradient": GradientConfig,
    "gradient_difference": ClippedConfig,
}


def make_rules() -> dict[str, Rule]:
    """Return a fresh table: message kind -> rule."""
    return {
        "train.zeroth_order": ZerothOrder(),
        "train.first_order": FirstOrder(),
        "query.value": answer_values,
        "query.probes": answer_probes,
        "query.gradient": answer_gradient,
        "train.surrogate": Surrogate(),
        "query.weights": answer_weights,
        "train.slopes": LocalSlopes(),
        "query.slope_gradient": answer_slope_gradient,
        "train.momentum": train_momentum,
        "train.own_model": train_own_model,
        "train.mix": mix_models,
        "query.anchor": answer_anchor,
        "query.difference": answer_difference,
        "query.walk": answer_walk,
        "train.miner": train_miner,
        "query.records": answer_records,
        "query.clipped": answer_clipped,
        "train.clipped_walk": train_clipped_walk,
        "evaluate": answer_values,
    }
