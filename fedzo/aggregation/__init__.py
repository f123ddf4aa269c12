"""Pure rules that turn vectors [n, d] into one [d], and what may stand before them."""

from fedzo.aggregation.bucketing import bucketing
from fedzo.aggregation.caf import caf
from fedzo.aggregation.centered_clipping import centered_clipping
from fedzo.aggregation.clipping import adaptive_clip, clip
from fedzo.aggregation.composition import AGGREGATORS, MIXERS, Aggregator, parse_aggregator
from fedzo.aggregation.geometric_median import geometric_median
from fedzo.aggregation.krum import krum, multi_krum
from fedzo.aggregation.mean import mean
from fedzo.aggregation.mean_around_median import mean_around_median
from fedzo.aggregation.median import median
from fedzo.aggregation.minimum_diameter import minimum_diameter
from fedzo.aggregation.nearest_neighbors import nearest_neighbor_average, nearest_neighbor_mixing
from fedzo.aggregation.smea import smea
from fedzo.aggregation.trimmed_mean import trimmed_mean

__all__ = [
    "AGGREGATORS",
    "MIXERS",
    "Aggregator",
    "adaptive_clip",
    "bucketing",
    "caf",
    "centered_clipping",
    "clip",
    "geometric_median",
    "krum",
    "mean",
    "mean_around_median",
    "median",
    "minimum_diameter",
    "multi_krum",
    "nearest_neighbor_average",
    "nearest_neighbor_mixing",
    "parse_aggregator",
    "smea",
    "trimmed_mean",
]
