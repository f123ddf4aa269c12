"""A strategy made of settings: what the driver wants to know of it is found among their parts."""

from functools import cached_property
from typing import Generic, TypeVar

from fedzo.objectives.asking import OnFailure
from fedzo.optimizers import Optimizer
from fedzo.parts import find_part, need_part
from strategies.core.base import RoundStrategy
from strategies.core.privacy_config import PrivacyConfig
from strategies.core.robust import RobustConfig
from strategies.core.rounds import RoundConfig, StateT
from strategies.core.step_config import ServerConfig

ConfigT = TypeVar("ConfigT")
ClientT = TypeVar("ClientT")


class ConfiguredStrategy(RoundStrategy[StateT], Generic[ConfigT, ClientT, StateT]):
    """A strategy of its own settings and those of its clients, `client_config()` if none are given.

    Rounds, robust rule, privacy and the server's optimizer are those of the parts that say so,
    wherever in the settings these are; without such a part nothing is withstood or claimed.
    """

    client_config: type[ClientT]

    def __init__(self, config: ConfigT, *, client: ClientT | None = None) -> None:
        self._config = config
        self._client = self.client_config() if client is None else client

    @cached_property
    def rounds(self) -> RoundConfig:
        return need_part(self._config, RoundConfig)

    @cached_property
    def robust(self) -> RobustConfig:
        return find_part(self._config, RobustConfig) or RobustConfig()

    @cached_property
    def privacy(self) -> PrivacyConfig | None:
        return find_part(self._config, PrivacyConfig)

    @property
    def on_failure(self) -> OnFailure:
        told: OnFailure = getattr(self._client, "on_failure", "fail")
        return told

    @cached_property
    def _optimizer(self) -> Optimizer:
        return need_part(self._config, ServerConfig).optimizer()
