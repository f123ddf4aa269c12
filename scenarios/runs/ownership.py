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
from strategies.core.privacy_config import PrivacyConfig


def is_own(scenario: object) -> bool:
    """Return whether the settings of a scenario name data of the user's own: unless they deny it.

    They do by `own_data`; a scenario that the user made has none.
    """
    return bool(getattr(scenario, "own_data", True))


def simulated_privacy(strategy: type, scenario: object, engine: str) -> Mapping[str, Scalar]:
    """Return settings of private strategies where no data of anybody are at stake.

    Noise then repeats with the seed, and what is not private may be told.
    """
    private = has_part(strategy, PrivacyConfig)
    if not private or engine == "superlink" or is_own(scenario):
        return {}
    return {"strategy.noise_source": "stream", "strategy.report_shortened": True}
