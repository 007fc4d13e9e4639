"""Sounds of the page of a run: which features are heard together."""

from __future__ import annotations

from features.audio.denoise import Denoise
from features.audio.mel import Mel
from features.audio.mfcc import Mfcc
from pipeline.chain import Chain
from pipeline.report.sound import _alike


def test_features_that_prepare_a_sound_alike_share_one_picture() -> None:
    chains = [
        Chain("mfcc", (Denoise(),), Mfcc()),
        Chain("fast", (Denoise(overlap=2),), Mfcc()),
        Chain("mel", (Denoise(),), Mel()),
    ]
    assert [[chain.name for chain in group] for group in _alike(chains)] == [["mfcc", "mel"], ["fast"]]
    assert _alike([]) == []
