"""Who answers which question, and the settings of the rules that strategies name."""

from clients.anchored.anchor import answer_anchor, answer_difference, answer_walk, train_miner
from clients.averaging.first_order import FirstOrder
from clients.averaging.momentum import train_momentum, train_own_model
from clients.averaging.zeroth_order import answer_gradient, take_zeroth_order_steps
from clients.coded.tasks import answer_coded
from clients.core.values import answer_values
from clients.peers.gradient import answer_peer_gradient
from clients.peers.mixing import mix_models
from clients.private.clipped_walk import train_clipped_walk
from clients.private.gradient_difference import answer_clipped, answer_records
from clients.private.record_slopes import answer_record_slopes
from clients.shared.in_place import answer_slopes_in_place, judge_in_place
from clients.shared.probes import answer_probes
from clients.surrogate.local_slopes import answer_slope_gradient, take_corrected_steps
from clients.surrogate.surrogate import answer_weights, take_surrogate_steps
from fedzo.protocol import questions
from fedzo.protocol.question import Question
from fedzo.protocol.questions.anchored import AnchorConfig
from fedzo.protocol.questions.coded import CodedConfig
from fedzo.protocol.questions.in_place import InPlaceConfig
from fedzo.protocol.questions.peers import PeerConfig
from fedzo.protocol.questions.private import ClippedConfig
from fedzo.protocol.questions.probes import ProbesConfig
from fedzo.protocol.questions.surrogate import SurrogateConfig
from fedzo.protocol.questions.training_config import (
    FirstOrderConfig,
    GradientConfig,
    MomentumConfig,
    ZerothOrderConfig,
)
from fedzo.protocol.questions.values import ValuesConfig
from fedzo.runtime.local import Rule

RULE_CONFIGS: dict[str, type] = {
    "zeroth_order": ZerothOrderConfig,
    "first_order": FirstOrderConfig,
    "probes": ProbesConfig,
    "in_place": InPlaceConfig,
    "surrogate": SurrogateConfig,
    "values": ValuesConfig,
    "momentum": MomentumConfig,
    "anchor": AnchorConfig,
    "gradient": GradientConfig,
    "gradient_difference": ClippedConfig,
    "coded": CodedConfig,
    "peer_gradient": PeerConfig,
}


def make_rules() -> dict[type[Question], Rule]:  # type: ignore[type-arg]
    """Return a fresh table: question -> rule."""
    return {
        questions.Values: answer_values,
        questions.Judge: answer_values,
        questions.Probes: answer_probes,
        questions.SlopesInPlace: answer_slopes_in_place,
        questions.SlopesInWave: answer_slopes_in_place,
        questions.RecordSlopesInPlace: answer_record_slopes,
        questions.JudgeInPlace: judge_in_place,
        questions.ZerothOrderSteps: take_zeroth_order_steps,
        questions.FirstOrderSteps: FirstOrder(),
        questions.MomentumSteps: train_momentum,
        questions.GradientEstimate: answer_gradient,
        questions.OwnModel: train_own_model,
        questions.Mix: mix_models,
        questions.Anchor: answer_anchor,
        questions.Walk: answer_walk,
        questions.Difference: answer_difference,
        questions.Miner: train_miner,
        questions.SurrogateSteps: take_surrogate_steps,
        questions.SurrogateWeights: answer_weights,
        questions.SlopeGradient: answer_slope_gradient,
        questions.CorrectedSteps: take_corrected_steps,
        questions.Records: answer_records,
        questions.Clipped: answer_clipped,
        questions.ClippedWalk: train_clipped_walk,
        questions.CodedTasks: answer_coded,
        questions.PeerGradient: answer_peer_gradient,
    }
