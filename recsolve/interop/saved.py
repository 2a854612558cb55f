"""Cells, layers and mixings as files: safetensors, whose metadata say what the arrays are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsolve._version import __version__
from recsolve.base.arguments import check_callable
from recsolve.base.files import replace_into_place
from recsolve.interop.archives import FORMAT, metadata_of
from recsolve.interop.checkpoint import cell_of
from recsolve.interop.records import Reader, Writer

VERSION, SUFFIX = 1, ".safetensors"
# What is raised where objects are made of records and arrays that do not fit.
_UNFIT = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)


def save(x: Any, path: str | os.PathLike[str]) -> None:
    """Save a cell with its weights, or what else is plain data, for :func:`recsolve.load`.

    Parameters
    ----------
    x : WeightedCell, RaggedCell, Layers, Projection or Mixing
        Of the classes of this package. Arrays on a GPU are written from the host, and tensors without their graph.
    path : path
        Ends in .safetensors. A file that is there is replaced when the new one is complete.

    Raises
    ------
    TypeError
        For another object, or a part that is a subclass: its code is in no file.
    ValueError
        For a path with another ending.
    FileNotFoundError
        When there is no such folder.
    OSError
        When the file cannot be written.

    Notes
    -----
    The file is one of safetensors (https://github.com/huggingface/safetensors), so that arrays can be read without
    recsolve. Its metadata are ``format``, ``format_version``, ``recsolve_version``, ``object``, ``dtype``, and
    ``record``, JSON with the kinds of the mixings, the names of components and all settings. A cell that is not built
    in is saved with the place of its function, ``"module:name"``, not with the function.

    Examples
    --------
    >>> import os, tempfile, numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)
    >>> path = os.path.join(tempfile.mkdtemp(), "cell.safetensors")
    >>> rs.save(cell, path)
    >>> rs.load(path)
    WeightedCell(gru, 8 units, mixings {'r': 'dense', 'z': 'dense', 'n': 'dense'}, float64)

    The function of a cell of your own is passed when it is loaded:

    >>> def leak(s, W, u, p):
    ...     return np.tanh(W.h(s.h) + u.x)
    >>> own = rs.Cell(leak, state=("h",), output="h").random(input_size=3, hidden_size=8, rng=0)
    >>> rs.save(own, path)
    >>> rs.load(path, function=leak).cell.name
    'leak'
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path is {type(path).__name__}; wanted the name of a file, {SUFFIX}")
    path, writer = Path(path), Writer()
    if path.suffix.lower() != SUFFIX:
        raise ValueError(f"path is {path}; wanted a name that ends in {SUFFIX}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} for {path.name}")
    record = writer.record(x)
    dtypes = sorted({a.dtype.name for a in writer.arrays.values() if a.dtype.kind == "f"})
    said = {"format": FORMAT, "format_version": str(VERSION), "recsolve_version": __version__}
    said |= {"object": record["object"], "dtype": ", ".join(dtypes), "record": json.dumps(record, default=_plain)}
    try:
        with replace_into_place(path) as part:
            save_file(writer.arrays, part, said)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error


