"""Every question that comes with fedzo, by family."""

from fedzo.protocol.questions.anchored import Anchor, Difference, Miner, Walk
from fedzo.protocol.questions.coded import CodedTasks
from fedzo.protocol.questions.in_place import (
    JudgeInPlace,
    RecordSlopesInPlace,
    SlopesInPlace,
    SlopesInWave,
)
from fedzo.protocol.questions.peers import Mix, OwnModel, PeerGradient
from fedzo.protocol.questions.private import Clipped, ClippedWalk, Records
from fedzo.protocol.questions.probes import Probes
from fedzo.protocol.questions.surrogate import (
    CorrectedSteps,
    SlopeGradient,
    SurrogateSteps,
    SurrogateWeights,
)
from fedzo.protocol.questions.training import (
    FirstOrderSteps,
    GradientEstimate,
    MomentumSteps,
    ZerothOrderSteps,
)
from fedzo.protocol.questions.values import Judge, Values

__all__ = [
    "Anchor",
    "Clipped",
    "ClippedWalk",
    "CodedTasks",
    "CorrectedSteps",
    "Difference",
    "FirstOrderSteps",
    "GradientEstimate",
    "Judge",
    "JudgeInPlace",
    "Miner",
    "Mix",
    "MomentumSteps",
    "OwnModel",
    "PeerGradient",
    "Probes",
    "RecordSlopesInPlace",
    "Records",
    "SlopeGradient",
    "SlopesInPlace",
    "SlopesInWave",
    "SurrogateSteps",
    "SurrogateWeights",
    "Values",
    "Walk",
    "ZerothOrderSteps",
]
