"""Settings of the engines, apart from the engines so that nobody imports Ray to read them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from fedzo.config import check_types, require, require_nonnegative
from fedzo.errors import ConfigError
from fedzo.used_with import UsedWith, above, any_of, one_of, other_than, unknown, where

DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcessConfig:
    """Settings of the engine `inprocess`.

    strict: whether every exchange goes through the message codec and protobuf. chunk_size: clients
    that a rule sees at once, 0 chooses it. device: where objectives are evaluated, auto is cuda
    where there is a GPU. record: whether to write messages.jsonl, a line a message, into --out.
    workers: clients with code of their own that are asked for values at a time, in threads: for
    simulators that wait or compute outside of Python; formulas are computed together anyway.
    """

    strict: bool = False
    chunk_size: int = 0
    device: DeviceName = "cpu"
    record: bool = False
    workers: int = 1
    USED_WITH: ClassVar[UsedWith] = {
        "strategy.timeout_s": any_of(
            where("engine", unknown, "{}=ray, flower or superlink"),
            other_than("fleet.preset", "none"),
        ),
        "workers": one_of("scenario", "custom", "attack", "classification", "finetune", "metric"),
    }

    def __post_init__(self) -> None:
        check_types(self)
        require(self.chunk_size >= 0, "chunk_size", self.chunk_size, "0 (automatic) or more")
        require(1 <= self.workers <= 1024, "workers", self.workers, "1 to 1024")


@dataclass(frozen=True, slots=True, kw_only=True)
class RayConfig:
    """Settings of the engine `ray`.

    num_actors: 0 makes as many as the cluster has room for. num_cpus, num_gpus: what an actor
    reserves; fractions share. device: where objectives are evaluated, auto is cuda where an actor
    has a GPU. memory_fraction: share of its GPU's memory that an actor may use, 0 is num_gpus.
    chunk_size: clients in a call, 0 spreads each exchange over the actors. retries: further tries
    of a chunk whose actor died. address: a running cluster (`auto`, or host:port of `ray start`);
    empty starts one here, with cluster_cpus and cluster_gpus, 0 and -1 for what is there. record:
    whether to write messages.jsonl, a line a message, into --out.
    """

    num_actors: int = 0
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    device: DeviceName = "auto"
    memory_fraction: float = 0.0
    chunk_size: int = 0
    retries: int = 1
    address: str = ""
    cluster_cpus: int = 0
    cluster_gpus: int = -1
    record: bool = False
    USED_WITH: ClassVar[UsedWith] = {
        **dict.fromkeys(("cluster_cpus", "cluster_gpus"), one_of("address", "")),
        "memory_fraction": (above("num_gpus", 0), other_than("device", "cpu")),
    }

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("num_actors", "num_gpus", "chunk_size", "retries", "cluster_cpus"):
            require_nonnegative(name, getattr(self, name))
        require(self.num_cpus > 0, "num_cpus", self.num_cpus, "positive, such as 0.5")
        require(0 <= self.memory_fraction <= 1, "memory_fraction", self.memory_fraction, "0 to 1")
        if not self.address and self.cluster_cpus:
            self.require_room(int(self.cluster_cpus / self.num_cpus + 1e-9))

    def require_room(self, room: int) -> None:
        """Raise ConfigError for more actors than have room."""
        if self.num_actors > room:
            raise ConfigError(
                f"num_actors={self.num_actors} do not fit: there is room for {room} with"
                f" engine.num_cpus={self.num_cpus:g} and engine.num_gpus={self.num_gpus:g}; lower"
                " one of them, or raise engine.cluster_cpus"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerConfig:
    """Settings of the engine `flower`, Flower's own simulation on Ray.

    num_cpus, num_gpus: what one of Flower's actors reserves; a fraction of a GPU shares it. device:
    where objectives are evaluated, auto is cuda where an actor has a GPU. poll_s: seconds between
    looks for answers. verbose: whether Flower's own log is shown. record: whether to write
    messages.jsonl, a line a message, into --out.
    """

    num_cpus: int = 1
    num_gpus: float = 0.0
    device: DeviceName = "auto"
    poll_s: float = 0.01
    verbose: bool = False
    record: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_cpus >= 1, "num_cpus", self.num_cpus, "at least 1")
        require_nonnegative("num_gpus", self.num_gpus)
        require(0 < self.poll_s <= 60, "poll_s", self.poll_s, "above 0, at most 60")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperLinkConfig:
    """Settings of the engine `superlink`, the nodes of a deployment.

    wait_s: longest wait for the nodes at the start. poll_s: seconds between looks for answers.
    record: whether to write messages.jsonl, a line a message, into the run's directory.
    """

    wait_s: float = 300.0
    poll_s: float = 0.05
    record: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        require(self.wait_s > 0, "wait_s", self.wait_s, "positive")
        require(0 < self.poll_s <= 60, "poll_s", self.poll_s, "above 0, at most 60")
