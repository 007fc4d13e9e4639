"""Clocks on whole runs: offsets that are estimated and applied, and streams that disagree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from made_talk import Talk, talking
from pages import read

from pipeline.drift import disagreeing, drift
from pipeline.store.shard import descriptions
from pipeline.store.verify import verify

DOCS = Path(__file__).resolve().parents[2] / "docs"
MS = 1_000_000


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    with talking(tmp_path) as found:
        yield found


def film(path: Path, *, late: float, seconds: float = 8.0, sound: float | None = None) -> None:
    """A picture that jumps at irregular times, and a click at each of them, ``late`` seconds later."""
    jumps = np.cumsum(np.random.default_rng(5).uniform(0.45, 1.1, 30))
    jumps = jumps[jumps < seconds - 1]
    rng = np.random.default_rng(1)
    base = rng.integers(0, 255, (12, 16)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        audio = out.add_stream("aac", rate=16_000, layout="mono")
        for k in range(round(seconds * 25)):
            moved = 3 * int(np.searchsorted(jumps, k / 25 + 1e-9, side="right"))
            rgb = np.roll(base, moved, axis=1)[..., None].repeat(3, 2)
            out.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        out.mux(video.encode(None))
        noise = 0.001 * rng.standard_normal(round((sound or seconds) * 16_000))
        for jump in jumps:
            first = round((jump + late) * 16_000)
            part = noise[first : first + 1600]
            part += 0.5 * rng.standard_normal(len(part)) * np.exp(-np.arange(len(part)) / 400)
        frame = av.AudioFrame.from_ndarray(noise[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 16_000, Fraction(1, 16_000), 0
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))


FILMS = """\
version: 1
store: ./store
engine: {kind: serial, device: cpu}
datasets:
  talk:
    root: ./media
    source: {kind: folder}
    features:
      level: {extractor: "talk_steps:Level", options: {milliseconds: 20}}
      video.flow: {options: {rate: 25}}
    align: {grid: 0.5}
"""


def test_offsets_are_estimated_with_their_confidence_and_applied(talk: Talk) -> None:
    for path in talk.media.iterdir():
        path.unlink()
    lateness = {"early": -0.12, "late": 0.3, "true": 0.0}
    for name, late in lateness.items():
        film(talk.media / f"{name}.mp4", late=late)
    rng = np.random.default_rng(0)
    soundfile.write(talk.media / "unsure.wav", 0.1 * rng.standard_normal(128_000), 16_000)
    film(talk.media / "unsure.mp4", late=0.0)
    talk.catalog.write_text(FILMS)
    talk.run()
    before = {row["sample_id"]: row for row in drift(talk.snapshot).to_pylist()}
    assert {row["audio_offset"] for row in before.values()} == {0.0}
    estimate = "estimate: {from: [level/amplitude, video.flow/mean_speed]}"
    talk.align(f"grid: 0.5, clocks: {{audio: {{{estimate}}}}}")
    report = talk.run()
    assert report.aligned_rows_written == 8
    found = {row["sample_id"]: row for row in drift(talk.snapshot).to_pylist()}
    for name, late in lateness.items():
        assert found[name]["audio_offset"] == pytest.approx(-late, abs=0.06), "frames of 40 ms against rows of 20 ms"
        assert found[name]["audio_confidence"] >= 0.4
        shift = found[name]["start_offset"] - before[name]["start_offset"]
        assert shift == pytest.approx(found[name]["audio_offset"], abs=1e-6)
    assert (found["unsure"]["audio_offset"], found["unsure"]["audio_confidence"] < 0.4) == (0.0, True)
    audio, video = read(report.page).one("table", id="clocks").all("tr")[1:]
    assert [cell.text for cell in audio.all("td")[1:2]] == ["4"]
    assert re.match(r"[+-]0\.\d{3} s \([+-]0\.\d{3}\)", " ".join(audio.all("td")[5].text.split()))
    assert video.all("td")[5].text == "as it is"
    told = "unsure: the offset of audio is not sure enough (confidence below 0.4): the clock is left as it is"
    assert report.notices[-1] == told
    assert verify(talk.snapshot).faults == ()


def test_streams_that_disagree_are_flagged_or_put_into_quarantine(talk: Talk) -> None:
    for path in talk.media.iterdir():
        path.unlink()
    for name, sound in (("same", None), ("short", 3.0)):
        film(talk.media / f"{name}.mp4", late=0.0, seconds=5.0, sound=sound)
    talk.catalog.write_text(FILMS)
    report = talk.run()
    told = report.notices[-1]
    assert re.fullmatch(r"short: the sound lasts 3.0\d\d s and the picture 4.960 s; allowed: a difference of 1 s", told)
    page = read(report.page).one("section", id="alignment")
    assert [row.all("td")[0].text for row in page.one("table", id="clocks").all("tr")[1:]] == ["audio", "video"]
    assert "1 sample by more than 1 s" in page.one("p", id="beside").text
    assert re.fullmatch(
        r"short: sound 3.0\d\d s, picture 4.960 s", page.one("ul", id="disagree").one("li").text.strip()
    )
    table = drift(talk.snapshot)
    assert disagreeing(table)["sample_id"].to_pylist() == ["short"]
    row = table.to_pylist()[1]
    assert row["duration_difference"] == pytest.approx(-1.9, abs=0.1)
    assert (row["video_gaps"], row["audio_start"], row["text_start"]) == (0.0, 0.0, None)
    assert all(descriptions(table.schema).values())
    talk.align("grid: 0.5, durations: {tolerance: 0.5, then: quarantine}")
    talk.catalog.write_text(talk.catalog.read_text() + "    max_failed: 0.5\n")
    report = talk.run()
    assert report.quarantine_by_reason == {"streams_disagree": 2}
    assert set(talk.aligned("level")) == {"same"}
    assert verify(talk.snapshot).faults == ()
    assert (talk.run().published, talk.run().quarantine_by_reason) == (False, {"streams_disagree": 2})