def load(
    path: str | os.PathLike[str],
    *,
    keys: str | Sequence[str] | None = None,
    layer: int | None = None,
    reverse: bool = False,
    nonlinearity: str = "tanh",
    function: Callable[..., Any] | None = None,
) -> Any:
    """Load what :func:`recsolve.save` has written, or one layer and direction of a trained RNN, GRU or LSTM.

    The metadata of the file decide which it is.

    Parameters
    ----------
    path : path
        What ``save`` has written, as .safetensors.

        Of torch a state dict of RNN, GRU, LSTM, RNNCell, GRUCell or LSTMCell as .pt, .pth, .ckpt, .bin
        (``torch.save(module.state_dict(), path)``, also within other dicts), .safetensors or .npz, or TorchScript as
        .pt or .jit. Of ONNX (.onnx) the nodes RNN, GRU and LSTM; of Keras (.keras, .weights.h5, .h5) the layers
        SimpleRNN, GRU and LSTM, also within Bidirectional. No Python code of a file is run.
    keys : str or sequence of str, optional
        Which module, where the file holds several: patterns of its keys, such as ``"encoder.rnn.*"``, or the name of
        the module; several in a text with commas. ``recsolve weights FILE`` lists what there is. All keys of the module
        that they select are used, or it is refused; the keys of others are left alone.
    layer : int, optional
        Which layer; needed when there are several layers, or two directions and not ``reverse``.
        :meth:`recsolve.Layers.load` takes them all.
    reverse : bool
        The reverse direction: its cell walks through the input from the end, so turn the input round.
    nonlinearity : {"tanh", "relu"}
        Of an RNN in a file that does not say it; ONNX and Keras with a configuration do.
    function : callable, optional
        The function f(s, W, u, p) of a cell that is not built in, in a file of ``save``, of which no other argument
        is given.

    Returns
    -------
    WeightedCell, RaggedCell, Layers, Projection or Mixing
        What was saved, on NumPy arrays, bit for bit. Of a network an Elman, GRU, Cho GRU or LSTM cell in the dtype of
        the file; float16 and bfloat16 become float32. Of an LSTM with ``proj_size`` states are those before the
        projection, which ``solution.output`` shows.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ImportError
        For files of torch or ONNX where these are not installed; the message names the extra.
    ValueError
        For another format, a corrupt file, or one without recurrent weights or that pickles objects; for keys that are
        missing, left over or of a wrong shape, weights that are NaN or inf, and settings that the cells do not have
        (other activations, clipping, peepholes). The message names file and key. Of what ``save`` has written: for a
        newer version of the format, a cell whose function is not given, and a record and arrays that do not fit.
    TypeError
        For weights of mixed dtypes, or other ones than float32, float64, float16 and bfloat16.

    Examples
    --------
    >>> import os, tempfile, numpy as np, recsolve as rs
    >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
    >>> recurrent = {"rnn.weight_ih_l0": np.ones((24, 3)), "rnn.weight_hh_l0": np.ones((24, 8))}
    >>> np.savez(path, **recurrent, **{"head.weight": np.ones((2, 8))})
    >>> rs.load(path, keys="rnn.*")
    WeightedCell(gru, 8 units, mixings {'r': 'dense', 'z': 'dense', 'n': 'dense'}, float64)
    """
    if function is not None:
        check_callable("function", function, "f(s, W, u, p)")
    if (said := metadata_of(path)) is not None:
        if (keys, layer, reverse, nonlinearity) != (None, None, False, "tanh"):
            raise ValueError(
                f"{path} was written by recsolve.save; leave out keys, layer, reverse and nonlinearity, of networks"
            )
        return _read(path, said, function)
    found = cell_of(path, keys, layer, reverse, nonlinearity)
    if function is not None:
        raise ValueError(f"function is given, and {path} was not written by recsolve.save; leave it out")
    return found


def _read(path: str | os.PathLike[str], said: dict[str, str], function: Callable[..., Any] | None) -> Any:
    """Return the object in a file, of which :func:`metadata_of` are known; ValueError names the file and the fault."""
    from safetensors import SafetensorError, safe_open

    version, writer = said.get("format_version", "?"), said.get("recsolve_version", "?")
    if version not in map(str, range(1, VERSION + 1)):
        raise ValueError(
            f"{path} has version {version} of the format, written by recsolve {writer}; this is {__version__}, "
            f"which reads versions up to {VERSION}: update it"
        )
    reader = Reader({}, function)
    try:
        with safe_open(path, framework="numpy") as file:
            reader.arrays.update((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 - no mapping
        found = reader.object(_tuples(json.loads(said.get("record", ""))))
        if unknown := sorted(reader.arrays.keys() - reader.used):
            raise ValueError(f"arrays {unknown} belong to nothing that the record describes")
    except (SafetensorError, *_UNFIT) as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from error
    if function is not None and not reader.called:
        raise ValueError(f"function is given, and {path} holds no cell of a function; leave it out")
    return found


def _plain(x: Any) -> int:
    """Return an integer of NumPy as JSON holds it; TypeError for what it does not hold."""
    if isinstance(x, np.integer):
        return int(x)
    raise TypeError(f"{x!r} is no plain data, which files hold")


def _tuples(x: Any) -> Any:
    """Return JSON with tuples in the place of lists."""
    if isinstance(x, dict):
        return {name: _tuples(value) for name, value in x.items()}
    return tuple(map(_tuples, x)) if isinstance(x, list) else x
