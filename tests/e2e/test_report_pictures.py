"""Pages of films and sounds, looked into; and opened in a real browser, at the width of a desk and of a phone."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import soundfile
from pages import Element, decoded, read

from features.image.histogram import Histogram
from features.random import derive_seed, generator
from features.types import Image
from pipeline.catalog import load_catalog
from pipeline.chain import Chain
from pipeline.demo import CATALOG, DATASET, write_corpus
from pipeline.report.album import Album
from pipeline.report.draw import thumbnail
from pipeline.report.material import of_record
from pipeline.report.media import open_image
from pipeline.report.stills import SIDE, images
from pipeline.run import run_dataset

pytestmark = pytest.mark.e2e
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FEATURES = """\
    features:
      picture: {extractor: image.cnn, prepare: [image.denoise]}
      shots: {extractor: video.keyframes}
      video.flow: {}
      audio.mfcc: {prepare: [audio.denoise]}
      text.word2vec: {prepare: [text.clean]}
    align: {grid: 0.5}
    max_failed: 0.6
"""


@dataclass(frozen=True)
class Shop:
    folder: Path
    run_id: str
    page: str

    @property
    def root(self) -> Element:
        return read(self.page)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The demo corpus, small, with a prepare step on every stream that has them."""
    folder = tmp_path_factory.mktemp("demo")
    write_corpus(folder, samples=8)
    catalog = folder / CATALOG
    head, _, _ = catalog.read_text().partition("    features:")
    catalog.write_text(head + FEATURES)
    report = run_dataset(load_catalog(catalog), DATASET, engine="serial")
    return Shop(folder, report.run_id, report.page)


def section(shop: Shop, name: str) -> Element:
    return shop.root.one("section", id=name)


def test_everything_is_shown(shop: Shop) -> None:
    assert shop.root.all(id="missing") == []
    assert Path(shop.page).stat().st_size < 3 << 20


def test_pictures_before_and_after_their_prepare_steps(shop: Shop) -> None:
    found = section(shop, "images").all("figure")
    prepared = [figure for figure in found if figure.text.strip() == "prepared"]
    assert len(prepared) == 4
    before = [figure for figure in found if figure.text.strip() == "as read"]
    one, other = decoded(before[0].one("img")), decoded(prepared[0].one("img"))
    assert one.shape == other.shape
    assert np.abs(np.diff(one.astype(int), axis=0)).mean() > np.abs(np.diff(other.astype(int), axis=0)).mean()


def test_keyframes_and_motion(shop: Shop) -> None:
    videos = section(shop, "videos")
    assert "keyframes of shots" in videos.text
    times = [float(figure.text.split()[0]) for figure in videos.all("figure")]
    assert times[0] == 0.0
    assert any(0.9 < second < 2 for second in times), "the second shot"
    assert len(section(shop, "motion").all("figure")) >= 6


def test_sounds_before_and_after_denoising_can_be_seen_and_heard(shop: Shop) -> None:
    sounds = section(shop, "sounds").all("div", **{"class": "sound"})
    assert len(sounds) == 6
    for before, after in zip(sounds[::2], sounds[1::2], strict=True):
        assert [sound.one("b").text for sound in (before, after)] == ["as read", "prepared"]
        levels, heard = [], []
        for sound in (before, after):
            head, _, content = sound.one("audio").attributes["src"].partition(",")
            assert head == "data:audio/mpeg;base64"
            samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
            assert rate == 16_000
            heard.append(10 * np.log10(np.mean(samples**2)))
            levels.append(float(sound.all("span")[0].text.split()[0]))
        assert levels[1] < levels[0], "noise is taken out"
        np.testing.assert_allclose(heard, levels, atol=1.0)
        assert decoded(before.one("img")).mean() > decoded(after.one("img")).mean() + 5


def test_a_sample_on_its_timeline(shop: Shop) -> None:
    lanes = section(shop, "alignment").all("div", **{"class": "lane"})
    names = [what.children[0] for lane in lanes if (what := lane.all("div")[0]).children]
    assert names[:3] == ["video", "audio", "text"]
    assert {"shots", "shots, aligned", "video.flow speed", "audio.mfcc, aligned"} <= {str(name) for name in names}
    blocks = lanes[2].all("span", **{"class": "block"})
    assert len(blocks) == 3
    left = [float(block.attributes["style"].split("%")[0].removeprefix("left:")) for block in blocks]
    assert left == sorted(left)
    assert all(0 <= percent < 100 for percent in left)
    strip = decoded(next(lane for lane in lanes if "audio.mfcc, aligned" in lane.text).one("img"))
    assert strip.shape == (20, 600, 4)
    changes = np.flatnonzero((strip[:, 1:] != strip[:, :-1]).any(axis=(0, 2))) + 1
    assert len(changes) in (3, 4, 5), "one colour for each half second"
    assert np.abs(np.diff(changes) - np.diff(changes).mean()).max() <= 1


