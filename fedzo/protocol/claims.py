"""What clients on a wire say that they have done: believed as far as it can be true.

Nobody can check how many queries a client has made; what it says is counted, and eats the budget of
all. So an answer is rejected that claims more queries than were allowed, or more than FACTOR times
what is usual in its cohort (the median of those who answered, and at least USUAL), or, where so few
answered that nothing is usual, than what the question says that it costs. Of rejected answers, and
of failures, no more is counted than was allowed, and than the most that an accepted answer claims,
or the question where there is none, or RETRIES times more where a point is asked again.

The number of a client's examples is what it has, not what it has done: who uses it judges it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median_low

from fedzo.objectives.asking import RETRIES
from fedzo.protocol.exchange import Exchange, Replies

FACTOR = {"queries": 10, "gradients": 10, "examples": 1000, "non_finite": 10}
"""Work of clients with one question differs by what they hold: by little, or by their examples."""
USUAL = 100
"""What may always be: a client may be the only one that has found anything to do."""
FEWEST = 3
"""So many answers say what is usual."""


def believable(exchanges: Sequence[Exchange], received: Sequence[Replies]) -> list[Replies]:
    """Reject answers whose claims cannot be true, and bound what is counted of all that failed.

    Answers to questions of one kind, made at once, are compared with each other.
    """
    limits = [_limits(exchange, exchanges, received) for exchange in exchanges]
    pairs = zip(received, limits, strict=True)
    judged = [part.without(_overdrawn(part, limit)) for part, limit in pairs]
    return [
        _bounded(part, {**limit, **_most(exchange, exchanges, judged, limit)})
        for exchange, part, limit in zip(exchanges, judged, limits, strict=True)
    ]


def _claims(
    exchange: Exchange, exchanges: Sequence[Exchange], parts: Sequence[Replies], name: str
) -> list[int]:
    """Return what is claimed of a count by those who answered a question of this kind."""
    return [
        part.counts.get(name, {}).get(client, 0)
        for other, part in zip(exchanges, parts, strict=True)
        if type(other.question) is type(exchange.question)
        for client in part.client_ids
    ]


def _limits(
    exchange: Exchange, exchanges: Sequence[Exchange], received: Sequence[Replies]
) -> dict[str, int]:
    """Return the most that may be claimed of each count, where anything is known of it."""
    limits = {}
    for name, factor in FACTOR.items():
        claims = _claims(exchange, exchanges, received, name)
        usual = median_low(claims) if len(claims) >= FEWEST else _foreseen(exchange, name)
        if usual is not None:
            limits[name] = factor * max(usual, USUAL)
    if exchange.budget is not None:
        limits["queries"] = min(exchange.budget, limits.get("queries", exchange.budget))
    return limits


def _foreseen(exchange: Exchange, name: str) -> int | None:
    """Return what a question says that it costs; None where it does not say."""
    cost = exchange.question.cost()
    if name not in ("queries", "gradients") or not (cost.queries or cost.gradients):
        return None
    return _tries(exchange) * int(getattr(cost, name))


def _most(
    exchange: Exchange,
    exchanges: Sequence[Exchange],
    judged: Sequence[Replies],
    limits: Mapping[str, int],
) -> dict[str, int]:
    """Return the most that is counted of each count: what an accepted answer claims, if any."""
    most = {}
    for name in FACTOR:
        claims = _claims(exchange, exchanges, judged, name)
        count = _tries(exchange) * max(claims) if claims else _foreseen(exchange, name)
        if count is not None:
            most[name] = min(count, limits.get(name, count))
    return most


def _tries(exchange: Exchange) -> int:
    return 1 + RETRIES * (exchange.on_failure == "retry")


def _overdrawn(part: Replies, limits: Mapping[str, int]) -> dict[int, str]:
    """Return the clients whose answers claim too much, with the reason."""
    return {
        client: f"malformed reply: it claims {of[client]} {name}, {limit} were allowed"
        for name, limit in limits.items()
        for client in part.client_ids
        if (of := part.counts.get(name, {})).get(client, 0) > limit
    }


def _bounded(part: Replies, bounds: Mapping[str, int]) -> Replies:
    """Return the replies with counts of failures that nobody's claims have blown up."""
    if not part.failures:
        return part
    counts = {
        name: {
            client: min(claimed, bounds.get(name, claimed)) if client in part.failures else claimed
            for client, claimed in of.items()
        }
        for name, of in part.counts.items()
    }
    return replace(part, counts=counts)
