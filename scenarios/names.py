"""Every name that a user can type, and what it stands for: the one literal table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from clients.rules import RULE_CONFIGS
from fedzo.config import Scalar
from fedzo.runtime.engine_configs import FlowerConfig, InProcessConfig, RayConfig, SuperLinkConfig
from scenarios.attack import AttackConfig, AttackScenario
from scenarios.classification import ClassificationConfig, ClassificationScenario
from scenarios.custom import CustomConfig, CustomScenario
from scenarios.metric import MetricConfig, MetricScenario
from scenarios.multimodal import MultimodalConfig, MultimodalScenario
from scenarios.quadratic import QuadraticConfig, QuadraticScenario
from scenarios.regression import RegressionConfig, RegressionScenario
from scenarios.remote import RemoteConfig, RemoteScenario
from strategies.base import RoundStrategy
from strategies.diff2 import DIFF2
from strategies.diff2_config import DIFF2Config
from strategies.fedamd import FedAMD, FedAMDConfig
from strategies.fedavg import FedAvg
from strategies.fedavg_config import FedAvgConfig
from strategies.fednova import FedNova, FedNovaConfig
from strategies.fedpage import BVRLSGDConfig, FedPAGE, FedPAGEConfig
from strategies.fedprox import FedProxConfig, fedprox
from strategies.fedsaga import FedSAGA, FedSAGAConfig
from strategies.fedzen import FedZeN, FedZeNConfig
from strategies.fzoos import FZooS
from strategies.fzoos_config import USED_BY, FZooSConfig
from strategies.mifa import MIFA, MIFAConfig
from strategies.monna import MoNNA, MoNNAConfig
from strategies.private_fedavg import PrivateFedAvg, PrivateFedAvgConfig
from strategies.relizo import ReLIZO, ReLIZOConfig
from strategies.scaffold import Scaffold1, Scaffold2
from strategies.seedzo import SeedZO, SeedZOConfig
from strategies.square import Square, SquareConfig
from strategies.thompson import FederatedThompson, FederatedThompsonConfig

AnyScenario = (
    QuadraticScenario
    | MultimodalScenario
    | AttackScenario
    | MetricScenario
    | ClassificationScenario
    | RegressionScenario
    | CustomScenario
    | RemoteScenario
)


@dataclass(frozen=True, slots=True)
class ScenarioEntry:
    """A scenario's settings, its class, and one line about it."""

    config: type
    build: type[AnyScenario]
    line: str


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """A strategy's settings, its class, the client rule it asks for, and one line about it.

    preset: dotted settings that make the class this method. refused: dotted settings that one might
    expect -> why there are none. used_by: setting ->
    values of strategy.variant that use it, "client" for all client settings; others always count.
    """

    config: type
    build: Callable[..., RoundStrategy]  # type: ignore[type-arg]
    rule: str
    line: str
    preset: Mapping[str, Scalar] = field(default_factory=dict)
    used_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


SCENARIOS: dict[str, ScenarioEntry] = {
    "quadratic": ScenarioEntry(
        QuadraticConfig, QuadraticScenario, "heterogeneous quadratics with a known optimum"
    ),
    "multimodal": ScenarioEntry(
        MultimodalConfig, MultimodalScenario, "Ackley and Levy functions, shifted for each client"
    ),
    "attack": ScenarioEntry(
        AttackConfig, AttackScenario, "one perturbation against black-box image classifiers"
    ),
    "metric": ScenarioEntry(
        MetricConfig, MetricScenario, "a classifier's macro-F1 and the like, which have no gradient"
    ),
    "classification": ScenarioEntry(
        ClassificationConfig, ClassificationScenario, "a small network on class-skewed shards"
    ),
    "custom": ScenarioEntry(
        CustomConfig,
        CustomScenario,
        "your own objectives: --set scenario.objective=file.py:function",
    ),
    "regression": ScenarioEntry(
        RegressionConfig, RegressionScenario, "a small network on tables of records"
    ),
    "remote": ScenarioEntry(
        RemoteConfig, RemoteScenario, "objectives that only the nodes of a deployment know"
    ),
}

NOT_PRIVATE = (
    "FZooS has no private form. Its clients send values (improved), or feature weights and updates"
    " (the others); values have no bound on what one record changes in them, and weights are as"
    " many as features, 10,000 in the paper, so noise for a clipped mean of them would drown it;"
    " use diff2_zo or dp_fedzo"
)

