"""Export: a snapshot in the forms that other tools train from.

selection    which samples and features of which snapshot, and how many were left out and why
run          the export itself: a folder that is complete or not there, with a manifest
manifest     what was written, as data: counts that add up, a digest of every file
huggingface  Parquet that ``datasets.load_dataset`` opens with the right features
tar          WebDataset shards
arrays       NumPy files, or one .npz for each split
template     rows for prompt and instruction tuning: what a template may hold
jsonl        such rows, one a line
"""

from pipeline.export.run import FORMATS, Exported, export_dataset
from pipeline.export.selection import Choice

__all__ = ["FORMATS", "Choice", "Exported", "export_dataset"]
