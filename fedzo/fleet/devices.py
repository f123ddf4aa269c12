"""Devices, drawn by key: nothing is stored for the clients that nobody asks.

    slowness_i = exp(s z_i)          s = speed_spread, z_i standard normal; 1 is the median
    link_i     = median exp(-l z_i)  both ways alike, l = link_spread
    p_i(t)     = online (1 + a sin(2 pi (t/day + phase_i))) / (1 + a)        a = diurnal

A straggler is a Gilbert-Elliott chain over rounds: good to bad with p = stragglers, back with
q = recovery, from its stationary law. One uniform number u a client and round moves it: below both
p and 1 - q it becomes bad from either state, above both good, so its state follows from the last
round in which that happened, and nothing is kept. Being online holds for ten minutes at a time.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedzo.errors import ConfigError
from fedzo.fleet.config import GRADIENT_QUERIES, FleetConfig
from fedzo.fleet.jobs import Jobs, Numbers
from fedzo.protocol.exchange import Moment
from fedzo.randomness import Part, uniforms

DAY_S, ONLINE_S = 86_400.0, 600.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of each job [n] on the way down, at work and on the way up, and which are lost."""

    down: Numbers
    compute: Numbers
    up: Numbers
    lost: NDArray[np.bool_]

    @property
    def total(self) -> Numbers:
        """All of a job's seconds."""
        return self.down + self.compute + self.up


