"""A small corpus with a known truth: real MP4, JPEG and SRT files made from a seed, and a catalog for them.

Four classes are two independent bits. The **weather** (calm or storm) is seen: in the still image and in the video,
whose camera pans so that the scenery moves left when it is calm and right in a storm. The **time** (day or night) is
heard (high chirps or low hoots) and read (words of one of two vocabularies in the captions). So no single modality can
tell more than two groups of classes apart, about half of the samples; two that complement each other can tell all
four. In one sample of eight each modality is obscured and tells nothing; never both modalities of the same bit, so
that all four together can reach every class. ``truth.csv`` says which.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from features.errors import GristmillError
from pipeline.events import SILENT, Events

Pixels: TypeAlias = npt.NDArray[np.uint8]
State: TypeAlias = Literal["clear", "obscured", "broken"]

WEATHERS = ("calm", "storm")
TIMES = ("day", "night")
WORDS = {
    "day": ("sunrise", "morning", "noon", "sunshine", "breakfast", "daylight", "shadow", "lunch"),
    "night": ("moon", "midnight", "stars", "lantern", "supper", "darkness", "asleep", "candle"),
}
NEUTRAL_WORDS = (
    "boat", "harbour", "water", "rope", "sail", "shore", "wind", "wave", "gull", "fisher", "net", "anchor", "deck",
    "mast", "island", "bridge", "path", "stone", "house", "door", "window", "table", "letter", "friend", "sailor",
)  # fmt: skip

FRAME_RATE = Fraction(25, 2)
WIDTH, HEIGHT = 160, 120
IMAGE_WIDTH, IMAGE_HEIGHT = 256, 192
SAMPLE_RATE = 16_000
X264 = {"preset": "veryfast", "crf": "23", "x264-params": "threads=1:mbtree=0:cpu-independent=1"}
"""With x264's default macroblock tree the same frames give other bytes now and then."""
PAN_MARGIN = 104
OBSCURED_ONE_IN = 8
DATASET = "demo"
MARKER = "demo.json"
CATALOG = "data_catalog.yaml"

