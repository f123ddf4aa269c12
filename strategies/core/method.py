"""What the driver needs of a strategy."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fedzo.objectives.asking import OnFailure
from strategies.core.privacy_config import PrivacyConfig
from strategies.core.robust import Defence, RobustConfig
from strategies.core.rounds import Round, RoundConfig, RoundPlan, StateT


@runtime_checkable
class RoundMethod(Protocol[StateT]):
    """A strategy, with all that the driver looks at."""

    @property
    def rounds(self) -> RoundConfig:
        """The settings of the rounds."""
        ...

    @property
    def robust(self) -> RobustConfig:
        """How malicious answers are withstood."""
        ...

    @property
    def remembers(self) -> bool:
        """Whether the robust rule is also asked about a table of all clients."""
        ...

    @property
    def privacy(self) -> PrivacyConfig | None:
        """What is claimed of clients' data; None where nothing is."""
        ...

    @property
    def on_failure(self) -> OnFailure:
        """What clients do where their code raises (fedzo.objectives.asking)."""
        ...

    def cohort_generator(self, seed: int, problem: int, round_index: int) -> np.random.Generator:
        """Return the generator that draws the cohort of a round."""
        ...

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> StateT:
        """Return the state before the first round."""
        ...

    def round(self, state: StateT, plan: RoundPlan) -> Round[StateT]:
        """Yield lists of exchanges, receive lists of replies, return the next state."""
        ...


@runtime_checkable
class StepsEarly(Protocol):
    """A method whose server may step before all who are asked have answered."""

    def steps_with(self, cohort: int) -> int:
        """Return after how many answers the server steps where so many are asked."""
        ...


def defence_of(method: RoundMethod[StateT], num_clients: int) -> Defence:
    """Return a strategy's robust rule among so many clients."""
    cohort = method.rounds.cohort_size(num_clients)
    return Defence(
        robust=method.robust,
        cohort=cohort,
        answers=method.steps_with(cohort) if isinstance(method, StepsEarly) else cohort,
        num_clients=num_clients,
        remembers=method.remembers,
    )
