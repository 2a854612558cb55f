"""Reading a file: what ``recsolve.save`` has written, or one layer of a trained network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from recsolve.base.arguments import check_callable
from recsolve.interop.archives import metadata_of
from recsolve.interop.contents import read_contents
from recsolve.interop.modules import Weights
from recsolve.recurrence import torch_weights


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
    from recsolve import cells
    from recsolve.interop.saved import read

    if function is not None:
        check_callable("function", function, "f(s, W, u, p)")
    if (said := metadata_of(path)) is not None:
        if (keys, layer, reverse, nonlinearity) != (None, None, False, "tanh"):
            raise ValueError(
                f"{path} was written by recsolve.save; leave out keys, layer, reverse and nonlinearity, of networks"
            )
        return read(path, said, function)
    if function is not None:
        raise ValueError(f"function is given, and {path} was not written by recsolve.save; leave it out")
    name, weights = read_weights(path, keys, nonlinearity)
    found = list(torch_weights.ends(weights))
    if layer is None and (found[-1][0] > 0 or (len(found) > 1 and not reverse)):
        raise ValueError(
            f"{path} holds {torch_weights.described(found)}; pass layer= (and reverse=), or use recsolve.Layers.load "
            "for all of them"
        )
    if (layer or 0, reverse) not in found:
        seen = f"layer {layer or 0}{' reverse' if reverse else ''}"
        raise ValueError(f"{path} holds {torch_weights.described(found)}, not {seen}")
    return torch_weights.cell_from_weights(cells.get(name), weights, layer or 0, reverse)


def read_weights(
    path: str | os.PathLike[str], keys: str | Sequence[str] | None = None, nonlinearity: str = "tanh"
) -> tuple[str, Weights]:
    """Return the cell's name and the weights of one recurrent module in a file, by torch's names.

    Parameters
    ----------
    path, keys, nonlinearity
        As in :func:`load`.

    Returns
    -------
    name : str
        A name in ``recsolve.cells``.
    weights : dict of array
        float32 or float64.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError, TypeError
        As :func:`load`.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity is {nonlinearity!r}; wanted 'tanh' or 'relu'")
    module = read_contents(path, keys).one()
    return {"rnn": "elman" if nonlinearity == "tanh" else "elman_relu"}.get(module.cell, module.cell), module.weights
