"""How recurrences are made of the user's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from recsolve.base.arrays import Array
from recsolve.base.shard import takes_shards

if TYPE_CHECKING:
    from recsolve.recurrence.function import FunctionRecurrence
    from recsolve.recurrence.graph_recurrence import GraphRecurrence
    from recsolve.recurrence.history import HistoryRecurrence

Arrays: TypeAlias = Array | tuple[Array, ...] | list[Array] | Mapping[str, Array]  # with which results are NumPy arrays


class Makers:
    """The makers that :class:`recsolve.Recurrence` offers; each returns a class that is built on it."""

    @overload
    @staticmethod
    def from_function(
        f: Callable[..., Any],
        *,
        inputs: Arrays | None = ...,
        initial: Array | Mapping[str, Array],
        parameters: Mapping[str, Array] | None = ...,
        state: Mapping[str, tuple[str, ...]] | None = ...,
        structure: Any = ...,
        jacobian: Callable[..., Any] | None = ...,
        reset: Any = ...,
        length: int | None = ...,
        ties: Any = ...,
        readout: Callable[..., Any] | None = ...,
    ) -> FunctionRecurrence[Array]: ...

    @overload
    @staticmethod
    def from_function(
        f: Callable[..., Any],
        *,
        inputs: Any = ...,
        initial: Any,
        parameters: Mapping[str, Any] | None = ...,
        state: Mapping[str, tuple[str, ...]] | None = ...,
        structure: Any = ...,
        jacobian: Callable[..., Any] | None = ...,
        reset: Any = ...,
        length: int | None = ...,
        ties: Any = ...,
        readout: Callable[..., Any] | None = ...,
    ) -> FunctionRecurrence: ...

    @staticmethod
    @takes_shards
    def from_function(
        f: Callable[..., Any],
        *,
        inputs: Any = None,
        initial: Any,
        parameters: Mapping[str, Any] | None = None,
        state: Mapping[str, tuple[str, ...]] | None = None,
        structure: Any = "dense",
        jacobian: Callable[..., Any] | None = None,
        reset: Any = None,
        length: int | None = None,
        ties: Any = None,
        readout: Callable[..., Any] | None = None,
    ) -> FunctionRecurrence:
        """Build a recurrence from any function.

        Parameters
        ----------
        f : callable
            ``f(h_prev, u_t)`` gets all steps at once, or many of them where states are large: ``h_prev`` (T, *batch,
            *event) and ``inputs`` as given, and returns the next states in the shape of ``h_prev``. It must not mix
            times or sequences. Arrays are NumPy's (CuPy's on the GPU) for torch tensors too. With ``parameters`` it is
            ``f(h_prev, u_t, p)``.
        inputs : array, or tuple or dict of arrays, optional
            The drive; every array has time first. ``None`` for an autonomous recurrence (then give ``length``).
            Integers and bools (tokens, indices, masks) may stand beside real numbers; their gradient is 0.
        initial : array, or dict of arrays
            h[0] with its full shape (*batch, *event); of named components, each (*batch, *its own axes).
        parameters : dict of arrays, optional
            Weights, which f gets by name, ``p.W`` or ``p["W"]``, whole at all times and for all sequences. Gradients
            are those of :func:`recsolve.adjoint`, ``.parameters``; integers and bools may be among them, as inputs.
        state : mapping, optional
            Named components of different shapes, by the names of their axes: ``{"m": (), "C": ("k", "v")}``. Axes of
            one name have one size. f gets ``s.m`` of shape (T, *batch) and ``s.C`` of shape (T, *batch, k, v) in place
            of h_prev, and returns a dict, or a tuple in this order. States are stored flat, (T, *batch, N), and seen by
            name in ``solution.named``.
        structure : str, pair or mapping
            What J[t] = df/dh_prev is known to be: zero, identity, scalar, diagonal (event axes: the last one), block
            (event (k, n): k components that couple within a unit), dense (event (n,)), heads (event (H, n)), and of
            event (n,) also ("banded", offsets), ("permutation_diagonal", p), permutation_diagonal or low_rank, as the
            types of these names in ``recsolve.jacobians`` have it; or "none": f has no derivative, and states and
            inputs may be integers or bools, each of its own dtype. A wrong declaration costs iterations or
            convergence, is not trusted and has no gradients; :func:`recsolve.check_structure` tests it. Of named
            components also a mapping from pairs ``(result, operand)`` to ``"dense"``, ``"diagonal"`` (entries couple
            only where the axes that both have are equal) or a tuple of those axes along which they do not couple;
            pairs that are absent are zero. Components that depend on each other one way are solved for one after the
            other. None reads these pairs off f, which is called once more: none that may couple at some state are
            missed, and what f moves by an index counts as coupled. An f that branches on numbers of the state, of the
            drive or of parameters, or makes indices of these into arrays that are none of them, is taken as dense.
        jacobian : callable, optional
            ``jacobian(h_prev, u_t)``, or with p, with entries in the shape of the structure: of low_rank (a, U, V), of
            permutation_diagonal (p, d), if p is not declared. Default: automatic forward differentiation of ``f``,
            which raises (never silently approximates) where it cannot follow, in as few directions as the structure
            needs: m for a band of m diagonals, one for a permutation that is declared. Those two need ``jacobian``.
        reset : array of bool, optional
            (T, *batch): steps that start from ``initial`` again.
        length : int, optional
            T when there are no inputs.
        ties : float or mapping, optional
            The derivative at ties that automatic differentiation takes, as in
            :meth:`recsolve.WeightedCell.recurrence`. A ``jacobian`` sees to its own.
        readout : callable, optional
            ``readout(h, u_t)``, with ``parameters`` also p: what ``solution.output`` shows of the states h[t],
            (T, *batch, ...), of any other axes. It is evaluated after the solve, in windows of time, and differentiated
            by ``recsolve.adjoint(solution, output=...)``. Default: the states.

        Returns
        -------
        Recurrence

        Raises
        ------
        TypeError
            For mixed array kinds or dtypes (of structure "none": kinds), ties that are no numbers, or a function that
            automatic differentiation cannot follow.
        ValueError
            For an unknown structure, wrong shapes, or ties of unknown operations or out of range.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> u = np.linspace(0.0, 1.0, 50)[:, None]
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * np.sin(h) + u, inputs=u, initial=np.zeros(1), structure="diagonal")
        >>> rs.solve(rec).success
        True

        Integers, of which h = j if h == i else h makes the next:

        >>> i, j = np.random.default_rng(0).integers(0, 9, (2, 50, 1))
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: np.where(h == u[0], u[1], h), inputs=(i, j), initial=np.array([3]), structure="none")
        >>> sol = rs.solve(rec, method="jacobi")
        >>> sol.exact_prefix, sol.states.dtype
        (50, dtype('int64'))

        A memory of keys and values with its decay as a parameter, of which a query shows a part:

        >>> rec = rs.Recurrence.from_function(
        ...     lambda s, u, p: {"C": p.decay * s.C + u[..., :, None] * u[..., None, :]}, inputs=np.ones((50, 3)),
        ...     state={"C": ("k", "v")}, initial={"C": np.zeros((3, 3))}, parameters={"decay": np.array(0.5)},
        ...     structure={("C", "C"): "diagonal"}, readout=lambda s, u, p: np.einsum("...kv,...k->...v", s.C, u))
        >>> sol = rs.solve(rec)
        >>> sol.named.C.shape, sol.output.shape
        ((50, 3, 3), (50, 3))
        >>> rs.adjoint(sol, output=np.ones((50, 3))).parameters.decay.shape
        ()
        """
        from recsolve.recurrence.function import FunctionRecurrence
        from recsolve.recurrence.reach import read_pairs

        def made(structure: Any) -> FunctionRecurrence:
            return FunctionRecurrence(
                f,
                inputs=inputs,
                initial=initial,
                parameters=parameters,
                state=state,
                structure=structure,
                jacobian=jacobian,
                reset=reset,
                length=length,
                ties=ties,
                readout=readout,
            )

        return made(read_pairs(made("dense")) if structure is None and state is not None else structure)

    @overload
    @staticmethod
    def from_graph(
        f: Callable[..., Any],
        parents: Any,
        *,
        inputs: Arrays | None = ...,
        initial: Array | Mapping[str, Array],
        parameters: Mapping[str, Array] | None = ...,
        state: Mapping[str, tuple[str, ...]] | None = ...,
        structure: Any = ...,
        jacobian: Callable[..., Any] | None = ...,
        ties: Any = ...,
        readout: Callable[..., Any] | None = ...,
    ) -> GraphRecurrence[Array]: ...

    @overload
    @staticmethod
    def from_graph(
        f: Callable[..., Any],
        parents: Any,
        *,
        inputs: Any = ...,
        initial: Any,
        parameters: Mapping[str, Any] | None = ...,
        state: Mapping[str, tuple[str, ...]] | None = ...,
        structure: Any = ...,
        jacobian: Callable[..., Any] | None = ...,
        ties: Any = ...,
        readout: Callable[..., Any] | None = ...,
    ) -> GraphRecurrence: ...

    @staticmethod
    def from_graph(
        f: Callable[..., Any],
        parents: Any,
        *,
        inputs: Any = None,
        initial: Any,
        parameters: Mapping[str, Any] | None = None,
        state: Mapping[str, tuple[str, ...]] | None = None,
        structure: Any = "dense",
        jacobian: Callable[..., Any] | None = None,
        ties: Any = None,
        readout: Callable[..., Any] | None = None,
    ) -> GraphRecurrence:
        """Build a recurrence on a graph: h[n] = f(h[parents of n], u[n]) for every node n.

        Every iteration of a method takes all nodes at once, and its scan goes level by level, as the sequential loop
        does: the nodes of a level do not see each other. Arrays over nodes have the axes of nodes first, as the graph
        lays them out: (X, Y, *batch, *event) on a grid, for inputs, ``states`` and cotangents alike.

        Parameters
        ----------
        f : callable
            ``f(h, u)`` gets many nodes at once, in any order: ``h`` is a tuple of P arrays, one for each slot of
            parents, and ``u`` the inputs, all (nodes, *batch, ...) with one axis of nodes; it returns the states of
            these nodes, in the shape of ``h[0]``. It must not mix nodes or sequences. :class:`recsolve.graphs.by_kind`
            makes one function of those of layers with weights of their own. With ``parameters`` it is ``f(h, u, p)``.
        parents : Graph, or array of int, shape (*nodes, P)
            From :mod:`recsolve.graphs`, or the parents of every node as places in the flattened array of nodes, -1 for
            none.
        inputs : array, or tuple or dict of arrays, optional
            u, each (*nodes, ...).
        initial : array, shape (*batch, *event), or dict of arrays
            The state of parents that are missing; of named components, each (*batch, *its own axes). It is selected:
            whatever f returns for it is kept.
        parameters : dict of arrays, optional
            As in :meth:`from_function`.
        state : mapping, optional
            Named components, as in :meth:`from_function`. f gets them in every slot, ``h[0].C`` of shape
            (nodes, *batch, k, v), and returns a dict, or a tuple in this order. ``solution.named`` lays them out as the
            nodes are.
        structure : str, pair or mapping
            What df/dh[p] is known to be for each slot p, the same for all, as in :meth:`from_function`: pairs of
            components in a mapping too.
        jacobian : callable, optional
            ``jacobian(h, u)``, or with p, returns a tuple of P, one for each slot, with entries in the shape of the
            structure. It is compared with the automatic derivative of f; where there is none, it is taken as it is, and
            nothing is trusted.
        ties : float or mapping, optional
            As in :meth:`from_function`.
        readout : callable, optional
            ``readout(h, u)``, or with p, of the states of the nodes themselves, in the layout of f: many nodes at once
            in any order, (nodes, *batch, ...), or their components. ``solution.output`` has what it returns in the
            layout of the graph, (*nodes, *batch, ...), as ``recsolve.adjoint(solution, output=...)`` takes it.

        Returns
        -------
        Recurrence

        Raises
        ------
        TypeError, ValueError
            As :meth:`from_function` and :class:`recsolve.graphs.Graph`; for inputs that are not laid out as the
            nodes are. Methods that work along one axis of time raise TypeError when they are to solve it.

        Notes
        -----
        Two-dimensional recurrences: Graves, Fernandez and Schmidhuber, "Multi-dimensional recurrent neural networks"
        (2007). Recurrences on graphs: Poeppel et al., pLSTM (arXiv 2506.11997).

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_graph(
        ...     lambda h, u: np.tanh(0.6 * h[0] + 0.3 * h[1] + u), rs.graphs.grid((20, 30)),
        ...     inputs=np.ones((20, 30, 4)), initial=np.zeros(4), structure="diagonal")
        >>> sol = rs.solve(rec)
        >>> sol.states.shape, sol.success, sol.nit < rec.graph.depth
        ((20, 30, 4), True, True)

        A memory of keys and values on a grid, of which each node reads a part:

        >>> rec = rs.Recurrence.from_graph(
        ...     lambda h, u, p: {"C": p.decay * (h[0].C + h[1].C) + u[..., :, None] * u[..., None, :]},
        ...     rs.graphs.grid((4, 5)), inputs=np.ones((4, 5, 3)), parameters={"decay": np.array(0.25)},
        ...     state={"C": ("k", "v")}, initial={"C": np.zeros((3, 3))}, structure={("C", "C"): "diagonal"},
        ...     readout=lambda s, u, p: np.einsum("...kv,...k->...v", s.C, u))
        >>> sol = rs.solve(rec)
        >>> sol.named.C.shape, sol.output.shape
        ((4, 5, 3, 3), (4, 5, 3))
        >>> rs.adjoint(sol, output=np.ones((4, 5, 3))).parameters.decay.shape
        ()
        """
        from recsolve.recurrence.graph_recurrence import GraphRecurrence

        return GraphRecurrence(
            f,
            parents,
            inputs=inputs,
            initial=initial,
            parameters=parameters,
            state=state,
            structure=structure,
            jacobian=jacobian,
            ties=ties,
            readout=readout,
        )

    @overload
    @staticmethod
    def from_history(
        F: Callable[..., Any],
        *,
        inputs: Arrays | None = ...,
        initial: Array | Mapping[str, Array] | None = ...,
        parameters: Mapping[str, Array] | None = ...,
        state: Mapping[str, tuple[str, ...]] | None = ...,
        structure: str = ...,
        length: int | None = ...,
        ties: Any = ...,
        readout: Callable[..., Any] | None = ...,
    ) -> HistoryRecurrence[Array]: ...

    @overload
    @staticmethod
    def from_history(
        F: Callable[..., Any],
        *,
        inputs: Any = ...,
        initial: Any = ...,
        parameters: Mapping[str, Any] | None = ...,
        state: Mapping[str, tuple[str, ...]] | None = ...,
        structure: str = ...,
        length: int | None = ...,
        ties: Any = ...,
        readout: Callable[..., Any] | None = ...,
    ) -> HistoryRecurrence: ...

    @staticmethod
    def from_history(
        F: Callable[..., Any],
        *,
        inputs: Any = None,
        initial: Any = None,
        parameters: Mapping[str, Any] | None = None,
        state: Mapping[str, tuple[str, ...]] | None = None,
        structure: str = "dense",
        length: int | None = None,
        ties: Any = None,
        readout: Callable[..., Any] | None = None,
    ) -> HistoryRecurrence:
        """Build a recurrence whose every row may depend on all rows before it: y = F(y, u).

        Parameters
        ----------
        F : callable
            ``F(y, u)`` gets the first k rows of the trajectory and of the inputs, for any k <= T, and returns k rows.
            It is strictly causal: row t depends on y[:t] and u[:t + 1] alone, as of an attention under a mask. With
            ``parameters`` it is ``F(y, u, p)``, and the methods below take p as their last argument too.
            An object may also have ``window(cache, y, u)``, which returns rows of F given the cache of all rows before
            them (None: there are none), and ``extend(cache, y, u)``, which returns the cache with these rows added, and
            leaves the one it gets as it is. Then a window of time does not look at the past again, and many rows are
            evaluated block by block. And it may have ``pull(y, u, g)``, the cotangents of y and of u (in the container
            of the inputs) of one of F, which :func:`recsolve.adjoint` needs where F uses operations that it cannot go
            back over; with ``parameters`` it may return those of p as a third, a dict.
        inputs : array, or tuple or dict of arrays, optional
            The drive; every array has time first. ``None``: give ``length``.
        initial : array, or dict of arrays, optional
            What stands for rows that are not known yet, with the full shape (*batch, *event) of a row: the default
            guess is F of it at all times. Default: zeros like a row of the first input, with "dense" of the first
            one of real numbers. Of named components it must be given, each (*batch, *its own axes). A known beginning,
            such as a prompt, is an input.
        parameters : dict of arrays, optional
            As in :meth:`from_function`.
        state : mapping, optional
            Named components, as in :meth:`from_function`: y is ``y.m`` of shape (k, *batch), ``y.C`` of shape
            (k, *batch, k, v), in all of these functions, and so is g; F and ``pull`` return y as a dict or a tuple.
        structure : {"dense", "none"}
            "none": F has no derivative; rows and inputs may then be integers or bools, as tokens are.
        length : int, optional
            T when there are no inputs.
        ties : float or mapping, optional
            As in :meth:`from_function`.
        readout : callable, optional
            ``readout(y, u)``, or with p, is evaluated after the solve, of all rows at once, and may look at all of
            them; ``solution.output`` shows it, (T, *batch, ...). In a window it gets the rows before it too, and what
            it returns for these is left out.

        Returns
        -------
        Recurrence
            For the methods that need F alone, or products with its derivative (``newton_krylov``).

        Raises
        ------
        TypeError
            For mixed array kinds or dtypes, functions that take other arguments, or one of ``window`` and ``extend``
            without the other.
        ValueError
            For wrong shapes; when F returns something else when it is called again; and when it is not strictly causal,
            of which the message names the time. That is looked at here, in about seven calls of F: rows from some time
            on are changed, and those up to it must not change; F of a prefix, or with a cache, must give its rows.

        Notes
        -----
        Jacobi's iteration on such systems is parallel decoding (Santilli et al., ACL 2023, arXiv 2305.10427): each
        sweep evaluates F for all t at once, and makes at least one more row exact. A draft is a ``guess``.

        Examples
        --------
        Every row is half the mean of the rows before it, and an input:

        >>> import numpy as np, recsolve as rs
        >>> def F(y, u):
        ...     before = np.cumsum(y, axis=0) - y
        ...     return u + 0.5 * before / np.maximum(np.arange(len(y)), 1)[:, None]
        >>> rec = rs.Recurrence.from_history(F, inputs=np.ones((100, 3)))
        >>> sol = rs.solve(rec, method="jacobi")
        >>> sol.success, sol.nit < 20
        (True, True)

        With a weight, and the mean of all rows up to each as what is shown:

        >>> def mean(y, u, p):
        ...     return np.tri(len(y)) @ y / np.arange(1, len(y) + 1)[:, None]
        >>> rec = rs.Recurrence.from_history(
        ...     lambda y, u, p: u + p.w * (np.tri(len(y), k=-1) @ y), inputs=np.ones((8, 3)),
        ...     parameters={"w": np.array(0.1)}, readout=mean)
        >>> sol = rs.solve(rec, method="jacobi")
        >>> sol.output.shape, rs.adjoint(sol, output=np.ones((8, 3))).parameters.w.shape
        ((8, 3), ())
        """
        from recsolve.recurrence.history import HistoryRecurrence

        return HistoryRecurrence(
            F,
            inputs=inputs,
            initial=initial,
            parameters=parameters,
            state=state,
            structure=structure,
            length=length,
            ties=ties,
            readout=readout,
        )
