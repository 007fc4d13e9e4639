"""The demo corpus says in ``truth.csv`` what its files show; here decoders and plain signal processing check it."""

from __future__ import annotations

import collections
import csv
import itertools
import json
import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from features.errors import GristmillError
from pipeline.demo import DemoCorpus, Truth, make_truth, write_corpus
from pipeline.demo.captions import NEUTRAL_WORDS, WORDS
from pipeline.demo.truth import FRAME_RATE
from pipeline.demo.video import mp4

SAMPLES = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DemoCorpus:
    return write_corpus(tmp_path_factory.mktemp("demo") / "corpus", samples=SAMPLES, seed=3)


def whole(corpus: DemoCorpus) -> list[Truth]:
    return [truth for truth in corpus.samples if truth.sample_id not in corpus.broken]


def path(corpus: DemoCorpus, truth: Truth, suffix: str) -> Path:
    return corpus.folder / "media" / (truth.sample_id + suffix)


def luma(corpus: DemoCorpus, truth: Truth) -> list[np.ndarray]:
    with av.open(str(path(corpus, truth, ".mp4"))) as container:
        return [frame.to_ndarray(format="gray").astype(np.float32) for frame in container.decode(video=0)]


def sound(corpus: DemoCorpus, truth: Truth) -> np.ndarray:
    with av.open(str(path(corpus, truth, ".mp4"))) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_file_of_the_corpus_is_named_by_the_truth_and_nothing_else(corpus: DemoCorpus) -> None:
    expected = {f"media/{t.sample_id}{suffix}" for t in corpus.samples for suffix in (".mp4", ".jpg", ".srt")}
    assert contents(corpus.folder).keys() == expected | {"demo.json", "data_catalog.yaml", "truth.csv"}
    assert corpus.written == len(expected) + 2
    assert collections.Counter(t.label for t in whole(corpus)) == dict.fromkeys(
        ("calm-day", "calm-night", "storm-day", "storm-night"), SAMPLES // 4
    )


def test_truth_csv_holds_the_truth(corpus: DemoCorpus) -> None:
    with (corpus.folder / "truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sample_id"] for row in rows] == [t.sample_id for t in corpus.samples]
    for row, truth in zip(rows, corpus.samples, strict=True):
        assert {m: row[m] for m in ("image", "video", "audio", "text")} == {
            m: getattr(truth, m) for m in ("image", "video", "audio", "text")
        }
        assert row["label"] == truth.label == Path(row["sample_id"]).parent.name


def test_video_and_audio_last_as_long_as_the_truth_says(corpus: DemoCorpus) -> None:
    for truth in whole(corpus):
        with av.open(str(path(corpus, truth, ".mp4"))) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
            assert (video.width, video.height, audio.rate, audio.channels) == (160, 120, 16_000, 1)
            times = [frame.pts * frame.time_base for frame in container.decode(video)]
        assert times == [n / FRAME_RATE for n in range(truth.frames)]
        assert len(sound(corpus, truth)) == pytest.approx(float(truth.duration) * 16_000, abs=2048)


def test_the_second_shot_begins_at_the_frame_that_the_truth_names(corpus: DemoCorpus) -> None:
    for truth in whole(corpus):
        frames = luma(corpus, truth)
        jumps = [np.abs(after - before).mean() for before, after in itertools.pairwise(frames)]
        assert int(np.argmax(jumps)) + 1 == truth.cut


def test_a_clear_video_moves_left_when_calm_and_right_in_a_storm(corpus: DemoCorpus) -> None:
    for truth in whole(corpus):
        frames = luma(corpus, truth)[: truth.cut]
        shifts = [cv2.phaseCorrelate(a, b)[0] for a, b in itertools.pairwise(frames)]
        dx, dy = np.median(shifts, axis=0)
        if truth.video == "clear":
            assert abs(dx) > 1.5 > abs(dy)
            assert (dx > 0) == (truth.weather == "storm")
        else:
            assert abs(dx) < 1.0


def test_a_clear_image_has_edges_and_an_obscured_one_is_fog(corpus: DemoCorpus) -> None:
    for truth in whole(corpus):
        picture = cv2.imread(str(path(corpus, truth, ".jpg")), cv2.IMREAD_GRAYSCALE)
        assert picture.shape == (192, 256)
        contrast = cv2.GaussianBlur(picture, (0, 0), 2.0).std()
        assert (contrast > 7.0) == (truth.image == "clear")


def test_clear_sound_is_high_by_day_and_low_by_night(corpus: DemoCorpus) -> None:
    for truth in whole(corpus):
        samples = sound(corpus, truth)
        power = np.abs(np.fft.rfft(samples)) ** 2
        hertz = np.fft.rfftfreq(len(samples), 1 / 16_000)
        high = power[(hertz > 2_100) & (hertz < 3_500)].sum()
        low = power[(hertz > 250) & (hertz < 750)].sum()
        if truth.audio == "clear":
            assert (high > low) == (truth.time == "day")


def test_captions_are_timed_within_the_clip_and_use_one_vocabulary(corpus: DemoCorpus) -> None:
    for truth in corpus.samples:
        text = path(corpus, truth, ".srt").read_text()
        times = [int(m) * 60 + int(s) + int(ms) / 1000 for m, s, ms in re.findall(r"00:(\d\d):(\d\d),(\d\d\d)", text)]
        assert times == sorted(times)
        assert len(times) == 6
        assert times[-1] <= truth.duration
        words = set(re.findall(r"[a-z]+", text)) - set(NEUTRAL_WORDS)
        assert words <= set(WORDS[truth.time])
        assert bool(words) == (truth.text != "obscured")


