"""Pictures as they lie in a page: data URIs, bounded in bytes and in the time that making them may take."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from features.errors import GristmillError, SampleError

T = TypeVar("T")
PAGE_BYTES = 6 << 20
"""Pictures and sounds of one page take no more, as they lie in it."""
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """An encoded picture: ``uri`` is ``data:...``; ``alt`` says what it shows."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Missing:
    """A picture that could not be made, and why."""

    what: str
    why: str


class Album:
    """Makes pictures until ``seconds`` are over or the page is full; what is left out then is told in ``missing``."""

    def __init__(self, seconds: float, size: int = PAGE_BYTES) -> None:
        self._seconds, self._size = seconds, size
        self._begun = time.monotonic()
        self.bytes = 0
        self.missing: list[Missing] = []

    @property
    def seconds_left(self) -> float:
        """Seconds until no picture is begun any more."""
        return self._seconds - (time.monotonic() - self._begun)

    def attempt(self, what: str, make: Callable[[], T]) -> T | None:
        """Call ``make``; where it fails, or there is no time or room for it, say so and give ``None``."""
        if self.seconds_left <= 0:
            self._left_out(what, f"the {self._seconds:.0f} s for pictures were over")
            return None
        if self.bytes >= self._size:
            self._left_out(what, f"the page is full ({self._size >> 20} MiB of pictures)")
            return None
        try:
            return make()
        except SampleError as error:
            self._left_out(what, error.message)
        except GristmillError as error:
            self._left_out(what, str(error))
        except Exception as error:  # noqa: BLE001  # a picture never fails a run; the page says what is not there
            self._left_out(what, f"{type(error).__name__}: {error}")
        return None

    def _left_out(self, what: str, why: str) -> None:
        self.missing.append(Missing(what, why))

    def photo(self, pixels: npt.NDArray[np.uint8], alt: str) -> Picture:
        """A photograph or painting, RGB uint8 ``[H, W, 3]``, as JPEG."""
        import cv2

        shown: Any = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
        return self._encoded(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY], alt)

    def graphic(self, pixels: npt.NDArray[np.uint8], alt: str) -> Picture:
        """A drawing, RGBA uint8 ``[H, W, 4]``, as PNG."""
        import cv2

        shown: Any = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGBA2BGRA)
        return self._encoded(".png", shown, [cv2.IMWRITE_PNG_COMPRESSION, 9], alt)

    def _encoded(self, suffix: str, pixels: Any, parameters: list[int], alt: str) -> Picture:
        import cv2

        done, content = cv2.imencode(suffix, pixels, parameters)
        if not done:
            raise ValueError(f"a picture of {pixels.shape} cannot be encoded")
        kind = "image/jpeg" if suffix == ".jpg" else "image/png"
        return Picture(self.embed(kind, content.tobytes()), pixels.shape[1], pixels.shape[0], alt)

    def embed(self, kind: str, content: bytes) -> str:
        """A data URI of ``content``."""
        uri = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        self.bytes += len(uri)
        return uri
