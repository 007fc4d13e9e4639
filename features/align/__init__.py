"""Alignment: timelines, and pooling of sequences onto them."""
