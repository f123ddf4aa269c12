"""Whether slow devices are heard less often than fast ones: the price of not waiting for them."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fedzo.errors import ConfigError
from fedzo.records.history import RoundRecord
from scenarios.runs.engines import make_fleet
from scenarios.runs.experiment import Experiment


def participation_bias(experiment: Experiment, records: Sequence[RoundRecord]) -> float | None:
    """Return the correlation of answers that counted with the logarithm of a device's slowness.

    Over the clients that were asked; 0 where slow devices are heard as often as others, below 0
    where they are heard less. What is under way at the end counts as heard. None without a clock,
    and where all were heard equally often.
    """
    if not experiment.config("fleet").any:
        return None
    asked, heard = set[int](), Counter[int]()
    for record in records:
        asked.update(record.clients)
        heard.update(record.clients)
        heard.subtract(record.failures.keys())  # of jobs that may have begun rounds ago
    clients = sorted(asked)
    counts = np.asarray([heard[client] for client in clients], dtype=np.float64)
    if len(clients) < 3 or counts.std() == 0:
        return None
    try:
        slow = np.log(make_fleet(experiment).slowness(clients))
    except ConfigError:  # the file of devices has gone since
        return None
    if slow.std() == 0:
        return None
    found = float(np.corrcoef(counts, slow)[0, 1])
    return None if math.isnan(found) else found
