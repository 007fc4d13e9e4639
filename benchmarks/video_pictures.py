"""Make the pictures of docs/video.md from the real media beside the checkout.

uv run python benchmarks/video_pictures.py [FOLDER OF MEDIA]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np

from features.align.spatial import register
from features.base import FrameRequest
from features.time import Span
from features.types import Device
from features.video.fields import flow_field
from features.video.flow import Flow
from features.video.keyframes import Keyframes, KeyframeScores
from pipeline.media.source import Source
from pipeline.media.video import FrameChunk, decode
from pipeline.report.draw import flow_over

mpl.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
CPU: Device = "cpu"
DPI = 80


def run(path: Path, steps: dict[str, Any]) -> dict[str, Any]:
    """What each step makes of a film, in one pass."""
    sinks = {name: step.select() if hasattr(step, "select") else step.open(CPU) for name, step in steps.items()}
    for piece in decode(Source(str(path)), frames={name: step.request for name, step in steps.items()}):
        if isinstance(piece, FrameChunk):
            sinks[piece.key].push(piece.clip)
    return {name: sink.finish() for name, sink in sinks.items()}


def frames_at(path: Path, seconds: list[float], side: int) -> list[np.ndarray]:
    """The frames that are shown at given times."""
    found = []
    for second in seconds:
        span = Span(round(second * 1e9), round(second * 1e9) + 1)
        (chunk,) = decode(Source(str(path)), frames={"": FrameRequest(short_side=side)}, span=span)
        found.append(chunk.clip.pixels[0])
    return found


def keyframes(path: Path) -> None:
    """A contact sheet: the keyframe of each shot, its time, its shot, and how the shot begins."""
    found = run(path, {"pictures": Keyframes(), "scores": KeyframeScores()})
    across = 6
    rows = -(-len(found["pictures"]) // across)
    figure, axes = plt.subplots(rows, across, figsize=(12, 1.52 * rows), dpi=DPI)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, image, row in zip(axes.ravel(), found["pictures"], found["scores"].values, strict=False):
        begin, end = image.span.start_ns / 1e9, image.span.end_ns / 1e9
        axis.imshow(cv2.resize(image.pixels, (240, 135), interpolation=cv2.INTER_AREA), aspect="equal")
        how = "first" if row[0] == 0 else "dissolve" if row[4] else "cut"
        axis.set_title(f"{begin + row[1]:.2f} s   ({begin:.2f} to {end:.2f}, {how})", fontsize=6.5, pad=2)
    figure.tight_layout(pad=0.3, w_pad=0.3, h_pad=0.3)
    save(figure, "video-keyframes")


def motion(path: Path) -> None:
    """Speed of the picture over time, what remains without the camera, and the fields where either is largest."""
    found = run(path, {"flow": Flow(rate=12.0), "scores": KeyframeScores()})
    flow, cuts = found["flow"], found["scores"].start_ns[1:] / 1e9
    names = {name: k for k, name in enumerate(Flow.columns)}
    middle = (flow.start_ns + flow.end_ns) / 2e9
    inside = np.array([not any(a < cut < b for cut in cuts) for a, b in zip(flow.start_ns / 1e9, flow.end_ns / 1e9,
                                                                          strict=True)])  # fmt: skip
    camera = np.hypot(flow.values[:, names["global_dx"]], flow.values[:, names["global_dy"]])
    residual = flow.values[:, names["residual_speed"]]
    figure = plt.figure(figsize=(12, 5.2), dpi=DPI)
    grid = figure.add_gridspec(2, 3, height_ratios=(1.1, 1.3))
    chart = figure.add_subplot(grid[0, :])
    for values, name, colour in ((camera, "camera", "#1f6feb"), (residual, "what remains", "#d1242f")):
        chart.plot(middle, np.where(inside, values, np.nan), color=colour, linewidth=1, label=name)
    for cut in cuts:
        chart.axvline(cut, color="#bbbbbb", linewidth=0.7, zorder=0)
    chart.set(xlim=(0, middle[-1]), ylabel="frame widths a second", xlabel="s (grey: shots begin)")
    chart.set_ylim(0, float(np.nanquantile(np.where(inside, np.maximum(camera, residual), np.nan), 0.99)))
    chart.legend(loc="upper right", fontsize=8, frameon=False)
    zoom = np.abs(flow.values[:, names["zoom"]])
    sure = inside & (flow.values[:, names["confidence"]] > 0.5)
    rankings = (
        np.where(sure & (residual < 0.4 * camera), camera, -1),
        np.where(sure & (camera < 0.1 * residual), residual, -1),
        np.where(sure & (residual < 0.03), zoom, -1),
    )
    chosen = [int(np.argmax(ranking)) for ranking in rankings]
    for place, (row, what) in enumerate(zip(chosen, ("camera moves", "things move", "camera zooms"), strict=True)):
        times = [flow.start_ns[row] / 1e9 + 0.001, flow.end_ns[row] / 1e9 + 0.001]
        one, other = frames_at(path, times, 144)
        field = flow_field(*(np.asarray(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)) for p in (one, other)), preset="medium")
        limit = float(np.quantile(np.linalg.norm(field, axis=2), 0.98))
        axis = figure.add_subplot(grid[1, place])
        axis.imshow(flow_over(one, field, limit, 2))
        said = f"camera {camera[row]:.2f}, rest {residual[row]:.2f}, zoom {flow.values[row, names['zoom']]:+.2f}"
        axis.set_title(f"{what}, {times[0]:.2f} s: {said}", fontsize=8.5)
        axis.axis("off")
    figure.tight_layout(pad=0.6)
    save(figure, "video-motion")


def spatial(path: Path, picture: Path) -> None:
    """A photograph, found in frames of which it is known where it lies."""
    whole = np.asarray(cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB))
    whole = np.asarray(cv2.resize(whole, (480, 320), interpolation=cv2.INTER_AREA))
    (ground,) = frames_at(path, [20.0], 360)
    height, width = ground.shape[:2]
    corners = np.array([[0, 0], [479, 0], [479, 319], [0, 319]], dtype=np.float32)
    places = [
        [[150, 60], [430, 40], [470, 260], [130, 230]],
        [[330, 90], [560, 200], [470, 350], [240, 250]],
        [[380, 60], [800, 30], [840, 320], [350, 300]],
    ]
    figure, axes = plt.subplots(1, 4, figsize=(12, 1.9), dpi=DPI)
    axes[0].imshow(whole)
    axes[0].set_title("the picture", fontsize=9)
    for axis, place in zip(axes[1:], places, strict=True):
        truth = np.array(place, dtype=np.float32)
        matrix = cv2.getPerspectiveTransform(corners, truth)
        drawn = cv2.warpPerspective(whole, matrix, (width, height), flags=cv2.INTER_LINEAR)
        covered = cv2.warpPerspective(np.ones((320, 480), np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST)
        frame = np.where(covered[..., None] == 1, drawn, ground).astype(np.uint8)
        found = register(whole, frame)
        error = float(np.linalg.norm(found.corners - truth, axis=1).max())
        axis.imshow(frame)
        axis.plot(*np.vstack([found.polygon, found.polygon[:1]]).T, color="#39d353", linewidth=1.6)
        axis.set_title(f"{found.inliers} inliers, {found.picture_share:.0%} seen, error {error:.2f} px", fontsize=9)
    for axis in axes:
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    save(figure, "video-spatial")


def save(figure: Any, name: str) -> None:
    """Write one picture, with few colours."""
    path = PICTURES / f"{name}.png"
    figure.savefig(path)
    plt.close(figure)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")


def main() -> None:
    """Write every picture."""
    media = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data"
    film = media / "video/trailer_bbb.mp4"
    keyframes(film)
    motion(film)
    spatial(film, media / "image/flower.jpg")


if __name__ == "__main__":
    main()