_CATALOG_TEXT = """\
# What to make of the demo corpus. Every key is explained in docs/catalog.md.
version: 1
store: ./store                       # features, their versions and the quarantine are kept here

datasets:
  demo:
    root: ./media
    source:
      kind: folder                   # files of the same name make one sample: clip-0000.mp4 + .jpg + .srt
      label_from: folder             # media/calm-day/clip-0000.mp4 has the label calm-day
    splits: {train: 0.6, validation: 0.15, test: 0.25, seed: 0}
    features:
      image.cnn: {}                  # what the picture shows: a vector of a pretrained network
      scenes:                        # the same network on one keyframe of each shot of the video
        prepare: [video.keyframes]
        extractor: image.cnn
      video.flow: {}                 # how the picture moves
      audio.mfcc:                    # how it sounds, noise taken out before
        prepare: [audio.denoise]
      text.word2vec:                 # what the captions say, by vectors trained on this corpus
        prepare: [text.clean]
    align: {grid: 0.5, default: mean}  # one row every half second, the same rows for every feature
    train: {methods: [early, late], epochs: 60}
    max_failed: 0.1                  # two files are broken on purpose; above a tenth, a run publishes nothing
    shard_samples: 16                # small shards, so that every core has some
"""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is known of one sample: its label and what each modality shows of it."""

    sample_id: str
    weather: str
    time: str
    image: State
    video: State
    audio: State
    text: State
    frames: int

    @property
    def label(self) -> str:
        """The class, such as ``calm-day``; also the folder that the files lie in."""
        return f"{self.weather}-{self.time}"

    @property
    def duration(self) -> Fraction:
        """Seconds of video, and of audio."""
        return self.frames / FRAME_RATE

    @property
    def cut(self) -> int:
        """Index of the first frame of the second shot."""
        return self.frames // 2


@dataclass(frozen=True, kw_only=True)
class DemoCorpus:
    """A demo corpus on disk. ``written`` counts the files that this call wrote: 0 when it was there already."""

    folder: Path
    catalog: Path
    samples: tuple[Truth, ...]
    written: int

    @property
    def broken(self) -> tuple[str, ...]:
        """Ids of the samples that have a file broken on purpose."""
        return tuple(t.sample_id for t in self.samples if "broken" in (t.image, t.video))


def write_corpus(folder: Path, *, samples: int = 96, seed: int = 0, events: Events = SILENT) -> DemoCorpus:
    """Write the corpus and its catalog below ``folder``: ``samples`` whole samples and two with a broken file.

    The same ``samples`` and ``seed`` give the same bytes on the same machine. Files that are there already with the
    right content are not touched; a catalog that is there is kept, edited or not.

    Raises ``ValueError`` for fewer than 4 samples (one of each class), and ``GristmillError`` when ``folder`` holds
    something else than a demo corpus or PyAV has no H.264 encoder.
    """
    if samples < len(WEATHERS) * len(TIMES):
        raise ValueError(f"samples: got {samples}, allowed: 4 (one of each class) or more")
    parameters = {"samples": samples, "seed": seed, "code": blake3(Path(__file__).read_bytes()).hexdigest()}
    known = _read_marker(folder)
    truths = make_truth(samples, seed)
    folder.mkdir(parents=True, exist_ok=True)
    same = known.get("parameters") == parameters
    intact = _intact(folder, known.get("files", {})) if same else {}
    if not same:  # say what may come to lie here, so that a run that is cut short leaves nothing unknown behind
        planned = [name for truth in truths for name in _names(truth)]
        _write_marker(folder, parameters, dict.fromkeys([*known.get("files", {}), *planned], ""))

    events.started("demo corpus", len(truths), "samples")
    files: dict[str, str] = {}
    written = 0
    for truth in truths:
        names = _names(truth)
        if all(name in intact for name in names):
            files.update((name, intact[name]) for name in names)
        else:
            for name, content in zip(names, (_video(truth, seed), _jpeg(truth, seed), _srt(truth, seed)), strict=True):
                files[name] = blake3(content).hexdigest()
                written += _write(folder / name, content)
        events.advanced("demo corpus")
    table = _truth_csv(truths)
    files["truth.csv"] = blake3(table).hexdigest()
    written += _write(folder / "truth.csv", table)
    for name in sorted(known.get("files", {}).keys() - files.keys()):
        (folder / name).unlink(missing_ok=True)
    if files != known.get("files") or not same:
        _write_marker(folder, parameters, files)
    catalog = folder / CATALOG
    if not catalog.exists():
        written += _write(catalog, _CATALOG_TEXT.encode())
    said = f"{written} files written" if written else "there already with the same content; nothing written"
    events.finished("demo corpus", f"{folder}: {said}")
    return DemoCorpus(folder=folder, catalog=catalog, samples=truths, written=written)


def make_truth(samples: int, seed: int) -> tuple[Truth, ...]:
    """Return what the corpus of ``samples`` and ``seed`` shows, the two broken samples last."""
    rng = _rng(seed, "truth")
    share = samples // OBSCURED_ONE_IN
    seen, heard = rng.permutation(samples), rng.permutation(samples)
    obscured = {"image": seen[:share], "video": seen[share : 2 * share]}
    obscured |= {"audio": heard[:share], "text": heard[share : 2 * share]}
    truths = []
    for index in range(samples):
        weather, time = WEATHERS[index % 2], TIMES[index // 2 % 2]
        states: dict[str, Any] = {m: "obscured" if index in where else "clear" for m, where in obscured.items()}
        sample_id = f"{weather}-{time}/clip-{index:04d}"
        truths.append(Truth(sample_id=sample_id, weather=weather, time=time, frames=_frames(rng), **states))
    truths.append(
        Truth(sample_id="calm-day/broken-video", weather="calm", time="day", image="clear", video="broken",
              audio="broken", text="clear", frames=_frames(rng))
    )  # fmt: skip
    truths.append(
        Truth(sample_id="storm-night/broken-image", weather="storm", time="night", image="broken", video="clear",
              audio="clear", text="clear", frames=_frames(rng))
    )  # fmt: skip
    return tuple(truths)


def _names(truth: Truth) -> list[str]:
    return [f"media/{truth.sample_id}{suffix}" for suffix in (".mp4", ".jpg", ".srt")]


def _frames(rng: np.random.Generator) -> int:
    return int(rng.integers(25, 38))


def _rng(seed: int, *names: str) -> np.random.Generator:
    digest = blake2b("/".join((str(seed), *names)).encode(), digest_size=16).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype="<u4"))


# --- seen -----------------------------------------------------------------------------------------


def _scenery(rng: np.random.Generator, weather: str | None, hue: float, width: int, height: int) -> Pixels:
    """Paint sea and sky in colours around ``hue`` (0 to 1): calm, stormy, or in fog (``None``). BGR."""
    import cv2

    hsv = np.empty((height, width, 3), dtype=np.uint8)
    hsv[..., 0] = int(hue * 180) % 180
    hsv[..., 1] = int(rng.integers(50, 140))
    hsv[..., 2] = np.linspace(rng.integers(110, 190), rng.integers(60, 150), height).astype(np.uint8)[:, None]
    canvas = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR).astype(np.float32)
    grain = cv2.GaussianBlur(rng.normal(0.0, 1.0, (height, width)).astype(np.float32), (0, 0), 2.5)
    canvas += (grain * (18.0 / grain.std()))[..., None]
    if weather == "calm":
        _paint_calm(canvas, rng)
    elif weather == "storm":
        _paint_storm(canvas, rng)
    else:
        canvas = 150.0 + 0.25 * (cv2.GaussianBlur(canvas, (0, 0), 3.0) - 110.0)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _paint_calm(canvas: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    import cv2

    height, width = canvas.shape[:2]
    rows = np.arange(height, dtype=np.float32)[:, None]
    bend = rng.uniform(2, 5) * np.sin(np.arange(width, dtype=np.float32) / rng.uniform(25, 45))
    canvas += 14.0 * np.sin((rows + bend) * rng.uniform(0.25, 0.45))[..., None]
    for _ in range(max(2, width * height // 14_000)):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        tint = rng.uniform(170, 250, 3).tolist()
        cv2.circle(canvas, centre, int(rng.integers(10, 22)), tint, -1, cv2.LINE_AA)


def _paint_storm(canvas: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    import cv2

    height, width = canvas.shape[:2]
    canvas *= 0.85
    slant = rng.uniform(0.4, 0.9)
    for _ in range(width * height // 220):
        x, y, length = int(rng.integers(-20, width)), int(rng.integers(-20, height)), int(rng.integers(8, 26))
        tint = rng.uniform(140, 230, 3).tolist()
        cv2.line(canvas, (x, y), (x + int(slant * length), y + length), tint, 1, cv2.LINE_AA)
    for _ in range(max(2, width * height // 14_000)):
        steps = np.cumsum(rng.integers((-14, 6), (15, 18), (7, 2)), axis=0)
        bolt = (steps + rng.integers((0, -20), (width, height // 2))).astype(np.int32)
        cv2.polylines(canvas, [bolt], isClosed=False, color=(235.0, 245.0, 250.0), thickness=2, lineType=cv2.LINE_AA)


def _noisy(picture: npt.NDArray[Any], rng: np.random.Generator, sigma: float) -> Pixels:
    return np.clip(picture + rng.normal(0.0, sigma, picture.shape), 0, 255).astype(np.uint8)


def _jpeg(truth: Truth, seed: int) -> bytes:
    import cv2

    rng = _rng(seed, truth.sample_id, "image")
    weather = None if truth.image == "obscured" else truth.weather
    picture = _scenery(rng, weather, rng.uniform(), IMAGE_WIDTH, IMAGE_HEIGHT)
    encoded = cv2.imencode(".jpg", _noisy(picture, rng, rng.uniform(6, 16)), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    content = encoded.tobytes()
    return content[:100] if truth.image == "broken" else content


def _shots(truth: Truth, seed: int) -> Iterator[Pixels]:
    """Yield the frames of the video, BGR: two shots of other colours, both panned the same way."""
    import cv2

    rng = _rng(seed, truth.sample_id, "video")
    weather = None if truth.video == "obscured" else truth.weather
    hue, speed = rng.uniform(), rng.uniform(24, 60)
    motion = {"calm": (-1.0, 0.0), "storm": (1.0, 0.0)}.get(weather or "", (0.0, rng.choice((-1.0, 1.0))))
    for shot, frames in enumerate((truth.cut, truth.frames - truth.cut)):
        wide = _scenery(rng, weather, hue + 0.45 * shot, WIDTH + PAN_MARGIN, HEIGHT + PAN_MARGIN)
        wide = np.clip(wide.astype(np.int16) + (-25, 35)[shot], 0, 255).astype(np.uint8)
        middle = np.array([wide.shape[1], wide.shape[0]]) / 2
        for frame in range(frames):
            moved = speed * (frame - frames / 2) / float(FRAME_RATE)
            x, y = middle - np.array(motion) * moved + rng.uniform(-0.4, 0.4, 2)
            window = cv2.getRectSubPix(wide, (WIDTH, HEIGHT), (float(x), float(y)))
            yield _noisy(window, rng, 4.0)


def _video(truth: Truth, seed: int) -> bytes:
    """Encode H.264 and AAC. The index of an MP4 comes last, so a file that is cut cannot be decoded at all."""
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        try:
            video = container.add_stream("libx264", rate=FRAME_RATE, options=X264)
        except av.codec.codec.UnknownCodecError as error:
            raise GristmillError(
                f"demo corpus: PyAV {av.__version__} has no encoder 'libx264'; cure: install PyAV from its wheels "
                "(pip install --only-binary av av)"
            ) from error
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = 48_000
        for index, pixels in enumerate(_shots(truth, seed)):
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            frame.pts, frame.time_base = index, 1 / FRAME_RATE
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = _sound(truth, seed)
        for start in range(0, len(sound), 1024):
            piece = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
    content = sink.getvalue()
    return content[: len(content) // 2] if truth.video == "broken" else content


# --- heard and read -------------------------------------------------------------------------------


def _sound(truth: Truth, seed: int) -> npt.NDArray[np.float32]:
    """Chirps of 2,200 to 3,400 Hz by day, hoots of 300 to 700 Hz by night, in noise. float32 ``[N]``."""
    rng = _rng(seed, truth.sample_id, "audio")
    n = int(truth.duration * SAMPLE_RATE)
    rumble = np.cumsum(rng.normal(0.0, 1.0, n))
    rumble -= np.convolve(rumble, np.full(800, 1 / 800), mode="same")
    sound = rng.normal(0.0, 1.0, n) + rumble / rumble.std()
    sound *= rng.uniform(0.03, 0.07)
    if truth.audio != "obscured":
        low, high = {"day": (2_200.0, 3_400.0), "night": (300.0, 700.0)}[truth.time]
        at = int(rng.integers(0, 2_000))
        while at < n:
            length = int(rng.integers(1_600, 4_000))
            begin, end = rng.uniform(low, high, 2)
            phase = 2 * np.pi * np.cumsum(np.linspace(begin, end, length)) / SAMPLE_RATE
            call = rng.uniform(0.12, 0.3) * np.hanning(length) * np.sin(phase)
            sound[at : at + length] += call[: n - at]
            at += length + int(rng.integers(1_000, 5_000))
    clipped: npt.NDArray[np.float32] = np.clip(sound, -0.95, 0.95).astype(np.float32)
    return clipped


def _srt(truth: Truth, seed: int) -> bytes:
    """Three cues, one after the other; each has five neutral words and, unless obscured, two that tell the time."""
    rng = _rng(seed, truth.sample_id, "text")
    cue = int(truth.duration * 1000) // 3
    blocks = []
    for number in range(3):
        words = list(rng.choice(NEUTRAL_WORDS, 5, replace=False))
        if truth.text != "obscured":
            words += list(rng.choice(WORDS[truth.time], 2, replace=False))
        rng.shuffle(words)
        start, end = number * cue + 20, (number + 1) * cue - 20
        blocks.append(f"{number + 1}\n{_clock(start)} --> {_clock(end)}\n{' '.join(words)}\n")
    return "\n".join(blocks).encode()


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"00:00:{seconds:02d},{rest:03d}"


# --- on disk --------------------------------------------------------------------------------------


def _truth_csv(truths: tuple[Truth, ...]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["sample_id", "label", "weather", "time", "image", "video", "audio", "text", "duration_s", "second_shot_s"]
    )
    for t in truths:
        seconds = f"{float(t.duration):.2f}", f"{float(t.cut / FRAME_RATE):.2f}"
        writer.writerow([t.sample_id, t.label, t.weather, t.time, t.image, t.video, t.audio, t.text, *seconds])
    return text.getvalue().encode()


def _read_marker(folder: Path) -> dict[str, Any]:
    """Return what ``demo.json`` says; empty for a folder that does not exist or is empty."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return {}
    try:
        found = json.loads((folder / MARKER).read_bytes())
        if isinstance(found["parameters"], dict) and all(_below(folder, name) for name in found["files"]):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise GristmillError(
        f"{folder}: got {'a folder' if folder.is_dir() else 'a file'} that is not a demo corpus (no {MARKER} of its "
        "own inside), allowed: a new or empty folder, or an earlier demo corpus; cure: name another folder"
    )


def _below(folder: Path, name: str) -> bool:
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _intact(folder: Path, files: dict[str, str]) -> dict[str, str]:
    return {
        name: digest
        for name, digest in files.items()
        if (folder / name).is_file() and blake3((folder / name).read_bytes()).hexdigest() == digest
    }


def _write_marker(folder: Path, parameters: dict[str, Any], files: dict[str, str]) -> None:
    content = {"made_by": "gristmill demo", "parameters": parameters, "files": files}
    _write(folder / MARKER, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def _write(path: Path, content: bytes) -> bool:
    """Put ``content`` at ``path``, whole or not at all; return whether the file had to be written."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
    return True
