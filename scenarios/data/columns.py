"""Tables of numbers to predict a number from: columns, and how they are scaled.

synthetic: drawn from a formula. california: scikit-learn's copy of California Housing (20,640
blocks, 8 features) in its data home. csv: a CSV file (see scenarios.data.csv_lines); a column of
text becomes one indicator for each of its values. Nothing is downloaded.

Scaling is part of what is learned from the data, so it must not come from private data unnoticed:

    public:  z = clip((v - center) / scale, +-bound) with constants that somebody has written down,
             in this file or in the TOML file `scales`; the target is divided by `target_scale`
    data:    the same with means, deviations and the largest |target| of the training rows, which no
             epsilon covers

A scales file has `target_scale = 100.0`, for each column of numbers `[columns.age]` with `center`
and `scale`, and for each column of text `[columns.city]` with `values`, a list. An indicator of one
of k values is shifted and scaled as if all were as frequent.
"""

import logging
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedzo.config import unknown_key
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.data.csv_lines import CsvFormat, TableFormat
from scenarios.data.csv_table import read_csv

RegressionDataName = Literal["synthetic", "california", "csv"]
ScalingName = Literal["public", "data"]
_log = logging.getLogger(__name__)

CALIFORNIA: Mapping[str, Any] = {
    "target_scale": 5.0,
    "columns": {
        "MedInc": {"center": 4.0, "scale": 2.0},
        "HouseAge": {"center": 26.0, "scale": 13.0},
        "AveRooms": {"center": 5.0, "scale": 2.0},
        "AveBedrms": {"center": 1.0, "scale": 0.2},
        "Population": {"center": 1500.0, "scale": 1000.0},
        "AveOccup": {"center": 3.0, "scale": 1.0},
        "Latitude": {"center": 37.0, "scale": 2.5},
        "Longitude": {"center": -119.5, "scale": 2.5},
    },
}
"""Round numbers for a census of California, chosen without looking at the rows."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Named columns of numbers or text, all of the same length, and the name of the target.

    owners: whose each row is, where the table says so.
    """

    values: Mapping[str, NDArray[Any]]
    target: str
    owners: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Scaled features [n, k] and targets [n]."""

    features: NDArray[np.float32]
    targets: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.targets)


def load_columns(
    name: RegressionDataName,
    path: str,
    target: str,
    layout: TableFormat | None = None,
    *,
    seed: int,
) -> tuple[Columns, Mapping[str, Any]]:
    """Return a table and the constants that are known for it.

    Raises ConfigError when the data are not there or not a table, with what to do.
    """
    if name == "synthetic":
        return _synthetic(seed)
    if name == "california":
        return _california(path), CALIFORNIA
    if not path:
        raise ConfigError("data=csv needs scenario.path=FILE.csv")
    return _csv(Path(path), target, layout or TableFormat(csv=CsvFormat())), {}


def read_scales(path: str) -> Mapping[str, Any]:
    """Return the constants of a scales file; raises ConfigError for what is none."""
    try:
        found = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"scenario.scales={path!r} cannot be read: {error}") from error
    scale = found.get("target_scale")
    if not isinstance(found.get("columns"), dict) or not _positive(scale):
        raise ConfigError(
            f"scenario.scales={path!r} needs a positive target_scale and tables [columns.NAME] with"
            " center and scale, or values"
        )
    return found


def scaled(
    columns: Columns,
    train: NDArray[np.int64],
    known: Mapping[str, Any],
    scaling: ScalingName,
    bound: float,
) -> Numbers:
    """Return features and targets in their scales; `train`: the rows that scaling=data looks at."""
    if scaling == "data":
        _log.warning("scaling=data looks at the training data, which no epsilon covers")
    told = known.get("columns", {})
    for name in told:
        if name not in columns.values:
            raise unknown_key(name, [*columns.values], what="column of scenario.scales")
    parts = []
    for name, values in columns.values.items():
        if name == columns.target:
            continue
        own = _learned(name, values[train]) if scaling == "data" else told.get(name, {})
        parts.append(
            _indicators(name, values, own) if _is_text(values) else _shifted(name, values, own)
        )
    goal = np.asarray(columns.values[columns.target], dtype=np.float64)
    largest = float(np.abs(goal[train]).max()) if scaling == "data" else known.get("target_scale")
    if not isinstance(largest, int | float) or not _positive(largest):
        raise ConfigError(
            f"target {columns.target!r} has no public scale; set scenario.scales=FILE.toml (see"
            " scenarios.data.columns), or scenario.scaling=data, which is not private"
        )
    features = np.concatenate(parts, axis=1)
    clipped = np.clip(features, -bound, bound) if bound else features
    return Numbers(clipped.astype(np.float32), (goal / largest).astype(np.float32))


def _learned(name: str, values: NDArray[Any]) -> Mapping[str, Any]:
    if _is_text(values):
        found = sorted(set(values.tolist()))
        if len(found) < 2:
            raise ConfigError(
                f"column {name!r} holds only one value, {found[0]!r}, in the rows for training;"
                " remove it"
            )
        return {"values": found}
    with np.errstate(over="ignore"):
        deviation = float(values.std())
    if not math.isfinite(deviation):
        most = float(np.abs(values).max())
        raise ConfigError(
            f"column {name!r} holds numbers as large as {most:g}, of which no float can hold the"
            " spread; rescale it, or remove it"
        )
    return {"center": float(values.mean()), "scale": deviation or 1.0}


def _shifted(name: str, values: NDArray[Any], own: Mapping[str, Any]) -> NDArray[np.float64]:
    center = own.get("center")
    if not _is_number(center) or not _positive(own.get("scale")):
        raise _unknown(name, "a finite center and a positive scale")
    shifted: NDArray[np.float64] = ((values - own["center"]) / own["scale"])[:, None]
    return shifted


def _indicators(name: str, values: NDArray[Any], own: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return one column a value, as (1 - 1/k) / s or (-1/k) / s with s^2 = (1/k) (1 - 1/k)."""
    allowed = own.get("values")
    texts = allowed if isinstance(allowed, list) else []
    if len(texts) < 2 or not all(isinstance(t, str) for t in texts) or len({*texts}) < len(texts):
        raise _unknown(name, "a list `values` of at least two texts, each once")
    share = 1 / len(texts)
    strange = sorted({*values.tolist()} - {*texts})
    if strange:
        raise ConfigError(
            f"column {name!r} holds {strange[0]!r}, which `values` of [columns.{name}] in"
            f" scenario.scales=FILE.toml does not name ({', '.join(map(repr, texts))}); add it"
        )
    flags = values[:, None] == np.asarray(texts)[None, :]
    scaled_flags: NDArray[np.float64] = (flags - share) / np.sqrt(share * (1 - share))
    return scaled_flags


