"""For how many records a client the noise is made, and which clients take part.

    bound = strategy.min_records, or, where that is 0, found among the N numbers that clients say:
            n_(j+1) in ascending order, with the least j <= (N - 1) / 2 for which
            2 (N - j) n_(j+1) >= max_i (N - i) n_(i+1)

The noise of a mean over k clients with at least b records each is proportional to 1 / (k b). So a
minority of clients that say too little, or nothing, cannot make the noise more than twice as large
as it would be without them, and nobody is left out for less than that. Whoever says fewer than the
bound must not take part: one of its records could move the mean by more than the noise covers. Who
says more than it has gives up its own protection, nobody else's. Numbers of records are public.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int
from torch import Tensor

from fedzo.errors import ConfigError, FedzoWarning
from fedzo.protocol.questions.private import Clipped, ClippedMeans, Records, RecordsTold
from strategies.core.asking import Asked, Asking, Heard, ask
from strategies.core.privacy_config import PrivateConfig
from strategies.core.rounds import RoundPlan, TooFewAnswers

MOST_RECORDS = 10**12
"""Nobody has more; who says so is left out."""

_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Claims:
    """How many records each client says that it has (-1 before it has), and the bound.

    missed: how often each has lately made a round void by its silence; rest: rounds for which it is
    not asked therefore. compared: 1 for clients that have answered, and so have shown that their
    records' losses average to their objective. All are empty while nobody has.
    """

    said: Int[Tensor, " n"]
    bound: int = 0
    missed: Int[Tensor, " k"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    rest: Int[Tensor, " k"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    compared: Int[Tensor, " c"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    @staticmethod
    def none(num_clients: int) -> "Claims":
        return Claims(torch.full((num_clients,), _UNKNOWN, dtype=torch.int64))

    @property
    def members(self) -> list[int]:
        """Return the clients that take part."""
        if not self.bound:
            return []
        fits = (self.said >= self.bound) & (self.said <= MOST_RECORDS)
        awake = set(fits.nonzero().flatten().tolist()) - set(self.resting)
        return sorted(awake)

    @property
    def resting(self) -> list[int]:
        """Return the clients that are not asked for a while, because they did not answer."""
        found: list[int] = self.rest.nonzero().flatten().tolist()
        return found

    @property
    def left_out(self) -> dict[int, str]:
        """Return those that have said a number and do not take part, with the reason."""
        told = {c: int(n) for c, n in enumerate(self.said.tolist()) if n != _UNKNOWN}
        return {
            client: f"left out: it says {number} records, and the noise is made for clients of"
            f" {self.bound} to {MOST_RECORDS:g} (strategy.min_records)"
            for client, number in told.items()
            if not self.bound <= number <= MOST_RECORDS
        }


def by_comparison(claims: Claims, cohort: Sequence[int]) -> list[tuple[bool, list[int]]]:
    """Return whose losses are still to be compared, with True, and the others, with False."""
    done = set(claims.compared.nonzero().flatten().tolist())
    return [(due, [c for c in cohort if (c in done) != due]) for due in (True, False)]


def compared_first(
    question: Clipped, claims: Claims, cohort: Sequence[int]
) -> list[Asked[ClippedMeans]]:
    """Return what is asked of whom: those still to be compared are asked to be so first."""
    if question.unit == "client":
        return [(question, cohort)]
    asked = list[Asked[ClippedMeans]]()
    for due, some in by_comparison(claims, cohort):
        rows = None if question.first_row is None else question.first_row[: len(some)]
        asked.append((replace(question, compare=due, first_row=rows), some))
    return asked


def after_comparison(claims: Claims, answered: Sequence[int]) -> Claims:
    """Return the claims after answers that came with comparisons where these were due."""
    compared = claims.compared if claims.compared.numel() else torch.zeros_like(claims.said)
    compared = compared.clone()
    compared[list(answered)] = 1
    return replace(claims, compared=compared)


def next_round(claims: Claims) -> Claims:
    """Return the claims at the start of a round: who rests does so for one round less."""
    return replace(claims, rest=(claims.rest - 1).clamp(min=0))


def after_answers(claims: Claims, asked: Sequence[int], answered: Sequence[int]) -> Claims:
    """Return the claims after a round that needs everybody's answer.

    Who stays silent rests for a round, the next time for two, and so on: of R rounds, one that is
    never heard makes at most sqrt(2 R) void. An answer makes good.
    """
    silent = [client for client in asked if client not in set(answered)]
    if not silent and not bool(claims.missed.any()):
        return claims
    blank = torch.zeros_like(claims.said)
    missed = claims.missed.clone() if claims.missed.numel() else blank.clone()
    rest = claims.rest.clone() if claims.rest.numel() else blank.clone()
    missed[list(answered)] = 0
    missed[silent] += 1
    rest[silent] = missed[silent] + 1
    return replace(claims, missed=missed, rest=rest)


def admitted(claims: Claims, config: PrivateConfig, plan: RoundPlan) -> Asking[Claims]:
    """Ask the clients that do not take part yet, and return who does.

    Raises TooFewAnswers where nobody does, and ConfigError where most clients have no records.
    """
    claims = next_round(claims)
    absent = sorted(set(plan.cohort) - set(claims.members) - set(claims.resting))
    if not absent:
        return claims
    heard = yield from ask(Records(), absent, optional=claims.bound > 0)
    privacy = config.privacy
    if privacy.unit == "client":
        return replace(claims, said=torch.ones_like(claims.said), bound=1)
    said = _updated(claims.said, heard)
    found = replace(claims, said=said, bound=privacy.min_records or found_bound(_plausible(said)))
    if (said[list(heard.clients)] == 0).sum() * 2 > len(plan.cohort):
        raise ConfigError(
            "strategy.unit=record needs objectives over records; set it to client, or run the"
            " scenarios regression or classification"
        )
    _tell(claims.left_out if claims.bound else {}, found.left_out)
    if privacy.min_records and not found.members and (known := _plausible(said)):
        raise ConfigError(
            f"strategy.min_records={privacy.min_records} is more than any of {len(known)} clients"
            f" says that it has; set it to {max(known)} or less"
        )
    least = min(config.rounds.min_answers, len(plan.cohort))
    if len(found.members) < least:
        raise TooFewAnswers(
            f"round {plan.round_index}: {len(found.members)} of {len(plan.cohort)} clients said how"
            f" many records they have, as the noise must know, strategy.min_answers={least}"
        )
    return found


def _updated(said: Int[Tensor, " n"], heard: Heard[RecordsTold]) -> Int[Tensor, " n"]:
    """Return the claims with those that came; 0 of clients that do not count their records."""
    counts = heard.counts.get("num_examples", {})
    said = said.clone()
    for client in heard.clients:
        said[client] = min(counts.get(client, 0), torch.iinfo(torch.int64).max)
    return said


def _plausible(said: Int[Tensor, " n"]) -> list[int]:
    return [int(n) for n in said.tolist() if 1 <= n <= MOST_RECORDS]


def found_bound(claims: Sequence[int]) -> int:
    """Return the bound that a minority cannot move by much; 0 where nobody has said a number."""
    if not claims:
        return 0
    count, claims = len(claims), sorted(claims)
    averaged = [(count - j) * claims[j] for j in range((count - 1) // 2 + 1)]
    enough = math.ceil(max(averaged) / 2)
    return next(claims[j] for j, records in enumerate(averaged) if records >= enough)


def _tell(before: Mapping[int, str], now: Mapping[int, str]) -> None:
    """Warn of clients that have not been left out before."""
    fresh = {client: reason for client, reason in now.items() if client not in before}
    if fresh:
        client, reason = next(iter(fresh.items()))
        more = f", and {len(fresh) - 1} more" if len(fresh) > 1 else ""
        warnings.warn(f"client {client}{more}: {reason}", FedzoWarning, stacklevel=2)
