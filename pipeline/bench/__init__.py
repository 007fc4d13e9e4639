"""Where the time of a data set goes on this machine: what each stage costs, and what would make it faster.

Some samples, chosen at random, are computed into a temporary store in three ways, after one pass to warm up: by all
workers of the catalog's engine, by one guarded worker, and by one without guard (what the work itself costs). Samples
that fail in the first pass are counted and left out of the others. Nothing is published, and the data
set's own store is only read.

choice   the samples, as work
measure  the work in three ways, and the figures
floors   limits on the figures
advice   which settings would help
result   what comes out
"""

from pipeline.bench.floors import read_floors
from pipeline.bench.measure import bench_dataset
from pipeline.bench.result import Bench, Check, Floor, Part

__all__ = ["Bench", "Check", "Floor", "Part", "bench_dataset", "read_floors"]
