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
    assert recording.name.endswith("characters, one-hot)" if source == "english" else ", standardised)")


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
@pytest.mark.parametrize("standardise", [False, True])
def test_files_of_numbers(name, standardise, signal, tmp_path):
    """They are taken as they are, unless something else is asked for; and the name says which."""
    file = str(write(tmp_path / name, signal))
    recording = load_recording(file, length=None, batch=2, dtype=np.float64, standardise=standardise)
    assert recording.data.shape == (60, 2, 2)
    expected = np.trunc(8000 * signal) / 32768 if name == "a.wav" else signal
    if standardise:
        expected = (expected - expected.mean(axis=0)) / expected.std(axis=0)
    np.testing.assert_allclose(recording.data[:, 1], expected[60:], rtol=0, atol=1e-12)
    assert recording.data.swapaxes(0, 1).flags.c_contiguous
    assert recording.name == f"{name} (2 channels, {'standardised' if standardise else 'raw'})"


def test_text_is_one_hot(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text("So much depends upon a red wheel barrow\n")
    data = load_recording(str(path), length=None, batch=1, dtype=np.float64).data
    assert data.shape == (40, 1, len(set(path.read_text())))
    np.testing.assert_array_equal(data.sum(axis=-1), 1)


def load(path, **settings):
    return load_recording(str(path), **{"length": None, "batch": 1, "dtype": np.float64, **settings})


@pytest.mark.parametrize("constant", [0.1, 1e300, 0.0])
def test_a_constant_channel_becomes_zero(tmp_path, constant):
    np.save(tmp_path / "flat.npy", np.full(50, constant))
    np.testing.assert_array_equal(load(tmp_path / "flat.npy", standardise=True).data, 0)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_a_channel_of_any_size_is_standardised(tmp_path, signal, size):
    np.save(tmp_path / "sized.npy", size * signal)
    for dtype in (np.float32, np.float64):
        data = load(tmp_path / "sized.npy", standardise=True, dtype=dtype).data
        np.testing.assert_allclose(data.std(axis=0), 1, rtol=1e-5)


def test_numbers_that_a_solve_cannot_take(tmp_path, signal):
    np.save(tmp_path / "large.npy", 1e300 * abs(signal))
    assert np.isfinite(load(tmp_path / "large.npy").data).all()
    with pytest.raises(ValueError, match=r"at row 0, channel 0 \(240 such values\); wanted finite numbers of float32"):
        load(tmp_path / "large.npy", dtype=np.float32)
    (tmp_path / "holes.csv").write_text("# made by hand\na,b\n1,2\n\n3,nan\n")
    with pytest.raises(ValueError, match=r"holes.csv is nan at line 5, column 2 \(1 such values\); wanted finite"):
        load(tmp_path / "holes.csv")
    assert load(tmp_path / "holes.csv", length=1).data.tolist() == [[[1, 2]]]
    (tmp_path / "words.txt").write_text("no numbers")
    with pytest.raises(ValueError, match=r"--standardise is for numbers, and --input .*words.txt is text"):
        load(tmp_path / "words.txt", standardise=True)
    (tmp_path / "empty.csv").write_text("# nothing\n")
    with pytest.raises(ValueError, match="is empty"):
        load(tmp_path / "empty.csv")
    np.save(tmp_path / "flat.npy", signal)
    (tmp_path / "not.npz").write_bytes((tmp_path / "flat.npy").read_bytes())
    with pytest.raises(ValueError, match="no archive"):
        load(tmp_path / "not.npz")
