"""From a data set's source to its samples: what there is, what is refused and why."""

from pipeline.scan.samples import SAMPLES_SCHEMA, Rejected, Scan, scan

__all__ = ["SAMPLES_SCHEMA", "Rejected", "Scan", "scan"]
