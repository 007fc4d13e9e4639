"""Sections of still things: pictures with what is made of them, texts, and the faces of what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from features.errors import SampleError
from features.time import NS_PER_SECOND
from features.types import Image, Text
from pipeline.chain import Chain
from pipeline.report.album import Album, Picture
from pipeline.report.draw import thumbnail
from pipeline.report.facts import Trouble
from pipeline.report.material import Material, Shown
from pipeline.report.media import (
    NOT_OPENED,
    Preparer,
    attempt_open,
    augmentations,
    open_image,
    open_text,
    prepares,
    steps_in_words,
)
from pipeline.report.moving import first_frame

SIDE = 224
"""Longer side of a picture on a contact sheet, pixels."""
PREPARED = 4
VIEWS = 4
TEXTS = 6
FACES = 4
"""Failed samples of each reason that are shown with a picture."""
_TEXT_LENGTH = 280


@dataclass(frozen=True)
class Card:
    """A picture on a contact sheet."""

    sample: Shown
    picture: Picture
    note: str = ""


@dataclass(frozen=True)
class Row:
    """What one feature makes of one sample: pictures side by side, each with its caption."""

    sample: Shown
    pictures: list[tuple[str, Picture]]


def images(material: Material, album: Album, count: int) -> dict[str, Any] | None:
    """A contact sheet of pictures; what features make of the first of them, and the first views of those that have any.

    Views are those that are stored: of the splits that get views, by the same seeds.
    """
    shown = material.choose("image", count)
    if not shown:
        return None
    preparer, chains = Preparer(material), prepares(material, "image")
    cards: list[Card] = []
    rows: dict[str, list[Row]] = {chain.name: [] for chain in chains}
    for sample in shown:
        image = attempt_open(album, "the picture", sample, open_image)
        if image is None:
            continue
        height, width = image.pixels.shape[:2]
        cards.append(Card(sample, _thumb(album, image, f"picture of {sample.sample_id}"), f"{width} × {height}"))
        for chain in chains:
            splits = material.dataset.view_splits.get(chain.name)
            if len(rows[chain.name]) == PREPARED or (splits is not None and sample.split not in splits):
                continue
            row = album.attempt(
                f"{chain.name} of {sample.sample_id}", partial(_made_of, album, preparer, chain, sample, image)
            )
            if row is not None:
                rows[chain.name].append(row)
    features = [
        {"name": chain.name, "steps": steps_in_words(chain), "rows": rows[chain.name]}
        for chain in chains
        if rows[chain.name]
    ]
    return {"cards": cards, "features": features} if cards else None


def _thumb(album: Album, image: Image, alt: str, side: int = SIDE) -> Picture:
    return album.photo(thumbnail(image.pixels, side), alt)


def _made_of(album: Album, preparer: Preparer, chain: Chain, sample: Shown, image: Image) -> Row:
    what = f"{chain.name} of {sample.sample_id}"
    pictures = [
        ("as read", _thumb(album, image, f"{sample.sample_id} as read")),
        ("prepared", _thumb(album, preparer(chain, image), f"{what}, prepared")),
    ]
    if augmentations(chain):
        for view in chain.views[:VIEWS]:
            altered = preparer.augmented(chain, image, sample.sample_id, view)
            pictures.append((f"view {view}", _thumb(album, altered, f"{what}, view {view}")))
    return Row(sample, pictures)


def texts(material: Material, album: Album, count: int) -> list[dict[str, Any]]:
    """Texts as they were read, and what each feature with prepare steps makes of them."""
    preparer, chains = Preparer(material), prepares(material, "text")
    found = []
    for sample in material.choose("text", min(count, TEXTS)):
        text = attempt_open(album, "the text", sample, open_text)
        if text is None:
            continue
        made = [("as read", _excerpt(text))]
        for chain in chains:
            prepared = album.attempt(f"{chain.name} of {sample.sample_id}", partial(preparer, chain, text))
            if prepared is not None:
                made.append((f"{chain.name}: {steps_in_words(chain)}", _excerpt(prepared)))
        timed = [segment.span for segment in text.segments if segment.span.duration_ns < 10**9 * NS_PER_SECOND]
        when = f"{timed[0].start_ns / 1e9:.2f} to {timed[-1].end_ns / 1e9:.2f} s" if timed else "no times"
        found.append({"sample": sample, "made": made, "segments": len(text.segments), "when": when})
    return found


def _excerpt(text: Text) -> str:
    plain = text.plain
    return plain if len(plain) <= _TEXT_LENGTH else plain[:_TEXT_LENGTH].rstrip() + " …"


def faces(material: Material, album: Album, reasons: dict[str, list[Trouble]]) -> dict[str, Picture | str]:
    """Sample -> a picture or some text of it, for the first failures of each reason; what cannot be shown is left out.

    A failed sample may have other streams that can be read. No picture here is a fault of the page: the reason and the
    message say what is wrong.
    """
    wanted: list[str] = []
    for reason, troubles in reasons.items():
        if reason not in NOT_OPENED:
            wanted += [trouble.sample_id for trouble in troubles[:FACES]]
    deadly = {
        failure.sample_id for failure in material.failures if failure.reason in NOT_OPENED
    }  # whatever else failed of them
    found: dict[str, Picture | str] = {}
    for sample_id, sample in material.find(list(dict.fromkeys(wanted))).items():
        if sample_id not in deadly and album.seconds_left > 0:
            face = _face(album, sample)
            if face is not None:
                found[sample_id] = face
    return found


def _face(album: Album, sample: Shown) -> Picture | str | None:
    alt = f"{sample.sample_id}, in quarantine"
    openers: Sequence[tuple[str, Any]] = (
        ("image", lambda: _thumb(album, open_image(sample), alt, 160)),
        ("video", lambda: album.photo(thumbnail(first_frame(sample), 160), alt)),
        ("text", lambda: _excerpt(open_text(sample))),
    )
    for stream, make in openers:
        if stream in sample.uris:
            try:
                made: Picture | str = make()
            except (SampleError, OSError, ValueError):
                continue
            return made
    return None