STRATEGIES: dict[str, StrategyEntry] = {
    "fedavg": StrategyEntry(
        FedAvgConfig, FedAvg, "first_order", "mean of clients' gradient steps (McMahan 2017)"
    ),
    "fedzo": StrategyEntry(
        FedAvgConfig, FedAvg, "zeroth_order", "mean of clients' zeroth-order steps (Fang 2022)"
    ),
    "fedzo_adam": StrategyEntry(
        FedAvgConfig,
        FedAvg,
        "zeroth_order",
        "FedZO with one local step and Adam at the server",
        {
            "strategy.local_steps": 1,
            "strategy.local_lr": 1.0,
            "strategy.server_optimizer": "adam",
            "strategy.server_lr": 0.03,
            "client.optimizer": "sgd",
        },
    ),
    "seedzo": StrategyEntry(
        SeedZOConfig, SeedZO, "probes", "shared directions, scalars up, Adam at the server"
    ),
    "fedprox": StrategyEntry(
        FedProxConfig, fedprox, "zeroth_order", "FedZO with a proximal term (Li 2020)"
    ),
    "scaffold1": StrategyEntry(
        FedAvgConfig,
        Scaffold1,
        "zeroth_order",
        "control variates estimated at the server's x (Karimireddy 2020, I)",
    ),
    "scaffold2": StrategyEntry(
        FedAvgConfig,
        Scaffold2,
        "zeroth_order",
        "control variates from the last local steps (Karimireddy 2020, II)",
    ),
    "fzoos": StrategyEntry(
        FZooSConfig,
        FZooS,
        "surrogate",
        "trajectory-informed surrogate gradients, improved or as published (Shu 2023)",
        used_by=USED_BY,
        refused=dict.fromkeys(("strategy.epsilon", "strategy.delta"), NOT_PRIVATE),
    ),
    "dshb": StrategyEntry(
        FedAvgConfig,
        FedAvg,
        "momentum",
        "one step along the aggregate of momenta that clients keep (Allouah 2023)",
        {"strategy.local_steps": 1},
    ),
    "monna": StrategyEntry(
        MoNNAConfig, MoNNA, "momentum", "peers that average with their nearest (Farhadkhani 2023)"
    ),
    "fedprox_exact": StrategyEntry(
        FedProxConfig,
        fedprox,
        "first_order",
        "FedAvg with a proximal term, as in the paper (Li 2020)",
        {"strategy.proximal_weight": 0.1},
    ),
    "scaffold_exact": StrategyEntry(
        FedAvgConfig,
        Scaffold2,
        "first_order",
        "control variates from the last local gradients (Karimireddy 2020)",
    ),
    "fednova": StrategyEntry(
        FedNovaConfig,
        FedNova,
        "first_order",
        "normalized averaging of unequally many steps (Wang 2020)",
    ),
    "mifa": StrategyEntry(
        MIFAConfig, MIFA, "first_order", "mean of everybody's last update, however old (Gu 2021)"
    ),
    "fedpage": StrategyEntry(
        FedPAGEConfig,
        FedPAGE,
        "anchor",
        "local steps along a recursive gradient, renewed by coin (Zhao 2021)",
    ),
    "bvr_l_sgd": StrategyEntry(
        BVRLSGDConfig, FedPAGE, "anchor", "the same, renewed in turn, by one client (Murata 2021)"
    ),
    "fedamd": StrategyEntry(
        FedAMDConfig,
        FedAMD,
        "anchor",
        "anchors sample the gradient, miners step along it (Wu 2023)",
    ),
    "fedsaga": StrategyEntry(
        FedSAGAConfig,
        FedSAGA,
        "gradient",
        "every sampled client anchors, and x moves at once, by Adam with lookahead",
    ),
    "dp_fedavg": StrategyEntry(
        PrivateFedAvgConfig,
        PrivateFedAvg,
        "first_order",
        "FedAvg with clipped updates and noise: clients are private (McMahan 2018)",
        {"strategy.clip_norm": 0.1},
    ),
    "dp_fedzo": StrategyEntry(
        PrivateFedAvgConfig,
        PrivateFedAvg,
        "zeroth_order",
        "FedZO with clipped updates and noise: clients that can only query are private",
        {"strategy.clip_norm": 0.1},
    ),
    "diff2": StrategyEntry(
        DIFF2Config,
        DIFF2,
        "gradient_difference",
        "private gradients, renewed by private changes of gradients (Murata 2023)",
    ),
    "dp_gd": StrategyEntry(
        DIFF2Config,
        DIFF2,
        "gradient_difference",
        "gradient descent with private gradients: DIFF2 that restarts in every round",
        {"strategy.restart_period": 1, "strategy.lr_decay": "linear", "strategy.server_lr": 1.0},
    ),
    "diff2_zo": StrategyEntry(
        DIFF2Config,
        DIFF2,
        "gradient_difference",
        "DIFF2 of clients that can only query: private slopes along public directions",
        {"client.gradient": "zeroth_order", "strategy.server_lr": 0.05},
    ),
    "dp_zo": StrategyEntry(
        DIFF2Config,
        DIFF2,
        "gradient_difference",
        "FedZO with private slopes: diff2_zo that restarts in every round",
        {
            "client.gradient": "zeroth_order",
            "strategy.restart_period": 1,
            "strategy.lr_decay": "linear",
        },
    ),
    "square": StrategyEntry(
        SquareConfig, Square, "values", "random search by squares of an image (Andriushchenko 2020)"
    ),
    "thompson": StrategyEntry(
        FederatedThompsonConfig,
        FederatedThompson,
        "values",
        "Thompson sampling of the gradient of an image, over the corners of the box",
    ),
    "fedzen": StrategyEntry(
        FedZeNConfig,
        FedZeN,
        "probes",
        "Newton steps, Hessian learned on shared directions",
        refused={"client.lengthscale": "the Hessian is learned along orthonormal directions"},
    ),
    "relizo": StrategyEntry(
        ReLIZOConfig,
        ReLIZO,
        "probes",
        "least-norm interpolation of recent shared slopes",
        refused={"client.lengthscale": "the least norm supposes that coordinates matter alike"},
    ),
}

ENGINES: dict[str, tuple[type, str]] = {
    "inprocess": (InProcessConfig, "all clients in this process, as stacked tensors"),
    "ray": (RayConfig, "actors with fractions of CPUs and GPUs, on this machine or a cluster"),
    "superlink": (SuperLinkConfig, "a deployment: inside `flwr run` and `fedzo deploy` only"),
    "flower": (FlowerConfig, "Flower's own simulation: a ClientApp and messages for each client"),
}

__all__ = ["ENGINES", "RULE_CONFIGS", "SCENARIOS", "STRATEGIES", "InProcessConfig"]
