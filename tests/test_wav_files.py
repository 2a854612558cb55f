"""Samples of .wav files of every kind: bytes put together by hand, and files that libsndfile writes."""

import struct
import sys

import numpy as np
import pytest

from recsolve.studies.problems.recordings import load_recording
from recsolve.studies.problems.wav_files import read_wav

SAMPLES = np.array([[0, 1], [-32768, 32767], [1000, -1000], [5, -6], [77, 0]])


def chunk(name, content, order="<", size=None):
    stated = len(content) if size is None else size
    return name + struct.pack(order + "I", stated) + content + bytes(len(content) % 2)


def fmt(code=1, channels=2, width=2, bits=None, order="<", rate=8000, byte_rate=None):
    bits = 8 * width if bits is None else bits
    byte_rate = rate * channels * width if byte_rate is None else byte_rate
    return chunk(b"fmt ", struct.pack(order + "HHIIHH", code, channels, rate, byte_rate, channels * width, bits), order)


def riff(*chunks, kind=b"RIFF", order="<", size=None):
    body = b"WAVE" + b"".join(chunks)
    return kind + struct.pack(order + "I", len(body) if size is None else size) + body


DATA = SAMPLES.astype("<i2").tobytes()
GUID = bytes.fromhex("000000001000800000aa00389b71")
UNKNOWN = 0xFFFFFFFF

LOSSY = {"ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32"}

