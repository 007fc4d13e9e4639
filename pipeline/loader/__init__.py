"""The loader: from published shards to torch tensors.

reader    open_store, and the choice of samples and features
index     where every row lies
rows      rows of one feature as arrays, mapped or decoded
samples   the map-style data set, batches of it, collating
order     the order of an epoch, and how ranks share it
batches   the iterable data set: order, views, ranks, workers, resuming
prefetch  the thread that makes batches ahead
"""

from pipeline.loader.batches import Batches
from pipeline.loader.reader import NoSamplesError, StoreReader, open_store
from pipeline.loader.samples import UNLABELLED, Batch, Sample, Samples, collate

__all__ = [
    "UNLABELLED",
    "Batch",
    "Batches",
    "NoSamplesError",
    "Sample",
    "Samples",
    "StoreReader",
    "collate",
    "open_store",
]
