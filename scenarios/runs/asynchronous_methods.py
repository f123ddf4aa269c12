"""Strategies that do not wait for everybody, as the table of strategies has them."""

from scenarios.runs.entries import NO_PRIVATE_FZOOS, ON_A_CLOCK, StrategyEntry

ASYNCHRONOUS: dict[str, StrategyEntry] = {
    "fzoos_async": StrategyEntry(
        "strategies.surrogate.fzoos_asynchronous",
        "AsyncFZooS",
        "AsyncFZooSConfig",
        "surrogate",
        "FZooS that goes on with every K-th answer, about whatever point; on a clock",
        preset=ON_A_CLOCK,
        refused=NO_PRIVATE_FZOOS,
    ),
    "fedbuff": StrategyEntry(
        "strategies.averaging.fedbuff",
        "FedBuff",
        "FedBuffConfig",
        "first_order",
        "steps with every K-th answer, however old; on a clock (Nguyen 2022)",
        preset=ON_A_CLOCK,
    ),
    "fedbuff_zo": StrategyEntry(
        "strategies.averaging.fedbuff",
        "FedBuff",
        "FedBuffConfig",
        "zeroth_order",
        "FedBuff whose clients estimate gradients from values",
        preset=ON_A_CLOCK,
    ),
    "fedasync": StrategyEntry(
        "strategies.averaging.fedasync",
        "FedAsync",
        "FedAsyncConfig",
        "first_order",
        "mixes in every answer as it comes; on a clock (Xie 2019)",
        preset=ON_A_CLOCK,
    ),
    "fedasync_zo": StrategyEntry(
        "strategies.averaging.fedasync",
        "FedAsync",
        "FedAsyncConfig",
        "zeroth_order",
        "FedAsync whose clients estimate gradients from values",
        preset=ON_A_CLOCK,
    ),
    "fedbuff_seed_scalar": StrategyEntry(
        "strategies.shared.seed_scalar_waves",
        "FedBuffSeedScalar",
        "FedBuffSeedScalarConfig",
        "in_place",
        "FedBuff on modules of any size: late numbers up, a log of numbers down",
        preset=ON_A_CLOCK,
    ),
}
