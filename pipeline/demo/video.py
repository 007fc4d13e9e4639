"""Frames and sound as an MP4 file."""

from __future__ import annotations

import io
from fractions import Fraction

from features.errors import GristmillError
from pipeline.demo.pictures import HEIGHT, WIDTH, shots
from pipeline.demo.sound import SAMPLE_RATE, sound_of
from pipeline.demo.truth import FRAME_RATE, Truth

X264 = {"preset": "veryfast", "crf": "23", "x264-params": "threads=1:mbtree=0:cpu-independent=1"}
"""With x264's default macroblock tree the same frames give other bytes now and then."""


def mp4(truth: Truth, seed: int) -> bytes:
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
        for index, pixels in enumerate(shots(truth, seed)):
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            frame.pts, frame.time_base = index, 1 / FRAME_RATE
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = sound_of(truth, seed)
        for start in range(0, len(sound), 1024):
            piece = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
    content = sink.getvalue()
    return content[: len(content) // 2] if truth.video == "broken" else content
