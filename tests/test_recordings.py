"""Recordings that come with the package, and files of numbers or text of a user."""

import numpy as np
import pytest

from recsolve.studies.problems.recordings import BUILT_IN, load_recording


@pytest.mark.parametrize("source", sorted(BUILT_IN))
def test_built_in_recordings(source):
    recording = load_recording(source, length=50, batch=2, dtype=np.float32)
    assert recording.data.shape[:2] == (50, 2)
    assert recording.data.dtype == np.float32
    assert np.isfinite(recording.data).all()
    assert recording.data.std() > 0.05


def write(path, signal):
    if path.suffix == ".npy":
        np.save(path, signal)
    elif path.suffix == ".npz":
        np.savez(path, signal=signal)
    elif path.name == "header.csv":
        np.savetxt(path, signal, delimiter=",", header="left,right", comments="")
    elif path.suffix == ".csv":
        np.savetxt(path, signal, delimiter=",")
    elif path.suffix == ".wav":
        from scipy.io import wavfile

        wavfile.write(path, 8000, (8000 * signal).astype(np.int16))
    else:
        np.savetxt(path, signal)
    return path


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.csv", "header.csv", "a.wav", "a.txt"])
def test_files_of_numbers(name, signal, tmp_path):
    recording = load_recording(str(write(tmp_path / name, signal)), length=None, batch=2, dtype=np.float64)
    assert recording.data.shape == (60, 2, 2)
    expected = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    np.testing.assert_allclose(recording.data[:, 1], expected[60:], atol=1e-3 if name == "a.wav" else 1e-12)
    assert recording.data.swapaxes(0, 1).flags.c_contiguous


def test_text_is_one_hot(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text("So much depends upon a red wheel barrow\n")
    data = load_recording(str(path), length=None, batch=1, dtype=np.float64).data
    assert data.shape == (40, 1, len(set(path.read_text())))
    np.testing.assert_array_equal(data.sum(axis=-1), 1)


def test_recordings_that_are_easily_misread(tmp_path, signal):
    def load(name, text=None, data=None):
        path = tmp_path / name
        if text is not None:
            path.write_text(text, encoding="utf-8")
        else:
            np.save(path, data)
        return load_recording(str(path), length=None, batch=1, dtype=np.float64)

    rows = "\n".join(f"{a},{b}" for a, b in signal)
    assert load("bom.csv", "\ufeff" + rows).data.shape == (120, 1, 2)
    assert load("commas.txt", rows).data.shape == (120, 1, 2)
    assert load("commented.txt", "# left right\n" + rows.replace(",", " ")).data.shape == (120, 1, 2)
    with pytest.raises(ValueError, match="row 1 is 'n/a,2'"):
        load("holes.csv", "1,2\nn/a,2\n3,4\n")
    with pytest.raises(ValueError, match="semicolons"):
        load("european.csv", "1;2\n3;4\n")
    with pytest.raises(ValueError, match="row 2 is"):
        load("ragged.txt", "1 2\n3 4\n5\n")
    with pytest.raises(ValueError, match="is empty"):
        load("empty.csv", "")
    for constant in (0.1, 1e300, 0.0):
        np.testing.assert_array_equal(load("flat.npy", data=np.full(50, constant)).data, 0)
    for size in (1e-300, 1e300):
        np.testing.assert_allclose(load("sized.npy", data=size * signal).data.std(axis=0), 1)
    (tmp_path / "not.npz").write_bytes((tmp_path / "flat.npy").read_bytes())
    with pytest.raises(ValueError, match="no archive"):
        load_recording(str(tmp_path / "not.npz"), length=None, batch=1, dtype=np.float64)
    wav = write(tmp_path / "cut.wav", signal)
    wav.write_bytes(wav.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"not a readable \.wav"):
        load_recording(str(wav), length=None, batch=1, dtype=np.float64)
