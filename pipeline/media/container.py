"""Media containers: opened safely, with one clock for all their streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND, seconds_to_ns, ticks_to_ns
from pipeline.media.source import Source, looks_like

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.codec.hwaccel import HWAccel
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

    StreamT = TypeVar("StreamT", VideoStream, AudioStream)

# Self-contained formats only. Playlists (hls, dash, concat, sdp, image sequences) name other files and addresses, and a
# hostile one would read them; single images and text are not video.
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,live_flv,ogg,wav,w64,aiff,au,caf,flac,mp3,"
    "aac,ac3,eac3,dts,truehd,amr,amrnb,amrwb,loas,tta,wv,ape,mpc,mpc8,tak,gxf,mxf,nut,rm,dv,h264,hevc,obu,ivf,m4v,vc1,"
    "wtv,gif,apng,yuv4mpegpipe,iamf"
)
SOFTWARE = "cure: engine.video_decoder: software"
_TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT, as av.format.Flags.ts_discont


@lru_cache(maxsize=1)
def pyav() -> ModuleType:
    """Import PyAV with FFmpeg's own messages turned off (they would go to the process's standard error)."""
    import av

    av.logging.set_level(None)
    return av


@contextmanager
def open_container(source: Source, hwaccel: HWAccel | None = None) -> Iterator[InputContainer]:
    """Open ``source`` by content, whatever its name. Nothing but this one file is ever opened.

    ``hwaccel``: what decodes its video, instead of software. Raises ``SampleError``: what ``Source.open`` raises,
    ``unsupported_format``, ``corrupt``, or ``unreadable`` where ``hwaccel`` cannot be had.
    """
    av = pyav()
    stream = source.open()
    try:
        try:
            container = av.open(
                _Nameless(stream),
                metadata_errors="replace",
                options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"},
                hwaccel=hwaccel,
            )
        except (av.FFmpegError, RuntimeError) as error:
            if hwaccel is None:
                if isinstance(error, av.FFmpegError):
                    raise _open_error(source, error) from error
                raise  # with hardware: it decodes none of the streams
            told = f"the GPU's decoder cannot be opened for it ({error}); {SOFTWARE}"
            raise source.error(Reason.UNREADABLE, told) from error
        with container:
            yield container
    finally:
        stream.close()


class _Nameless:
    """A file without its name, so that FFmpeg goes by the content and not by the extension."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read = stream.read
        self.seek = stream.seek
        self.tell = stream.tell


def _open_error(source: Source, error: Exception) -> SampleError:
    what = looks_like(source.read_head())
    if what.endswith((" media", " video", " audio")):
        return source.error(
            Reason.CORRUPT,
            f"looks like {what}, but its header cannot be read ({error.args[1]}); cure: copy or record it again",
        )
    return source.error(
        Reason.UNSUPPORTED_FORMAT,
        f"got {what}, allowed: a sound or video file; cure: convert it or correct the catalog",
    )


def clock_offset_ns(container: InputContainer) -> int:
    """Nanoseconds that are taken from every timestamp of the container, so that its clock means something.

    MP4, Matroska and most others have a real zero: their clock is kept as it is, so a track that starts late does. MPEG
    transport and program streams and Ogg (those that FFmpeg flags ``TS_DISCONT``) begin at an arbitrary count: there,
    as in every player, zero is the earliest start of all their streams. MP3 files begin at 0 as well (FFmpeg counts the
    encoder's delay, which it takes off, as a late start).
    """
    if container.format.name == "mp3" and container.streams.audio:
        stream = container.streams.audio[0]
        return ticks_to_ns(stream.start_time or 0, stream.time_base or Fraction(1, 1))
    if not container.format.flags & _TS_DISCONT or container.start_time is None:
        return 0
    starts = [
        Fraction(stream.start_time) * stream.time_base
        for stream in container.streams
        if stream.start_time is not None and stream.time_base is not None
    ]
    # the container's own start is one of them, in whole microseconds
    given = Fraction(container.start_time, 1_000_000)
    exact = min((start for start in starts if abs(start - given) <= Fraction(1, 1_000_000)), default=given)
    return seconds_to_ns(exact)


def choose(source: Source, streams: tuple[StreamT, ...], missing: Reason) -> StreamT:
    """Return the stream that a player would show: the first marked default, else the first. Cover pictures never are.

    Raises ``SampleError(missing)`` when there is none and ``unsupported_format`` when nothing here can decode it.
    """
    from av.stream import Disposition

    picture = Disposition.attached_pic | Disposition.timed_thumbnails
    tracks = [stream for stream in streams if not stream.disposition & picture]
    if not tracks:
        kind = missing.value.split("_")[1]
        raise source.error(missing, f"has no {kind} track, allowed: at least one; cure: take the {kind} feature off it")
    chosen = next((stream for stream in tracks if stream.disposition & Disposition.default), tracks[0])
    if chosen.codec_context is None:
        raise source.error(
            Reason.UNSUPPORTED_FORMAT,
            f"stream {chosen.index} is coded in a way that FFmpeg cannot decode; cure: convert it",
        )
    return chosen


def seek(container: InputContainer, stream: VideoStream, time_ns: int) -> None:
    """Go to a key frame at or before a time on the file's clock. Raises ``av.FFmpegError`` where that fails."""
    base = stream.time_base or Fraction(1, 1)
    ticks = (time_ns + clock_offset_ns(container)) * base.denominator // (base.numerator * NS_PER_SECOND)
    container.seek(ticks, stream=stream)


class Demuxer:
    """The packets of some streams of one container. ``stopped``: why reading ended early, or ``None``."""

    def __init__(self, container: InputContainer, streams: tuple[Stream, ...]) -> None:
        self._container = container
        self._streams = streams
        self.stopped: str | None = None

    def __iter__(self) -> Iterator[Packet[Stream]]:
        av = pyav()
        packets = self._container.demux(*self._streams)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self.stopped = str(error.args[1])
                return
            if packet is None:
                return
            yield packet
