"""The header of a WAV file, and its samples where they lie in the file as plain numbers."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.errors import Reason
from pipeline.media.source import Source

_STREAMED = 0xFFFFFF00  # a data chunk from here on is a stream whose length was never filled in
_PCM_TAGS = (1, 3, 0xFFFE)
_FLOAT, _EXTENSIBLE = 3, 0xFFFE
_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_BLOCK_BYTES = 1 << 24
_DTYPES = {(1, 8): "u1", (1, 16): "<i2", (1, 24): "u1", (1, 32): "<i4", (3, 32): "<f4", (3, 64): "<f8"}


@dataclass(frozen=True, kw_only=True)
class Wav:
    """Where the samples of a WAV file lie.

    ``tag`` 1: integers of ``bits``, 3: floats; ``at``: first byte of the data chunk; ``frames`` it holds; ``missing``:
    bytes that it declares and the file does not have. ``plain``: whether ``read`` can read it.
    """

    tag: int = 0
    channels: int = 0
    rate: int = 0
    bits: int = 0
    at: int = 0
    frames: int = 0
    missing: int = 0
    plain: bool = False

    def read(self, descriptor: int, first: int, stop: int) -> npt.NDArray[np.float32]:
        """Samples ``first`` to ``stop`` of all channels, float32 ``[channels, n]``, as libsndfile scales them."""
        width = self.channels * self.bits // 8
        out = np.empty((self.channels, stop - first), dtype=np.float32)
        step = max(1, _BLOCK_BYTES // width)
        for begin in range(first, stop, step):
            end = min(begin + step, stop)
            raw = os.pread(descriptor, (end - begin) * width, self.at + begin * width)
            values = np.frombuffer(raw, dtype=_DTYPES[self.tag, self.bits])
            if self.bits == 24:
                values = _widened(values)
            frames = values.reshape(-1, self.channels).T
            into = out[:, begin - first : begin - first + frames.shape[1]]
            if frames.shape[1] < end - begin:
                return out[:, : begin - first + frames.shape[1]]  # cut while it was read
            if self.tag == _FLOAT:
                with np.errstate(over="ignore"):  # to infinity, which is refused
                    into[...] = frames
            elif self.bits == 8:
                np.multiply(frames, np.float32(2.0**-7), out=into)
                into -= np.float32(1)
            else:
                np.multiply(frames, np.float32(2.0 ** -(31 if self.bits == 24 else self.bits - 1)), out=into,
                            casting="same_kind", dtype=np.float32)  # fmt: skip
        return out


def _widened(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Three bytes each as the upper bytes of an int32."""
    wide = np.zeros((len(values) // 3, 4), dtype=np.uint8)
    wide[:, 1:] = values.reshape(-1, 3)
    return wide.view("<i4")[:, 0]


def parse(source: Source, size: int, read: Callable[[int, int], bytes]) -> Wav | None:
    """Return what a header says, ``None`` where it is no WAV. ``read(at, count)`` gives bytes of a file of ``size``.

    Raises ``SampleError(corrupt)`` when its PCM samples do not fill whole bytes of the declared block.
    """
    head = read(0, 12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    position, tag, channels, rate, bits, plain = 12, 0, 0, 0, 0, False
    while position + 8 <= size:
        chunk = read(position, 48)
        length = int.from_bytes(chunk[4:8], "little")
        if chunk[:4] == b"fmt " and len(chunk) >= 24:
            tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", chunk[8:24])
            _check_block(source, tag, channels, block, bits)
            if tag == _EXTENSIBLE and chunk[34:48] == _SUBFORMAT_TAIL and chunk[26:28] == chunk[22:24]:
                tag = int.from_bytes(chunk[32:34], "little")
            plain = (tag, bits) in _DTYPES and channels > 0 and rate > 0 and 8 * block == channels * bits
        if chunk[:4] == b"data":
            missing = 0 if length >= _STREAMED else max(0, position + 8 + length - size)
            frames = 8 * length // (channels * bits) if plain else 0
            plain = plain and 0 < length < _STREAMED and not missing and frames > 0
            return Wav(tag=tag, channels=channels, rate=rate, bits=bits, at=position + 8, frames=frames,
                       missing=missing, plain=plain)  # fmt: skip
        position += 8 + length + length % 2
    return Wav()


def _check_block(source: Source, tag: int, channels: int, block: int, bits: int) -> None:
    if tag in _PCM_TAGS and channels and (block % channels or 8 * block < channels * bits):
        raise source.error(
            Reason.CORRUPT,
            f"the WAV header declares {channels} channels of {bits} bits in blocks of {block} bytes, allowed: whole "
            "bytes for every channel; cure: export it again",
        )
