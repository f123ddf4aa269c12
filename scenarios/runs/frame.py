"""A run's history as a pandas table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fedzo.errors import ConfigError
from fedzo.records.history import RoundRecord

if TYPE_CHECKING:
    import pandas as pd

_PARTS = ("metrics", "nodes", "clients", "client_queries", "failures", "virtual", "jobs")
_NUMBERS = tuple(each.name for each in fields(RoundRecord) if each.name not in _PARTS)


def frame_of(home: str, seed: int, records: Sequence[RoundRecord]) -> "pd.DataFrame":
    """Return a row for every record of a run; see StoredRun.to_frame."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ConfigError(
            "to_frame makes a table of pandas, which is not installed: pip install 'fedzo[frame]';"
            " run.records has the same numbers"
        ) from error
    names = list(dict.fromkeys(name for record in records for name in record.metrics))
    columns = ["run", "seed", *_NUMBERS, "virtual_s", *(f"metrics.{name}" for name in names)]
    counts = ["clients_asked", "clients_answered", "clients_failed"]
    rows = [{"run": home, "seed": seed, **_row(record)} for record in records]
    return pd.DataFrame(rows, columns=[*columns, *counts, "client_queries", "failures", "nodes"])


def _row(record: RoundRecord) -> Mapping[str, Any]:
    return {
        **{name: getattr(record, name) for name in _NUMBERS},
        "virtual_s": math.nan if record.virtual is None else record.virtual.seconds,
        **{f"metrics.{name}": value for name, value in record.metrics.items()},
        "clients_asked": record.clients_asked,
        "clients_answered": record.clients_answered,
        "clients_failed": len(record.failures),
        "client_queries": dict(zip(record.clients, record.client_queries, strict=True)),
        "failures": dict(record.failures),
        "nodes": dict(record.nodes),
    }
