"""Devices: laws, prices, files; a draw depends on the client and the moment alone."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedzo.errors import ConfigError
from fedzo.fleet.config import PRESETS, FleetConfig
from fedzo.fleet.devices import DAY_S, Fleet
from fedzo.fleet.jobs import Jobs, entry_of, jobs_from
from fedzo.protocol.exchange import Moment
from fedzo.randomness import uniforms

N = 20_000
IDS = range(N)
PRICED = {"query_s": 0.05}


def jobs(clients: Any, **counts: float) -> Jobs:
    named = {"down": 0.0, "up": 0.0, "queries": 0.0, "gradients": 0.0, "examples": 0.0, **counts}
    ids = np.asarray(clients, dtype=np.int64)
    rows = {name: np.full(len(ids), float(value)) for name, value in named.items()}
    return Jobs(clients=ids, silent=np.zeros(len(ids), dtype=bool), **rows)


def fleet(**settings: Any) -> Fleet:
    return Fleet(FleetConfig(**{"preset": "mobile", **settings}), seed=3)


@pytest.mark.parametrize("preset", PRESETS)
def test_links_and_speeds_have_the_medians_and_spreads_of_the_preset(preset: str) -> None:
    links = PRESETS[preset]
    made = Fleet(FleetConfig(preset=preset, jitter=0.0, query_s=0.05), seed=3)
    spent = made.spent(jobs(IDS, down=links.down, up=links.up, queries=1), Moment(0, 1, 0))
    for seconds, median in ((spent.down - links.rtt_s, 1), (spent.up - links.rtt_s, 1)):
        assert np.median(seconds) == pytest.approx(median, rel=0.05)
        assert np.log(seconds).std() == pytest.approx(links.spread, rel=0.03)
    assert np.median(spent.compute) == pytest.approx(0.05, rel=0.03)
    assert np.log(spent.compute).std() == pytest.approx(0.6, rel=0.03)
    assert not spent.lost.any()


def test_work_is_priced_by_queries_gradients_or_examples() -> None:
    plain = {"speed_spread": 0.0, "jitter": 0.0}
    by_query, by_example = fleet(query_s=0.5, **plain), fleet(example_s=0.1, **plain)
    moment = Moment(0, 1, 0)

    def compute(made: Fleet, **counts: float) -> float:
        return float(made.spent(jobs([7], **counts), moment).compute[0])

    assert compute(by_query, queries=4) == 2
    assert compute(by_query, queries=4, gradients=2) == 2 + 2 * 3 * 0.5
    assert compute(fleet(query_s=0.5, gradient_s=0.7, **plain), gradients=2) == pytest.approx(1.4)
    assert compute(by_example, queries=4, examples=80) == pytest.approx(8)
    assert compute(by_example, gradients=4, examples=80) == pytest.approx(24)


@pytest.mark.parametrize(
    ("settings", "counts", "sentence"),
    [
        ({}, {"queries": 4}, "set fleet.query_s"),
        ({}, {"gradients": 4}, "set fleet.query_s"),
        ({"query_s": 0.1}, {}, "neither a query nor a gradient"),
        ({"example_s": 0.0}, {"queries": 4, "examples": 9}, "set fleet.query_s"),
    ],
)
def test_work_without_a_price_is_an_error(
    settings: dict[str, float], counts: dict[str, float], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        fleet(**settings).spent(jobs([1, 2], **counts), Moment())
    assert fleet(**PRICED).spent(jobs([1, 2]), Moment(), free=True).compute.tolist() == [0, 0]


def test_a_draw_depends_on_the_client_and_the_moment_alone() -> None:
    made = fleet(query_s=1.0, drop_out=0.3, stragglers=0.2)
    asked = jobs([5, 9, 11], down=1e6, up=1e5, queries=3)
    spent = made.spent(asked, Moment(0, 4, 1))
    for row, client in enumerate((5, 9, 11)):
        alone = made.spent(jobs([client], down=1e6, up=1e5, queries=3), Moment(0, 4, 1))
        for name in ("down", "compute", "up", "lost"):
            assert getattr(alone, name)[0] == getattr(spent, name)[row]
    other = made.spent(asked, Moment(0, 5, 1))
    assert (other.total != spent.total).all()


def test_jitter_and_losses_are_as_often_as_they_should_be() -> None:
    spent = fleet(speed_spread=0.0, drop_out=0.08, **PRICED).spent(jobs(IDS, queries=1), Moment())
    assert np.log(spent.compute / 0.05).std() == pytest.approx(0.1, rel=0.03)
    assert spent.lost.mean() == pytest.approx(0.08, abs=0.008)


@pytest.mark.parametrize(("p", "q"), [(0.05, 0.6), (0.5, 0.9), (1.0, 1.0), (0.3, 1.0), (0.7, 0.3)])
def test_stragglers_are_the_chain_of_gilbert_and_elliott(p: float, q: float) -> None:
    made = fleet(stragglers=p, recovery=q, straggler_factor=5.0)
    slow = np.stack([made._straggling(np.arange(4000), 0, r) for r in range(1, 9)])
    before, after = slow[:-1].ravel(), slow[1:].ravel()
    assert slow.mean() == pytest.approx(p / (p + q), abs=0.012)
    assert after[~before].mean() == pytest.approx(p, abs=0.012)
    assert (~after)[before].mean() == pytest.approx(q, abs=0.012 + 0.02 * (p < 0.1))


def test_who_is_online_follows_the_day() -> None:
    made = fleet(online=0.8, diurnal=0.6, **PRICED)
    phase = uniforms(3, "fleet", "phase", clients=IDS)
    at_s = 3 * DAY_S
    best, worst = np.abs(phase - 0.25) < 0.02, np.abs(phase - 0.75) < 0.02
    here = made.online(IDS, at_s)
    assert here[best].mean() == pytest.approx(0.8, abs=0.05)
    assert here[worst].mean() == pytest.approx(0.8 * 0.4 / 1.6, abs=0.05)
    assert (made.online(IDS, at_s + 1) == here).all()
    assert (made.online(IDS, at_s + 700) != here).any()
    assert fleet(**PRICED).online(IDS, at_s).all()


def test_slowness_goes_with_the_number_of_examples() -> None:
    sizes = np.random.default_rng(0).integers(1, 1000, N).tolist()
    config = FleetConfig(preset="mobile", correlation=0.7)
    slow = Fleet(config, seed=3, examples=sizes).slowness(IDS)
    ranks = np.argsort(np.argsort(sizes))
    found = np.corrcoef(np.log(slow), np.asarray(uniform_scores(ranks)))[0, 1]
    assert found == pytest.approx(0.7, abs=0.02)
    assert np.log(slow).std() == pytest.approx(0.6, rel=0.03)
    with pytest.raises(ConfigError, match="numbers of examples are known"):
        Fleet(config, seed=3)
    with pytest.raises(ConfigError, match="all clients hold 4 examples"):
        Fleet(config, seed=3, examples=[4] * 9)


def uniform_scores(ranks: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    from scipy.special import ndtri

    return np.asarray(ndtri((ranks + 0.5) / len(ranks)))


def test_devices_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    path.write_text("client,query_s,down,up\n0,0.5,100,10\n1,2,1000,100\n")
    made = Fleet(FleetConfig(preset="file", file=str(path), jitter=0.0), seed=0)
    spent = made.spent(jobs([0, 1], down=200, up=20, queries=3, gradients=1), Moment())
    assert spent.down.tolist() == [2, 0.2]
    assert spent.up.tolist() == [2, 0.2]
    assert spent.compute.tolist() == [0.5 * 6, 2 * 6]
    with pytest.raises(ConfigError, match="no line for client 2"):
        made.spent(jobs([2], queries=1), Moment())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("client,query_s,down\n0,1,2\n", "no column up"),
        ("client,query_s,down,up\n0,1,x,3\n", "line 2: could not convert"),
        ("client,query_s,down,up\n0,1,0,3\n", "seconds and bytes/s are positive"),
        ("client,query_s,down,up\n0,1,2,3\n0,1,2,3\n", "client 0 is there already"),
        ("client,query_s,down,up\n", "no line for any client"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "devices.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        Fleet(FleetConfig(preset="file", file=str(path)), seed=0)
    with pytest.raises(ConfigError, match="cannot be read"):
        Fleet(FleetConfig(preset="file", file=str(tmp_path / "none.csv")), seed=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"drop_out": 1.5}, {"online": 0.0}, {"correlation": 2.0}, {"rtt_s": -0.5}, {"down": 0.0},
        {"straggler_factor": 0.5}, {"file": "x.csv"}, {"preset": "file"},
        {"stragglers": 0.1, "recovery": 0.0}, {"query_s": math.inf},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        FleetConfig(**{"preset": "mobile", **settings})


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], [4, 7, 9], [5]])
def test_the_ledger_gives_back_what_was_put_in(ids: list[int]) -> None:
    given = jobs(ids, down=12.5, up=8, queries=21, examples=3)
    given.queries[-1] = 4
    given.silent[0] = True
    back = jobs_from(entry_of(given, 2))
    for name in ("clients", "down", "up", "queries", "gradients", "examples", "silent"):
        assert getattr(back, name).tolist() == getattr(given, name).tolist()
    entry = entry_of(given, 2)
    assert entry.down == 12.5
    assert bool(entry.span) == (ids != [4, 7, 9])
    assert "gradients" not in entry.to_json()