WHOLE = {
    "the least": riff(fmt(), chunk(b"data", DATA)),
    "a broadcast chunk": riff(chunk(b"bext", bytes(603)), fmt(), chunk(b"data", DATA)),
    "marks": riff(fmt(), chunk(b"cue ", struct.pack("<I", 0)), chunk(b"data", DATA)),
    "peaks": riff(fmt(), chunk(b"PEAK", bytes(24)), chunk(b"fact", bytes(4)), chunk(b"data", DATA)),
    "chunks behind": riff(fmt(), chunk(b"data", DATA), chunk(b"LIST", b"INFO"), chunk(b"id3 ", b"odd")),
    "chunks of an odd size": riff(chunk(b"junk", b"abc"), fmt(), chunk(b"iXML", b"<a/>x"), chunk(b"data", DATA)),
    "bytes behind": riff(fmt(), chunk(b"data", DATA)) + b"xy",
    "half a chunk behind": riff(fmt(), chunk(b"data", DATA), b"LI"),
    "a wrong size of the file": riff(fmt(), chunk(b"data", DATA), size=10**6),
    "a wrong byte rate": riff(fmt(byte_rate=1), chunk(b"data", DATA)),
    "a stream": riff(fmt(), chunk(b"data", DATA, size=UNKNOWN), size=UNKNOWN),
    "a stream of sox": riff(fmt(), chunk(b"data", DATA, size=0x7FFFF000), size=0x7FFFF024),
    "a header that was never completed": riff(fmt(), chunk(b"data", DATA, size=0), size=36),
    "a stream that ends within a step": riff(fmt(), chunk(b"data", DATA + b"x", size=UNKNOWN), size=UNKNOWN),
    "a long format": riff(
        chunk(b"fmt ", fmt(0xFFFE)[8:] + struct.pack("<HHIH", 22, 16, 3, 1) + GUID), chunk(b"data", DATA)
    ),
    "beyond 4 GiB": riff(
        chunk(b"ds64", struct.pack("<QQQI", 100, len(DATA), 5, 0)),
        fmt(),
        chunk(b"data", DATA, size=UNKNOWN),
        chunk(b"LIST", b"INFO"),
        kind=b"RF64",
        size=UNKNOWN,
    ),
    "bytes in the other order": riff(
        fmt(order=">"), chunk(b"data", SAMPLES.astype(">i2").tobytes(), ">"), kind=b"RIFX", order=">"
    ),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("installed", [False, True])
def test_what_lies_around_the_samples_does_not_matter(kind, installed, tmp_path, monkeypatch):
    if not installed:
        monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.wav").write_bytes(WHOLE[kind])
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav"), SAMPLES / 32768)
    recording = load_recording(str(tmp_path / "a.wav"), length=None, batch=1, dtype=np.float64)
    assert recording.name == "a.wav (2 channels, raw)"


@pytest.mark.parametrize(
    ("code", "dtype", "bits", "half"),
    [(1, "u1", 8, 2.0**7), (1, "<i2", 12, 2.0**15), (1, "<i4", 32, 2.0**31), (3, "<f4", 32, 1), (3, "<f8", 64, 1)],
)
def test_samples_of_every_width(code, dtype, bits, half, tmp_path):
    """Integers are fractions of full scale, floating-point numbers what they are."""
    numbers = np.array([0, 1, 100, 127, -128, -3]) * half / 128
    stored = (numbers + (half if dtype == "u1" else 0)).astype(dtype)
    width = stored.dtype.itemsize
    (tmp_path / "a.wav").write_bytes(riff(fmt(code, 1, width, bits), chunk(b"data", stored.tobytes())))
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav"), numbers / half)


def test_samples_of_three_bytes(tmp_path):
    numbers = [0, 1, -1, 2**23 - 1, -(2**23)]
    data = b"".join(n.to_bytes(3, "little", signed=True) for n in numbers)
    (tmp_path / "a.wav").write_bytes(riff(fmt(1, 1, 3), chunk(b"data", data)))
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav"), np.array(numbers) / 2.0**23)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (riff(fmt(), chunk(b"data", DATA))[:-8], "it is cut off: 12 of 20 bytes of samples are there"),
        (riff(fmt()), "it has no samples"),
        (riff(fmt(), chunk(b"data", b"")), "is empty"),
        (riff(chunk(b"data", DATA)), "it does not say the format of its samples"),
        (riff(b"ds64", bytes(8), kind=b"RF64"), "it has no samples"),
        (riff(fmt()[:12], chunk(b"data", DATA)), "it has no samples"),
        (riff(fmt(channels=0), chunk(b"data", DATA)), "its header is damaged: 0 channels"),
        (riff(fmt(bits=99), chunk(b"data", DATA)), "99-bit"),
        (
            riff(fmt(7, 1, 1), chunk(b"data", DATA)),
            "its samples are encoded (format 0x0007), which takes soundfile: pip install 'recsolve[audio]'",
        ),
        (b"fLaC and so on", "it is no wave file, but begins with b'fLaC', which takes soundfile: pip install"),
        (b"", "it is no wave file"),
    ],
)
def test_what_cannot_be_read_is_said(content, words, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        load_recording(str(path), length=None, batch=1, dtype=np.float64)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "chunk not understood" not in str(caught.value).lower()


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64", "W64", "FLAC"])
def test_every_kind_that_libsndfile_writes(container, tmp_path):
    """Slow waves, which every encoding carries, in whatever a file named .wav may hold."""
    soundfile = pytest.importorskip("soundfile")
    wave = 0.5 * np.sin(np.arange(3000) / 40)
    for encoding in soundfile.available_subtypes(container):
        for endian in ("FILE", "BIG"):
            if not soundfile.check_format(container, encoding, endian) or encoding == "MPEG_LAYER_III":
                continue  # of which libsndfile is a reader only
            path = tmp_path / "a.wav"
            soundfile.write(path, wave, 8000, format=container, subtype=encoding, endian=endian)
            found = read_wav(path)[1000:3000]
            worst = abs(found - wave[1000:]).max()
            assert worst < (0.1 if encoding in LOSSY else 1e-2 if encoding in ("PCM_U8", "PCM_S8") else 1e-4), encoding


def test_soundfile_refuses_in_one_line(tmp_path):
    pytest.importorskip("soundfile")
    for content in (b"nothing of the kind", riff(fmt(0x1234), chunk(b"data", DATA))):
        (tmp_path / "a.wav").write_bytes(content)
        with pytest.raises(ValueError, match=r"soundfile cannot read it: [A-Z]"):
            read_wav(tmp_path / "a.wav")
