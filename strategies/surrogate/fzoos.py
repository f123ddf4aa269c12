"""FZooS: federated zeroth-order optimization with trajectory-informed surrogate gradients.

Shu, Lin, Dai & Low, arXiv 2308.04077. Four variants, one strategy:

| variant   | the surrogate is of             | moves a round              | floats up a client  |
|-----------|---------------------------------|----------------------------|---------------------|
| improved  | all clients' slopes, at server  | virtual steps, line search | m + 5               |
| on_client | each client's slopes, kept there | Adam steps, corrected      | 2 d + 3             |
| paper     | each client's values            | Adam steps, corrected      | d + M               |
| official  | the same, as the published code | the same, with a safeguard | d + M + 2           |

docs/fzoos.md explains the variants, docs/results/fzoos.md measures them.
"""

from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fedzo.protocol.questions.surrogate import SurrogateConfig
from strategies.core.configured import ConfiguredStrategy
from strategies.core.rounds import Round, RoundPlan
from strategies.surrogate.fzoos_config import FZooSConfig
from strategies.surrogate.fzoos_improved import SlopeSearch
from strategies.surrogate.fzoos_on_client import OnClientFZooS
from strategies.surrogate.fzoos_paper import PublishedFZooS

__all__ = ["FZooS", "FZooSConfig"]


class FZooS(ConfiguredStrategy[FZooSConfig, SurrogateConfig, Any]):
    """FZooS in one of its variants.

    client: settings of the rule `surrogate`; the variants paper and official alone use them.
    """

    needs_own_x = True
    client_config = SurrogateConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> Any:
        return self._method.init(x, num_clients)

    def round(self, state: Any, plan: RoundPlan) -> Round[Any]:
        return self._method.round(state, plan)

    @cached_property
    def _method(self) -> SlopeSearch | OnClientFZooS | PublishedFZooS:
        if self._config.variant == "improved":
            return SlopeSearch(self._config)
        if self._config.variant == "on_client":
            return OnClientFZooS(self._config)
        return PublishedFZooS(self._config, self._client)