@dataclass(frozen=True, kw_only=True)
class Invert:
    """An augmentation: the negative, a little brighter by seed."""

    name: ClassVar[str] = "test.invert"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()

    def augment(self, batch: list[Image], seeds: list[int], device: object) -> list[Image]:
        return [
            Image(pixels=(255 - image.pixels) // np.uint8(generator(seed).integers(1, 5)))
            for image, seed in zip(batch, seeds, strict=True)
        ]


def test_augmented_views_are_shown(shop: Shop) -> None:
    material = of_record(load_catalog(shop.folder / CATALOG), DATASET, shop.run_id)
    chain = Chain("views.x", (), Histogram(), (Invert(), Invert()), 4, 7)
    material.dataset.features["views.x"] = chain
    material.dataset.view_splits["views.x"] = ("train",)
    shown = images(material, Album(60.0), 12)
    assert shown is not None
    (feature,) = [feature for feature in shown["features"] if feature["name"] == "views.x"]
    assert feature["steps"] == "test.invert, test.invert"
    assert feature["rows"]
    for row in feature["rows"]:
        assert row.sample.split == "train", "samples of other splits have no views"
        image = open_image(row.sample)
        for view in (1, 2, 3, 4):
            wanted = image
            for number in (0, 1):
                (wanted,) = Invert().augment([wanted], [derive_seed(7, row.sample.sample_id, view, number, 0)], None)
            content = base64.b64decode(row.pictures[view + 1][1].uri.partition(",")[2])
            found = np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
            assert np.abs(found - thumbnail(wanted.pixels, SIDE)).mean() < 8, "the view that is stored, as a JPEG"
        assert [caption for caption, _ in row.pictures] == ["as read", "prepared", *(f"view {i}" for i in range(1, 5))]
        assert len({picture.uri for _, picture in row.pictures[1:]}) >= 3, "views differ by their seeds"
    again = images(material, Album(60.0), 12)
    assert again is not None
    assert again["features"][-1]["rows"] == feature["rows"], "and are the same every night"


# -- in a browser


class Browser:
    """Chromium without a window, spoken to over its DevTools."""

    def __init__(self, address: str) -> None:
        from websockets.sync.client import connect

        self._socket = connect(address, max_size=1 << 28)
        self._numbers = count(1)
        self.complaints: list[str] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._hear(answer)

    def _hear(self, event: dict[str, Any]) -> None:
        match event["method"]:
            case "Log.entryAdded":
                self.complaints.append(event["params"]["entry"]["text"])
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(event["params"]))
            case "Network.requestWillBeSent":
                if not (url := event["params"]["request"]["url"]).startswith(("file:", "data:")):
                    self.complaints.append(f"asked for {url}")

    def evaluate(self, script: str) -> Any:
        return self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)["result"]["value"]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium; Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run",
             "--disable-background-networking", f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield from _connected(Path(profile, "DevToolsActivePort"))
        finally:
            process.terminate()
            process.wait(30)


def _connected(port_file: Path) -> Iterator[Browser]:
    import urllib.request

    until = time.monotonic() + 60
    while not (port_file.exists() and port_file.read_text().count("\n")):
        assert time.monotonic() < until, "Chromium did not start"
        time.sleep(0.1)
    port = port_file.read_text().splitlines()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        (tab,) = [found for found in json.load(answer) if found["type"] == "page"]
    made = Browser(tab["webSocketDebuggerUrl"])
    yield made
    made.close()


SETTLED = "new Promise(done => document.readyState == 'complete' ? done(1) : addEventListener('load', () => done(1)))"
BROKEN = "[...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt)"
PLAYERS = """Promise.all([...document.querySelectorAll('audio')].map(a => new Promise(done => {
    if (a.readyState > 0) done(a.duration);
    a.addEventListener('loadedmetadata', () => done(a.duration));
    a.addEventListener('error', () => done('broken: ' + a.error.message)) })))"""
TOO_WIDE = """[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest('.scroll, nav, .track, pre, svg')).map(e => e.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_shows_all_of_it(shop: Shop, browser: Browser, width: int, scheme: str) -> None:
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.ask(f"{domain}.enable")
    browser.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    for page in (Path(shop.page), Path(shop.page).parents[1] / "index.html"):
        browser.ask("Page.navigate", url=page.as_uri())
        browser.evaluate(SETTLED)
        assert browser.evaluate("document.querySelector('h1').textContent") == DATASET
        assert browser.evaluate(BROKEN) == []
        assert browser.evaluate(TOO_WIDE) == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        colour = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(","))) < 380) is (scheme == "dark")
        if page.name == "report.html":
            assert browser.evaluate("document.images.length") == len(shop.root.all("img")) > 50
            assert all(1 < seconds < 4 for seconds in browser.evaluate(PLAYERS))
            assert browser.evaluate("document.querySelectorAll('svg').length") > 10
    assert browser.complaints == []


def shown(pixels: npt.NDArray[np.uint8]) -> float:
    return float(pixels.std())


def test_the_page_of_a_run_is_painted(shop: Shop, browser: Browser) -> None:
    import cv2

    browser.ask("Page.enable")
    browser.ask("Emulation.setDeviceMetricsOverride", width=1280, height=1600, deviceScaleFactor=1, mobile=False)
    browser.ask("Page.navigate", url=Path(shop.page).as_uri() + "#images")
    browser.evaluate(SETTLED)
    content = base64.b64decode(browser.ask("Page.captureScreenshot", format="png")["data"])
    painted = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert painted is not None
    assert painted.shape == (1600, 1280, 3)
    assert shown(np.asarray(painted, dtype=np.uint8)) > 20