def test_no_single_modality_can_tell_all_classes_and_all_together_can() -> None:
    truths = [t for t in make_truth(96, 0) if "broken" not in t.sample_id]
    assert {m: sum(getattr(t, m) == "obscured" for t in truths) for m in ("image", "video", "audio", "text")} == (
        dict.fromkeys(("image", "video", "audio", "text"), 12)
    )
    assert all("clear" in (t.image, t.video) and "clear" in (t.audio, t.text) for t in truths)
    assert not set(WORDS["day"]) & set(WORDS["night"])
    assert not set(NEUTRAL_WORDS) & {word for words in WORDS.values() for word in words}


def test_two_samples_have_one_broken_file_each(corpus: DemoCorpus) -> None:
    assert corpus.broken == ("calm-day/broken-video", "storm-night/broken-image")
    video, image = corpus.samples[-2:]
    with pytest.raises(av.error.InvalidDataError):
        av.open(str(path(corpus, video, ".mp4")))
    assert cv2.imread(str(path(corpus, video, ".jpg"))) is not None
    assert cv2.imdecode(np.fromfile(path(corpus, image, ".jpg"), np.uint8), cv2.IMREAD_COLOR) is None
    assert len(luma(corpus, image)) == image.frames


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    one, two, other = (
        contents(write_corpus(tmp_path / name, samples=4, seed=seed).folder)
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    assert one == two
    media = [name for name in one if name.startswith("media/")]
    assert len(media) == 18
    same = [name for name in media if other[name] == one[name]]
    assert same == ["media/storm-night/broken-image.jpg"]  # nothing but the header is left of it


def test_encoding_the_same_frames_again_gives_the_same_bytes() -> None:
    for truth in make_truth(12, 0):
        assert len({mp4(truth, 0) for _ in range(4)}) == 1


def test_a_corpus_that_is_there_is_not_touched(tmp_path: Path) -> None:
    first = write_corpus(tmp_path, samples=4)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    said: list[str] = []

    class Listener:
        def started(self, stage: str, total: int | None, unit: str) -> None:
            said.append(f"{stage}: {total} {unit}")

        def advanced(self, stage: str, n: int = 1) -> None: ...

        def finished(self, stage: str, message: str = "") -> None:
            said.append(message)

        def note(self, message: str) -> None: ...

    second = write_corpus(tmp_path, samples=4, events=Listener())
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    assert (first.written, second.written) == (20, 0)
    assert second.samples == first.samples
    assert said == ["demo corpus: 6 samples", f"{tmp_path}: there already with the same content; nothing written"]


def test_only_what_was_damaged_is_written_again_and_an_edited_catalog_is_kept(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, samples=4)
    before = contents(tmp_path)
    damaged, deleted = path(corpus, corpus.samples[0], ".jpg"), path(corpus, corpus.samples[1], ".mp4")
    damaged.write_bytes(b"not a picture")
    deleted.unlink()
    corpus.catalog.write_text("version: 1\n")
    store = tmp_path / "store" / "part.parquet"
    store.parent.mkdir()
    store.write_bytes(b"features")
    assert write_corpus(tmp_path, samples=4).written == 2
    assert contents(tmp_path) == before | {"data_catalog.yaml": b"version: 1\n", "store/part.parquet": b"features"}


def test_a_smaller_corpus_replaces_a_larger_one_leaving_no_sample_behind(tmp_path: Path) -> None:
    write_corpus(tmp_path / "replaced", samples=8, seed=1)
    write_corpus(tmp_path / "replaced", samples=4, seed=2)
    write_corpus(tmp_path / "fresh", samples=4, seed=2)
    assert contents(tmp_path / "replaced") == contents(tmp_path / "fresh")


def test_an_interrupted_corpus_is_finished_and_nothing_of_it_stays_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(truth: Truth, seed: int) -> bytes:
        if truth.sample_id.endswith("0005"):
            raise KeyboardInterrupt
        return b"1\n"

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.demo.corpus.srt", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_corpus(tmp_path / "cut", samples=8)
    write_corpus(tmp_path / "cut", samples=4)
    write_corpus(tmp_path / "fresh", samples=4)
    assert contents(tmp_path / "cut") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("marker", [None, "{", "[]", '{"parameters": {}, "files": {"../precious.txt": ""}}'])
def test_a_folder_that_is_not_a_demo_corpus_is_refused(tmp_path: Path, marker: str | None) -> None:
    precious = tmp_path / "folder" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    if marker is not None:
        (precious.parent / "demo.json").write_text(marker)
    before = contents(tmp_path)
    with pytest.raises(GristmillError, match=r"folder: got a folder that is not a demo corpus .*cure: name another"):
        write_corpus(precious.parent)
    assert contents(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(GristmillError, match="got a file that is not a demo corpus"):
        write_corpus(tmp_path / "file")


def test_fewer_samples_than_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="samples: got 3, allowed: 4"):
        write_corpus(tmp_path / "few", samples=3)
    assert not (tmp_path / "few").exists()


def test_the_marker_lists_every_media_file_with_its_digest(corpus: DemoCorpus) -> None:
    marker = json.loads((corpus.folder / "demo.json").read_text())
    assert marker["parameters"]["samples"] == SAMPLES
    assert all(len(digest) == 64 for digest in marker["files"].values())
    assert len(marker["files"]) == 3 * len(corpus.samples) + 1