def _unknown(name: str, what: str) -> ConfigError:
    return ConfigError(
        f"column {name!r} has no public scale: [columns.{name}] in scenario.scales=FILE.toml needs"
        f" {what}; or set scenario.scaling=data, which is not private"
    )


def _positive(value: object) -> bool:
    return _is_number(value) and value > 0  # type: ignore[operator]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(values: NDArray[Any]) -> bool:
    return values.dtype.kind == "U"


def _csv(path: Path, target: str, layout: TableFormat) -> Columns:
    found = read_csv(path, layout, target, labels=False)
    goal = found.columns[found.goal]
    if _is_text(goal):
        raise ConfigError(
            f"scenario.path={str(path)!r}: column {found.goal!r}, the target, is text, such as"
            f" {str(goal[0])[:40]!r}; it must hold finite numbers"
        )
    if len(goal) > 1 and goal.min() == goal.max():
        raise ConfigError(
            f"scenario.path={str(path)!r}: column {found.goal!r}, the target, is constant: all are"
            f" {goal[0]:g}; name another with scenario.target"
        )
    return Columns(found.columns, found.goal, found.owners)


def _california(path: str) -> Columns:
    try:
        from sklearn.datasets import fetch_california_housing
    except ImportError as error:
        raise ConfigError(
            "data california needs scikit-learn; pip install 'fedzo[data]'"
        ) from error
    try:
        raw = fetch_california_housing(data_home=path or None, download_if_missing=False)
    except OSError as error:
        raise ConfigError(
            f"data california is not in scikit-learn's data home ({error}); call"
            " sklearn.datasets.fetch_california_housing() once on a machine with a network, or set"
            " scenario.path to a data home that has it"
        ) from error
    names = [str(name) for name in raw.feature_names]
    values = {name: raw.data[:, i].astype(np.float64) for i, name in enumerate(names)}
    return Columns({**values, "MedHouseVal": raw.target.astype(np.float64)}, "MedHouseVal")


def _synthetic(seed: int) -> tuple[Columns, Mapping[str, Any]]:
    """Return 4,000 rows: y = tanh(a.v) + sin(2 b.v) / 2 + noise of 0.1, v normal in R^8."""
    generator = stream(seed, "regression", "synthetic")
    features = generator.standard_normal((4000, 8))
    a, b = generator.standard_normal((2, 8)) / np.sqrt(8)
    noise = 0.1 * generator.standard_normal(4000)
    target = np.tanh(features @ a) + 0.5 * np.sin(2 * features @ b) + noise
    columns = {f"v{i}": features[:, i] for i in range(8)}
    known = {f"v{i}": {"center": 0.0, "scale": 1.0} for i in range(8)}
    return Columns({**columns, "y": target}, "y"), {"target_scale": 2.0, "columns": known}
