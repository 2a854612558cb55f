"""A cell is one function: elementwise arithmetic around linear mixings.

``Cell(function, state=..., output=...)`` is the definition; with weights it becomes a :class:`WeightedCell`, and with a
drive a :class:`CellRecurrence`. The names of mixings, drives and parameters are read off the function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import cleandoc
from typing import Any

import numpy as np

from recsolve.base.arguments import check_callable, generator_of
from recsolve.base.layout import Layout
from recsolve.base.named_state import axes_of
from recsolve.mixings import Mixing
from recsolve.recurrence import torch_weights
from recsolve.recurrence.drawing import drawn
from recsolve.recurrence.probing import read
from recsolve.recurrence.projection import Projection
from recsolve.recurrence.ragged_cell import RaggedCell
from recsolve.recurrence.weighted_cell import WeightedCell


class Cell:
    """The definition of a cell.

    Parameters
    ----------
    function : callable
        ``function(s, W, u, p)`` returns the new state (a tuple in the order of ``state`` when it has several
        components). ``s.name`` is a component of the old state, ``W.name(x)`` a mixing, ``u.name`` a drive,
        ``p.name`` an elementwise parameter. Between mixings it uses elementwise functions of :mod:`recsolve.math`
        or NumPy only, sums over units: ``total``, ``mean``, ``dot``, ``layer_norm`` and ``rms_norm``, and ``gather``.
    state : tuple of str, or mapping
        Names of the state's components, all of one shape (*lanes, n). As a mapping to the names of their axes,
        ``{"m": (), "C": ("k", "v")}``, each has a shape of its own: see Notes.
    output : str
        The component that the cell shows.
    name : str, optional
        Name in listings; default: that of the function.
    cite : str, optional
        The source of the equations.
    axes : mapping, optional
        Of components with axes: the names of the axes of drives, parameters and mixings, by name; of others they are
        those of the output. What the function does not use is a drive for a readout.
    structure : str or mapping
        Of components with axes: which depend on which, as :meth:`recsolve.Recurrence.from_function` takes it. Default:
        what is read off the function when a recurrence is made, and "dense" where it uses what is not followed.

    Attributes
    ----------
    mixings, drives, parameters : tuple of str
        The names that the function uses, in order of first use.
    indices : tuple of str
        Those of the drives that are indices of :func:`recsolve.math.gather`.

    Raises
    ------
    TypeError
        For axes in another form.
    ValueError
        When ``output`` is not a component, the function returns another number of components, it returns something
        else when it is called again, or computes with an index.

    Notes
    -----
    Where components have axes, ``s.m`` is (T, *batch), ``s.C`` (T, *batch, k, v), drives have their axes behind
    (T, *batch), parameters their axes alone, and a mixing acts on the last axes of what it gets. The function uses any
    of NumPy's functions that automatic differentiation follows, with which it may couple entries, and returns a dict by
    name, or a tuple in order. Here it is called on arrays whose axes have size 1. States are stored flat,
    (T, *batch, N), and evaluated by NumPy: compiled loops know components that are alike.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.math import sigmoid, tanh
    >>> def minimal_gated_unit(s, W, u, p):
    ...     f = sigmoid(W.f(s.h) + u.f)
    ...     return (1 - f) * s.h + f * tanh(W.h(f * s.h) + u.h)
    >>> MGU = rs.Cell(minimal_gated_unit, state=("h",), output="h")
    >>> cell = MGU.random(input_size=3, hidden_size=8, mixing="dense", rng=0)
    >>> sol = rs.solve(cell.recurrence(np.ones((20, 3))))
    >>> sol.success, sol.output.shape
    (True, (20, 8))

    Attention as a recurrence, with the largest score, a number, beside a vector of sums:

    >>> def attend(s, W, u, p):
    ...     m = np.maximum(s.m, u.score)
    ...     kept, new = np.exp(s.m - m), np.exp(u.score - m)
    ...     return {"m": m, "c": kept * s.c + new, "a": kept[..., None] * s.a + new[..., None] * u.v}
    >>> Attention = rs.Cell(attend, state={"m": (), "c": (), "a": ("d",)}, axes={"score": ()}, output="a")
    >>> cell = Attention.random(input_size=3, hidden_size={"d": 8}, rng=0)
    >>> average = lambda s, u, p: s.a / s.c[..., None]
    >>> sol = rs.solve(cell.recurrence(np.ones((20, 3)), initial={"m": -np.inf}, readout=average))
    >>> sol.success, sol.output.shape, sol.named.m.shape
    (True, (20, 8), (20,))
    """

    compilable = True

    def __init__(
        self,
        function: Callable[[Any, Any, Any, Any], Any],
        *,
        state: tuple[str, ...] | Mapping[str, tuple[str, ...]],
        output: str,
        name: str | None = None,
        cite: str = "",
        axes: Mapping[str, tuple[str, ...]] | None = None,
        structure: Any = None,
    ):
        check_callable("function", function, "f(s, W, u, p)")
        self.function, self.state, self.output, self.cite = function, tuple(state), output, cite
        self.name = str(name or getattr(function, "__name__", type(function).__name__))
        texts = cleandoc(function.__doc__ or ""), cite and f"Source: {cite}"
        self.__doc__ = "\n\n".join(text for text in texts if text)
        if output not in self.state:
            raise ValueError(f"output is {output!r}; wanted one of the components {self.state}")
        self.ragged = isinstance(state, Mapping)
        self.components = axes_of(state) if self.ragged else {}
        if not self.ragged and (axes is not None or structure is not None):
            raise ValueError(
                "axes and structure belong to components with axes; wanted state={'m': (), 'C': ('k', 'v')} say"
            )
        given, shown = axes_of(axes, "axes") if axes else {}, self.components.get(output, ())

        def shape(kind: str, name: str) -> tuple[int, ...]:
            if not self.ragged:
                return (1,)
            own = self.components[name] if kind == "component" else given.get(name, shown)
            return (1,) * (len(own) + (kind != "parameter"))

        found = read(function, self.name, self.state, shape, ragged=self.ragged)
        self.mixings, self.drives, self.parameters, self.indices = found
        used = dict.fromkeys((*self.mixings, *self.drives, *self.parameters))
        self.drives += tuple(name for name in given if name not in used)
        self.axes = {**dict.fromkeys(used, shown), **given} if self.ragged else {}
        self.structure = structure
        if flat := [name for name in self.indices if self.ragged and not self.axes[name]]:
            raise ValueError(f"axes of the indices {flat} are (); wanted those of what {self.name} gathers")
        if not self.drives:
            raise ValueError(f"{self.name} uses no drive u.name, so nothing gives its length; use from_function")

    @property
    def axis_names(self) -> tuple[str, ...]:
        """The names of all axes, where components have axes."""
        return tuple(dict.fromkeys(a for axes in (*self.components.values(), *self.axes.values()) for a in axes))

    @property
    def projected(self) -> tuple[str, ...]:
        """The drives that an input is projected to: all but indices."""
        return tuple(name for name in self.drives if name not in self.indices)

    def __repr__(self) -> str:
        return f"Cell({self.name}: state {self.state}, mixings {self.mixings}, drives {self.drives})"

    def random(
        self,
        *,
        input_size: int,
        hidden_size: Any,
        mixing: str | Callable[[Any], Mixing] = "dense",
        heads: int | None = None,
        gain: float = 1.0,
        rng: int | np.random.Generator | None = None,
        dtype: Any = np.float64,
    ) -> WeightedCell:
        """Return the cell with random weights as torch draws them: every entry uniform in +-1/sqrt(hidden_size).

        Parameters
        ----------
        input_size, hidden_size : int
            Width of the input and of the state (all heads together). Of components with axes a dict of the sizes of all
            axes, of which the last one of each weight takes the place of ``hidden_size``.
        mixing : {"dense", "diagonal", "heads"} or callable
            How units are coupled; ignored by cells without mixings. ``mixing(draw)`` makes any other mixing from random
            weights ``draw(shape)``. Of components with axes it acts on the last axis, heads on the last two.
        heads : int, optional
            Number of heads for ``mixing="heads"``; default 4.
        gain : float
            Factor on the mixing weights: below 1 more contractive, well above 1 chaotic.
        rng : int or Generator, optional
            Seed; the same seed gives the same weights.
        dtype : dtype
            float32 or float64.

        Returns
        -------
        WeightedCell or RaggedCell
            The latter of components with axes.

        Raises
        ------
        TypeError
            For a hidden_size that is no dict, of components with axes.
        ValueError
            For sizes below 1, an unknown mixing, or a gain on a cell without mixings.

        Examples
        --------
        >>> import recsolve as rs
        >>> rs.cells.GRU.random(input_size=3, hidden_size=8, mixing="heads", heads=2, rng=0)
        WeightedCell(gru, 8 units, mixings {'r': 'heads', 'z': 'heads', 'n': 'heads'}, float64)
        >>> conv = lambda draw: rs.mixings.Conv(draw((3, 3, 2, 2)), grid=(8, 8))  # of 8 x 8 points with 2 channels
        >>> rs.cells.LSTM.random(input_size=3, hidden_size=128, mixing=conv, rng=0).mixings["i"]
        Conv(weight (3, 3, 2, 2) float64)
        """
        given = drawn(self, input_size, hidden_size, mixing, heads, gain, generator_of(rng), dtype)
        return self.with_weights(**given, hidden_size=hidden_size)

    def with_weights(
        self,
        *,
        mixings: Mapping[str, Mixing] | None = None,
        parameters: Mapping[str, Any] | None = None,
        projection: Projection | None = None,
        hidden_size: Any = None,
    ) -> WeightedCell:
        """Return the cell with given weights; without a projection it is driven by ``recurrence(drive=...)``.

        Parameters
        ----------
        mixings : mapping of Mixing
            One for every name in ``Cell.mixings``.
        parameters : mapping of arrays, shape (*lanes, n)
            One for every name in ``Cell.parameters``; of components with axes each of its own axes.
        projection : Projection, optional
            With a weight for every name in ``Cell.projected``.
        hidden_size : int, optional
            The number of units, for a cell without mixings and projection. Of components with axes a dict of the sizes
            of axes that no weight, drive or initial state shows.

        Returns
        -------
        WeightedCell or RaggedCell
            The latter of components with axes.

        Raises
        ------
        ValueError
            When a name that the function uses is missing, shapes do not agree, or a mixing of a class that states no
            form is not linear.
        TypeError
            When weights have mixed dtypes, or others than float32 and float64.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> cell = rs.cells.Elman.with_weights(mixings={"h": rs.mixings.Diagonal(np.full(4, 0.5))})
        >>> rs.solve(cell.recurrence(drive={"h": np.ones((9, 4))})).success
        True
        """
        kind: Any = RaggedCell if self.ragged else WeightedCell
        return kind(self, dict(mixings or {}), dict(parameters or {}), projection, hidden_size)  # type: ignore[no-any-return]

    def from_torch(self, module: Any, *, layer: int = 0, reverse: bool = False) -> WeightedCell:
        """Return the cell with the weights of one layer and direction of a torch module.

        Of an LSTM with ``proj_size`` states are those before the projection, which ``solution.output`` shows, and a
        mixing is ``weight_hh`` times ``weight_hr``.

        Parameters
        ----------
        module : torch.nn.RNN, GRU or LSTM, or torch.nn.RNNCell, GRUCell or LSTMCell
            Its kind must be that of this cell.
        layer : int
            Which layer.
        reverse : bool
            The reverse direction of a bidirectional module.

        Returns
        -------
        WeightedCell

        Raises
        ------
        TypeError
            When the module is of another kind, or its weights have mixed dtypes, or others than float32 and float64.
        ValueError
            When the layer or direction does not exist, or weights are reparametrized, missing or of a wrong shape.
            Weights that are NaN or inf are taken as they are, as torch takes them.

        Examples
        --------
        >>> import torch, recsolve as rs  # doctest: +SKIP
        >>> cell = rs.cells.GRU.from_torch(torch.nn.GRU(3, 8))  # doctest: +SKIP
        """
        return torch_weights.cell_from_module(self, module, layer, reverse)

    def layout(self, mixings: Mapping[str, Mixing], hidden_size: int) -> Layout:
        """Return how states are read with these mixings, which give them their lanes.

        Parameters
        ----------
        mixings : mapping of Mixing
        hidden_size : int
            Units of all lanes together.

        Raises
        ------
        ValueError
            When the mixings have different lanes, and for components with axes.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rs.cells.Elman.layout({"h": rs.mixings.Heads(np.ones((2, 4, 4)))}, 8)
        Layout(components=1, lanes=(2,), units=4)
        """
        if self.ragged:
            raise ValueError(f"components of {self.name} have axes of their own, so they have no layout")
        lanes = {mixing.lanes for mixing in mixings.values()} or {()}
        if len(lanes) > 1:
            raise ValueError(f"mixings of {self.name} have lanes {sorted(lanes)}; wanted the same for all")
        shape = lanes.pop()
        return Layout(len(self.state), shape, hidden_size // int(np.prod(shape)))
