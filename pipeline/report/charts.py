"""Small charts as SVG whose colours come from the page's style, so that they read well in the dark too.

Nothing but numbers goes into them; text around a chart is the template's, which escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

Float64 = npt.NDArray[np.float64]


def _svg(width: float, height: float, body: str, label: str, kind: str) -> Markup:
    head = Markup('<svg class="chart {}" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">')
    return head.format(kind, f"{width:g}", f"{height:g}", label) + Markup(body + "</svg>")  # noqa: S704  # numbers


def waveform(low: Sequence[float], high: Sequence[float], peak: float, label: str) -> Markup:
    """Lowest and highest sample over time, scaled so that ``peak`` fills the height."""
    scale = 0.96 / max(peak, 1e-9)
    count = len(low)
    points = [f"{i + 0.5:g},{1 - high[i] * scale:.3f}" for i in range(count)]
    points += [f"{i + 0.5:g},{1 - low[i] * scale:.3f}" for i in reversed(range(count))]
    line = f'<line class="axis" x1="0" y1="1" x2="{max(1, count)}" y2="1"/>'
    shape = f'<polygon class="now" points="{" ".join(points)}"/>' if count else ""
    return _svg(max(1, count), 2, line + shape, label, "wave")


def histogram(now: Float64, before: Float64 | None, label: str) -> Markup:
    """Shares of one variable in equal bins: bars of today, the outline of yesterday."""
    top = max(float(now.max(initial=0)), float(before.max(initial=0)) if before is not None else 0.0, 1e-9)
    height = 40.0
    bars = [
        f'<rect class="now" x="{i + 0.06:g}" width="0.88" y="{height * (1 - share / top):.2f}" '
        f'height="{height * share / top:.2f}"/>'
        for i, share in enumerate(now.tolist())
    ]
    if before is not None:
        steps = " ".join(
            f"{x:g},{height * (1 - share / top):.2f}" for i, share in enumerate(before.tolist()) for x in (i, i + 1)
        )
        bars.append(f'<polyline class="before" points="{steps}"/>')
    return _svg(len(now), height, "".join(bars), label, "histogram")


def columns(mean: Float64, spread: Float64, label: str, groups: int = 160) -> Markup:
    """Mean of every column as a line, and one standard deviation around it as a band; many columns in groups."""
    if len(mean) > groups:
        cuts = np.linspace(0, len(mean), groups, endpoint=False).astype(np.int64)
        size = np.diff(np.append(cuts, len(mean)))
        mean, spread = (np.add.reduceat(values, cuts) / size for values in (mean, spread))
    low, high = float((mean - spread).min(initial=0)), float((mean + spread).max(initial=0))
    scale = 38 / max(high - low, 1e-12)

    def y(value: float) -> str:
        return f"{39 - (value - low) * scale:.2f}"

    bands: list[str] = []
    line: list[str] = []
    for i, (middle, around) in enumerate(zip(mean.tolist(), spread.tolist(), strict=True)):
        height = max(0.2, 2 * around * scale)
        bands.append(f'<rect class="band" x="{i}" width="1" y="{y(middle + around)}" height="{height:.2f}"/>')
        line += [f"{i},{y(middle)}", f"{i + 1},{y(middle)}"]
    zero = f'<line class="axis" x1="0" x2="{len(mean)}" y1="{y(0)}" y2="{y(0)}"/>'
    body = "".join(bands) + zero + f'<polyline class="line" points="{" ".join(line)}"/>'
    return _svg(max(1, len(mean)), 40, body, label, "columns")


def history(values: Sequence[float | None], label: str) -> Markup:
    """One bar a run, the newest at the right; ``None`` leaves a gap."""
    top = max([value for value in values if value is not None], default=0) or 1
    bars = [
        f'<rect class="{"now" if i == len(values) - 1 else "past"}" x="{i + 0.1:g}" width="0.8" '
        f'y="{30 * (1 - value / top):.2f}" height="{max(0.6, 30 * value / top):.2f}"/>'
        for i, value in enumerate(values)
        if value is not None
    ]
    return _svg(max(1, len(values)), 30, "".join(bars), label, "history")


def curve(values: Sequence[float | None], label: str) -> Markup:
    """Numbers over time from 0 to the largest, gaps where there is none."""
    top = max([value for value in values if value is not None], default=0) or 1
    parts: list[str] = []
    part: list[str] = []
    for i, value in enumerate([*values, None]):
        if value is None:
            if part:
                parts.append(f'<polyline class="line" points="{" ".join(part)}"/>')
            part = []
        else:
            part.append(f"{i},{29 - 28 * max(0.0, value) / top:.2f} {i + 1},{29 - 28 * max(0.0, value) / top:.2f}")
    return _svg(max(1, len(values)), 30, "".join(parts), label, "curve")


def losses(train: Sequence[float], validation: Sequence[float | None], label: str) -> Markup:
    """Losses over epochs on one scale from 0: of training as a line, of validation (where it is) as another."""
    top = max([*train, *(value for value in validation if value is not None)], default=0) or 1

    def line(values: Sequence[float | None], kind: str) -> str:
        points = [f"{i},{39 - 38 * value / top:.2f}" for i, value in enumerate(values) if value is not None]
        return f'<polyline class="{kind}" points="{" ".join(points)}"/>' if points else ""

    axis = f'<line class="axis" x1="0" x2="{max(1, len(train) - 1)}" y1="39.5" y2="39.5"/>'
    return _svg(max(1, len(train) - 1), 40, axis + line(train, "line") + line(validation, "before"), label, "losses")
