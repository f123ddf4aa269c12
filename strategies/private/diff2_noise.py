"""How much noise DIFF2 adds: the paper's closed form, or no more than the budget asks for.

    paper:  s1^2 = c1 a n1 / (n^2 eps),  s2^2 = c2 a R / (n^2 eps),   n = n_min P
            a = 1 + ceil(2 ln(1 / delta) / eps),  c1 = 5 and c2 = 20 (T > 1), or c1 = 4 (T = 1)
    tight:  z1^2 = n1 / (q mu^2),  z2^2 = n2 / ((1 - q) mu^2),   mu = mu(eps, delta) exactly

Murata & Suzuki, "DIFF2", ICML 2023, theorem 4.1 and their code; s = 2 z / n. n1 = ceil(R / T)
restarts, n2 = R - n1 changes, q the share of mu^2 for restarts. The code has R / T in the place of
n1, which exceeds epsilon where T does not divide R (3.053 for 3 at R = 10, T = 9, delta = 1e-5).
The closed form leaves 20 to 25 % of the budget unused; see fedzo.privacy.accountant for mu.

With local walks (routine bvr_l_sgd) a third share pays for K - 1 releases of samples at each turn
of a client; no closed form exists, so the three multipliers are scaled together until the Renyi
accountant says epsilon.
"""

import math
from dataclasses import dataclass, replace

from fedzo.privacy.accountant import EVERYBODY, Ledger, Sampling, noise_for
from strategies.core.privacy_config import PrivacyConfig
from strategies.private.privacy import scaled_to_budget


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Noise multipliers (std over sensitivity) of restarts, changes and local steps; 0 is none.

    samples_count: whether samples of records are accounted for as such, or as if all contributed.
    """

    restart: float
    change: float
    local: float = 0.0
    samples_count: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many releases a run makes: restarts, changes, and of each client local ones of b of n."""

    restarts: int
    changes: int
    local: int = 0
    sampling: Sampling = EVERYBODY

    def times(self, count: int) -> "Plan":
        """Return so many such runs against the same clients."""
        return replace(
            self,
            restarts=count * self.restarts,
            changes=count * self.changes,
            local=count * self.local,
        )

    def ledger(self, multipliers: Multipliers) -> Ledger:
        """Return the ledger at the end of the run."""
        sampling = self.sampling if multipliers.samples_count else EVERYBODY
        ledger = Ledger.empty()
        for z, count in ((multipliers.restart, self.restarts), (multipliers.change, self.changes)):
            ledger = ledger.after(z, count) if count else ledger
        return ledger.after(multipliers.local, self.local, sampling) if self.local else ledger


def releases(num_rounds: int, period: int) -> Plan:
    """Return how often a run restarts and how often it does not."""
    restarts = math.ceil(num_rounds / period)
    return Plan(restarts=restarts, changes=num_rounds - restarts)


def paper_multipliers(plan: Plan, config: PrivacyConfig) -> Multipliers:
    """Return the paper's noise, with the exact number of restarts."""
    epsilon, share = config.epsilon, 1.25
    order = 1 + math.ceil(2 * math.log(1 / config.delta) / epsilon)
    rounds = plan.restarts + plan.changes
    if not plan.changes:
        return Multipliers(math.sqrt(order * rounds / epsilon), 0.0)
    first, second = 4 * share, 4 * share / (share - 1)
    return Multipliers(
        math.sqrt(first * order * plan.restarts / epsilon) / 2,
        math.sqrt(second * order * rounds / epsilon) / 2,
    )


def tight_multipliers(
    plan: Plan, config: PrivacyConfig, restart_share: float, local_share: float
) -> Multipliers:
    """Return the least noise for the budget, divided by shares of mu^2.

    Renyi's bound of large samples without replacement may be looser than that of all records, which
    is taken where no multiplier is larger by it.
    """
    square = noise_for(config.epsilon, config.delta) ** -2
    pure = square * (1 - local_share if plan.local else 1)
    restart_share = restart_share if plan.changes else 1.0
    found = Multipliers(
        math.sqrt(plan.restarts / (restart_share * pure)),
        math.sqrt(plan.changes / ((1 - restart_share) * pure)) if plan.changes else 0.0,
    )
    if not plan.local:
        return found
    rate = plan.sampling.drawn / plan.sampling.population

    def scaled(samples_count: bool) -> Multipliers:
        share = rate if samples_count else 1.0
        local = max(1.0, share * math.sqrt(plan.local / (local_share * square)))

        def times(factor: float) -> Multipliers:
            own = found.restart * factor, found.change * factor, local * factor
            return Multipliers(*own, samples_count)

        return times(scaled_to_budget(config, lambda factor: plan.ledger(times(factor))))

    drawn = scaled(True)
    if rate == 1:
        return drawn
    whole = scaled(False)
    return whole if whole.restart <= drawn.restart and whole.local <= drawn.local else drawn


def counted(plan: Plan, config: PrivacyConfig, multipliers: Multipliers) -> Multipliers:
    """Return multipliers that were given, with their samples accounted for as costs less."""
    ways = [multipliers, replace(multipliers, samples_count=False)]
    return min(
        ways, key=lambda way: plan.ledger(way).epsilon(config.delta, adjacency=config.adjacency)
    )
