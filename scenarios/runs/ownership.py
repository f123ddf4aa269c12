"""Whose data a run is about: fedzo's, which anybody has, or the user's own.

fedzo's are what it makes (quadratic, multimodal, adversarial_policy, attribution, regression's
synthetic) and what packages ship (digits, mnist5k, california, covertype, Debian's Fashion-MNIST).
All else is the user's own: a scenario that the user made, objectives, models, CSV files, folders of
images, live victims, and what a deployment's nodes hold. A private strategy treats
the two differently:

| | fedzo's data, simulated | the user's own, and every deployment |
|---|---|---|
| strategy.noise_source | stream: simulated noise, repeats with the seed | os |
| strategy.report_shortened | true | false |
| evaluate_every=0 judges | the first and the last x, where no client is asked | nothing |

What a user asks for by name is done, and where it undoes the privacy of own data, it is said.
"""

from collections.abc import Mapping

from fedzo.config import Scalar
from fedzo.parts import has_part
from scenarios.data.images import FASHION_DIR
from scenarios.problems.adversarial_policy import AdversarialPolicyConfig
from scenarios.problems.attack_config import AttackConfig
from scenarios.problems.attribution import AttributionConfig
from scenarios.problems.classification import ClassificationConfig
from scenarios.problems.metric import MetricConfig
from scenarios.problems.multimodal import MultimodalConfig
from scenarios.problems.quadratic import QuadraticConfig
from scenarios.problems.regression import RegressionConfig
from strategies.core.privacy_config import PrivacyConfig

_MADE = (QuadraticConfig, MultimodalConfig, AdversarialPolicyConfig)


def is_own(scenario: object) -> bool:
    """Return whether the settings of a scenario name data of the user's own."""
    if isinstance(scenario, RegressionConfig | MetricConfig):
        return scenario.data == "csv"
    if isinstance(scenario, AttackConfig | ClassificationConfig):
        folder = scenario.dataset == "idx" and scenario.data_dir not in ("", FASHION_DIR)
        return folder or (isinstance(scenario, AttackConfig) and bool(scenario.endpoints))
    if isinstance(scenario, AttributionConfig):
        return bool(scenario.model)
    return not isinstance(scenario, _MADE)


def simulated_privacy(strategy: type, scenario: object, engine: str) -> Mapping[str, Scalar]:
    """Return settings of private strategies where no data of anybody are at stake.

    Noise then repeats with the seed, and what is not private may be told.
    """
    private = has_part(strategy, PrivacyConfig)
    if not private or engine == "superlink" or is_own(scenario):
        return {}
    return {"strategy.noise_source": "stream", "strategy.report_shortened": True}