class Fleet:
    """Prices jobs; all draws are functions of the seed, the client and the moment.

    examples: numbers of examples by client, where speed depends on them. Raises ConfigError for a
    file that cannot be used, and for a correlation with what nobody knows.
    """

    def __init__(
        self, config: FleetConfig, *, seed: int, examples: Sequence[int] | None = None
    ) -> None:
        self.config, self._seed = config, seed
        self._links = config.links
        self._given = _read(Path(config.file)) if config.file else {}
        self._scores = _scores(examples) if config.correlation else None

    def spent(self, jobs: Jobs, moment: Moment, *, free: bool = False) -> Spent:
        """Return the seconds of every job; free: whether work may cost nothing.

        Raises ConfigError for work that has no price, and for clients that a file leaves out.
        """
        config, ids = self.config, jobs.clients
        jitter = np.exp(config.jitter * self._normals("jitter", *moment.parts, clients=ids))
        slow = jitter * np.where(
            self._straggling(ids, moment.problem, moment.round_index), config.straggler_factor, 1.0
        )
        down, up = self._speeds(ids)
        rtt = self._links.rtt_s
        return Spent(
            down=rtt + jitter * jobs.down / down,
            compute=slow * self._work(jobs, free),
            up=rtt + jitter * jobs.up / up,
            lost=jobs.silent
            | (self._uniforms("lost", *moment.parts, clients=ids) < config.drop_out),
        )

    def require(self, num_clients: int) -> None:
        """Raise ConfigError where a file leaves one of so many clients out."""
        for client in range(num_clients if self._given else 0):
            self._row(client)

    def slowness(self, ids: Sequence[int]) -> Numbers:
        """Return how many times as long as the median device these take for the same work [n]."""
        if self._given:
            rows = np.asarray([self._row(client)[0] for client in ids])
            return np.asarray(rows / np.median([row[0] for row in self._given.values()]))
        z: Numbers = self._normals("speed", clients=ids)
        rho = self.config.correlation
        if self._scores is not None:
            z = rho * self._scores[np.asarray(ids)] + math.sqrt(1 - rho**2) * z
        return np.asarray(np.exp(self.config.speed_spread * z))

    def online(self, ids: Sequence[int], at_s: float) -> NDArray[np.bool_]:
        """Return which clients can be reached at a time [n]."""
        config = self.config
        if config.online == 1 and config.diurnal == 0:
            return np.ones(len(ids), dtype=bool)
        phase, spell = self._uniforms("phase", clients=ids), int(at_s // ONLINE_S)
        wave = np.sin(2 * np.pi * (spell * ONLINE_S / DAY_S + phase))
        likely = config.online * (1 + config.diurnal * wave) / (1 + config.diurnal)
        return self._uniforms("online", spell, clients=ids) < likely

    def _speeds(self, ids: NDArray[np.int64]) -> tuple[Numbers, Numbers]:
        """Return bytes/s down and up [n]."""
        if self._given:
            rows = np.asarray([self._row(client) for client in ids.tolist()])
            return rows[:, 1], rows[:, 2]
        factor = np.exp(-self._links.spread * self._normals("link", clients=ids))
        return self._links.down * factor, self._links.up * factor

    def _work(self, jobs: Jobs, free: bool) -> Numbers:
        """Return the seconds of computing [n], before jitter."""
        points = jobs.queries + jobs.gradients
        if not points.any() and not free:
            raise ConfigError(
                f"clients {jobs.clients[:3].tolist()} have counted neither a query nor a gradient,"
                " so the time of their work is not known; leave out fleet.preset"
            )
        ids = jobs.clients.tolist()
        if self._given:
            query_s: Numbers = np.asarray([self._row(client)[0] for client in ids])
        elif self.config.query_s:
            query_s = self.config.query_s * self.slowness(ids)
        else:
            each = jobs.examples / np.maximum(points, 1)
            query_s = self._links.example_s * each * self.slowness(ids)
        gradient_s = GRADIENT_QUERIES * query_s
        if self.config.gradient_s:
            gradient_s = self.config.gradient_s * self.slowness(ids)
        if bool((jobs.queries * (query_s == 0) + jobs.gradients * (gradient_s == 0)).any()):
            raise ConfigError(
                "a query of these clients stands for no examples that could be priced: set"
                " fleet.query_s to the seconds that a query takes on a middling device"
            )
        return jobs.queries * query_s + jobs.gradients * gradient_s

    def _straggling(
        self, ids: NDArray[np.int64], problem: int, round_index: int
    ) -> NDArray[np.bool_]:
        p, q = self.config.stragglers, self.config.recovery
        bad = np.zeros(len(ids), dtype=bool)
        if p == 0:
            return bad
        low, high = sorted((p, 1 - q))
        flipped, open_ = bad.copy(), np.ones(len(ids), dtype=bool)
        for at in range(round_index, 0, -1):
            u = self._uniforms("chain", problem, at, clients=ids)
            decided = open_ & ((u < low) | (u >= high))
            bad[decided] = (u < low)[decided] ^ flipped[decided]
            open_ &= ~decided
            if not open_.any():
                return bad
            flipped ^= open_ & (p > 1 - q)  # between the two bounds the state turns, or stays
        u = self._uniforms("chain", problem, 0, clients=ids)
        bad[open_] = (u < p / (p + q))[open_] ^ flipped[open_]
        return bad

    def _row(self, client: int) -> tuple[float, float, float]:
        if client not in self._given:
            raise ConfigError(f"{self.config.file} has no line for client {client}; add one")
        return self._given[client]

    def _uniforms(self, *parts: Part, clients: Sequence[int] | NDArray[np.int64]) -> Numbers:
        return uniforms(self._seed, "fleet", *parts, clients=clients)

    def _normals(self, *parts: Part, clients: Sequence[int] | NDArray[np.int64]) -> Numbers:
        return normal_quantile(self._uniforms(*parts, clients=clients))


def normal_quantile(u: Numbers) -> Numbers:
    """Return the standard normals below which these shares lie [n]."""
    from scipy.special import ndtri  # a fifth of a second, for who has a fleet

    return np.asarray(ndtri(u))


def _read(path: Path) -> Mapping[int, tuple[float, float, float]]:
    """Read a CSV of devices; raises ConfigError, with the line, for one that cannot be used."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"client", "query_s", "down", "up"} - set(reader.fieldnames or ())
            if missing:
                raise ConfigError(f"{path} has no column {', '.join(sorted(missing))}; add it")
            rows = {}
            for row in reader:
                client, found = _parsed(path, reader.line_num, row)
                if client in rows:
                    raise ConfigError(
                        f"{path} line {reader.line_num}: client {client} is there"
                        " already; keep one line of each"
                    )
                rows[client] = found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"fleet.file={path} cannot be read: {error}") from error
    if not rows:
        raise ConfigError(f"{path} has no line for any client; add one for each")
    return rows


def _parsed(
    path: Path, line: int, row: Mapping[str, str | None]
) -> tuple[int, tuple[float, float, float]]:
    try:
        client = int(row["client"] or "")
        query_s, down, up = (float(row[name] or "") for name in ("query_s", "down", "up"))
    except ValueError as error:
        raise ConfigError(f"{path} line {line}: {error}; write numbers") from error
    if client < 0 or not all(0 < value < math.inf for value in (query_s, down, up)):
        raise ConfigError(
            f"{path} line {line}: client={client}, query_s={query_s:g}, down={down:g}, up={up:g};"
            " a client is 0 or more, and seconds and bytes/s are positive"
        )
    return client, (query_s, down, up)


def _scores(examples: Sequence[int] | None) -> Numbers:
    """Return normal scores of numbers of examples [n]; equal numbers share the mean of ranks."""
    if examples is None:
        raise ConfigError(
            "fleet.correlation needs clients whose numbers of examples are known, as in the"
            " scenarios classification and regression; leave it out"
        )
    sizes = np.asarray(examples, dtype=np.float64)
    if len(np.unique(sizes)) < 2:
        raise ConfigError(
            f"fleet.correlation has no effect where all clients hold {sizes[0]:g} examples; leave"
            " it out, or choose a partition of unequal shards"
        )
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    z = normal_quantile((middle[inverse] + 0.5) / len(sizes))
    return np.asarray(z / z.std())
