"""Samples of .wav files: plain numbers by SciPy's reader, encoded ones by soundfile where it is installed."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np

from recsolve.base.arrays import Array

_PLAIN = (1, 3)  # codes of integer and floating-point samples
_EXTENSIBLE = 0xFFFE  # the code is further back in the header
_UNKNOWN = 0x7FFFF000  # sizes from here on are written by programs that do not know yet how long a recording gets


class Encoded(Exception):
    """Samples that are no plain numbers."""


def read_wav(path: Path) -> Array:
    """Return samples (N,) or (N, channels), float64: integers as fractions of full scale, in [-1, 1).

    Chunks besides the samples and their format do not matter, nor do sizes in headers that were never completed.

    Raises
    ------
    ValueError
        When the file is damaged, cut off, or of a kind that needs soundfile, which is then named.
    """
    content = path.read_bytes()
    try:
        return _by_scipy(plain(content))
    except Encoded as error:
        return _by_soundfile(content, str(error))


def plain(content: bytes) -> bytes:
    """Return a wave file of the same samples with a complete header and nothing else.

    Raises
    ------
    Encoded
        For samples that are no plain numbers, and files that are no wave files.
    ValueError
        For a damaged file.
    """
    kind = content[:4]
    if kind not in (b"RIFF", b"RIFX", b"RF64") or content[8:12] != b"WAVE":
        raise Encoded(f"it is no wave file, but begins with {content[:4]!r}")
    order = ">" if kind == b"RIFX" else "<"
    header, samples = _chunks(content, order)
    if len(header) < 16:
        raise ValueError("it does not say the format of its samples (a 'fmt ' chunk of at least 16 bytes)")
    code, channels, rate, _, width, bits = struct.unpack(order + "HHIIHH", header[:16])
    if code == _EXTENSIBLE and len(header) >= 26:
        (code,) = struct.unpack(order + "H", header[24:26])
    if code not in _PLAIN:
        raise Encoded(f"its samples are encoded (format {code:#06x})")
    if not channels or not width or width % channels:
        raise ValueError(f"its header is damaged: {channels} channels in {width} bytes")
    samples = samples[: len(samples) - len(samples) % width]
    header = struct.pack(order + "HHIIHH", code, channels, rate, (rate * width) % 2**32, width, bits)
    size = struct.pack(order + "I", len(samples))
    body = b"WAVEfmt " + struct.pack(order + "I", 16) + header + b"data" + size + samples
    return (b"RIFX" if order == ">" else b"RIFF") + struct.pack(order + "I", len(body)) + body


def _chunks(content: bytes, order: str) -> tuple[bytes, bytes]:
    """Return the format and the samples of a wave file."""
    header, long, place = b"", None, 12
    while place + 8 <= len(content):
        name, start = content[place : place + 4], place + 8
        (size,) = struct.unpack(order + "I", content[place + 4 : start])
        if name == b"ds64" and start + 16 <= len(content):  # of files beyond 4 GiB
            (long,) = struct.unpack("<Q", content[start + 8 : start + 16])
        elif name == b"fmt ":
            header = content[start : start + size]
        elif name == b"data":
            return header, content[start : start + _size(content, order, start, long if size == 0xFFFFFFFF else size)]
        place = start + size + size % 2
    raise ValueError("it has no samples (no 'data' chunk)")


def _size(content: bytes, order: str, start: int, stated: int | None) -> int:
    """Return how many bytes of samples there are: all the rest where the header was written before they were known."""
    rest = len(content) - start
    (whole,) = struct.unpack(order + "I", content[4:8])
    if stated is None or (stated >= _UNKNOWN and stated > rest) or (stated == 0 and whole + 8 < len(content)):
        return rest
    if stated > rest:
        raise ValueError(f"it is cut off: {rest} of {stated} bytes of samples are there")
    return stated


def _by_scipy(content: bytes) -> Array:
    from scipy.io import wavfile

    _, samples = wavfile.read(BytesIO(content))
    if samples.dtype.kind == "f":
        return samples.astype(np.float64)  # type: ignore[no-any-return]
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return (samples - half if samples.dtype.kind == "u" else samples) / half  # type: ignore[no-any-return]


def _by_soundfile(content: bytes, why: str) -> Array:
    try:
        import soundfile
    except (ImportError, OSError):  # it, or its library
        raise ValueError(f"{why}, which takes soundfile: pip install 'recsolve[audio]'") from None
    try:
        return np.asarray(soundfile.read(BytesIO(content), dtype="float64")[0])
    except soundfile.SoundFileError as error:
        said = getattr(error, "error_string", error)  # without the name of an object
        raise ValueError(f"{why}, and soundfile cannot read it: {said}") from None
