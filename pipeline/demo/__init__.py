"""A small corpus with a known truth: real MP4, JPEG and SRT files made from a seed, and a catalog for them.

Four classes are two independent bits. The **weather** (calm or storm) is seen: in the still image and in the video,
whose camera pans so that the scenery moves left when it is calm and right in a storm. The **time** (day or night) is
heard (high chirps or low hoots) and read (words of one of two vocabularies in the captions). So no single modality can
tell more than two groups of classes apart, about half of the samples; two that complement each other can tell all
four. In one sample of eight each modality is obscured and tells nothing; never both modalities of the same bit, so
that all four together can reach every class. ``truth.csv`` says which.
"""

from pipeline.demo.corpus import CATALOG, DATASET, DemoCorpus, write_corpus
from pipeline.demo.truth import Truth, make_truth

__all__ = ["CATALOG", "DATASET", "DemoCorpus", "Truth", "make_truth", "write_corpus"]
