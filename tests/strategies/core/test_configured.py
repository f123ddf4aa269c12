"""A strategy of settings finds what the driver asks about among their parts."""

import math

import pytest
import torch

from fedzo.optimizers import Adam
from fedzo.protocol.questions.probes import ProbesConfig
from strategies.averaging.mifa import MIFA, MIFAConfig
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import RobustConfig
from strategies.core.rounds import RoundConfig
from strategies.private.private_fedavg import PrivateFedAvg, PrivateFedAvgConfig
from strategies.shared.fedzen import FedZeN, FedZeNConfig


def test_parts_are_found_wherever_they_are() -> None:
    config = MIFAConfig(participation=0.5, aggregator="median", server_optimizer="adam")
    strategy = MIFA(config)
    assert strategy.rounds == RoundConfig(participation=0.5)
    assert strategy.robust.aggregator == "median"
    assert isinstance(strategy._optimizer, Adam)
    assert strategy.privacy is None
    assert strategy.remembers


def test_a_private_strategy_claims_what_its_settings_say() -> None:
    privacy = PrivateFedAvg(PrivateFedAvgConfig(epsilon=2.0)).privacy
    assert privacy is not None
    assert (privacy.epsilon, privacy.unit) == (2.0, "client")


def test_without_a_part_nothing_is_withstood_and_no_optimizer_is_there() -> None:
    strategy = FedZeN(FedZeNConfig())
    assert strategy.robust == RobustConfig()
    with pytest.raises(TypeError, match="FedZeNConfig has no ServerConfig among its parts"):
        _ = strategy._optimizer


def test_clients_have_their_usual_settings_unless_told() -> None:
    class Still(ConfiguredStrategy[FedZeNConfig, ProbesConfig, object]):  # type: ignore[type-var]
        client_config = ProbesConfig

        def init(self, x: torch.Tensor, num_clients: int) -> object:
            return self._client

        def round(self, state, plan):  # type: ignore[no-untyped-def]
            raise AssertionError

    x = torch.zeros(2)
    assert Still(FedZeNConfig()).init(x, 1) == ProbesConfig()
    told = ProbesConfig(mu=math.pi)
    assert Still(FedZeNConfig(), client=told).init(x, 1) is told
