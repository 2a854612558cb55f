"""What all layers of this package do: run a stack of cells over sequences, one direction after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils import rnn

from recsolve.base.shard import Shard
from recsolve.interop.autograd import CellSpec
from recsolve.interop.autograd_ops import run
from recsolve.nn.counters import Counters
from recsolve.nn.direction import Direction, wide
from recsolve.nn.seen import Seen
from recsolve.nn.sequences import Documents, Sequences, check_offsets
from recsolve.nn.shared import run_shared, solve_shared
from recsolve.nn.solving import Observer, Settings
from recsolve.nn.windows import in_windows
from recsolve.solution import ConvergenceError


class Stack:
    """A mixin of modules with layers: what they are called with, and how the layers follow each other.

    A module has ``input_size``, ``hidden_size``, ``num_layers``, ``bidirectional``, ``batch_first``, ``dropout`` and
    ``training``, as those of torch, and says by ``_direction`` of which weights a layer is made.
    """

    input_size: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    batch_first: bool
    dropout: float
    training: bool
    train: Any
    extra_repr: Any
    counters: Counters
    seen: list[Seen] | None = None  # the solves, while somebody looks at them

    @property
    def solving(self) -> Settings:
        """How it solves; other settings may be set."""
        return self._solving

    @solving.setter
    def solving(self, settings: Settings) -> None:
        self._solving, self._observer = settings, Observer(settings, self.counters)

        def spec(way: Direction) -> CellSpec:
            # What the loop has completed is differentiated, met or not: where it is inf, gradients are NaN, as torch's.
            return CellSpec(
                way.cell, way.mixings, settings.solved(), clamp=settings.cotangent_clamp, observe=self._observer,
                unconverged=True, event=way.event,
            )  # fmt: skip

        ends = (False, True)[: 1 + self.bidirectional]
        self._specs = [[spec(self._direction(layer, end)) for end in ends] for layer in range(self.num_layers)]

    def _direction(self, layer: int, reverse: bool) -> Direction:
        """Return the weights of one layer and direction as they are now."""
        raise NotImplementedError

    def _recurrent(self, layer: int, reverse: bool) -> list[tuple[Any, str | None]]:
        """Return the weights of the mixings as they are stored, and the forms of their maps; ValueError for others."""
        raise NotImplementedError

    def _like(self) -> Any:
        """Return one of the weights."""
        raise NotImplementedError

    def _widths(self) -> tuple[int, ...]:
        """Return the widths of the initial states, component by component."""
        raise NotImplementedError

    def _result_dtype(self, x: Any) -> Any:
        """Return the dtype of results: that of autocast where it is on."""
        device = x.device.type
        if torch.is_autocast_enabled(device) and x.dtype is not torch.float64:
            return torch.get_autocast_dtype(device)
        return x.dtype

    # What a call does ------------------------------------------------------------------------------------------

    def forward(
        self, input: Any, hx: Any = None, *, lengths: Any = None, cu_seqlens: Any = None, reset: Any = None
    ) -> tuple[Any, Any]:
        """Return the output of the last layer and the final states of all, as the modules of torch.

        Parameters
        ----------
        input : tensor, PackedSequence or Shard
            (T, B, D), (B, T, D) with ``batch_first``, or one sequence (T, D). Of a shard
            (:func:`recsolve.distributed.shard`), which has time first, this rank holds some steps, and all ranks call
            the layer together; ``hx`` is the same on every rank.
        hx : tensor or tuple of tensors, optional
            Initial states (layers directions, B, n), without B for one sequence; one for each component of the state.
            Default: zeros.
        lengths : sequence of int, optional
            (B,), or one number for one sequence: how many leading steps of each sequence are there, 0 to T. What the
            input holds beyond is not looked at, and outputs there are 0.
        cu_seqlens : sequence of int, optional
            (B + 1,): ``input`` (total, D) holds B sequences one after the other, and here is where each begins and the
            last ends. The output lies in the same way; states have the axis B.
        reset : array of bool, optional
            (T, B) or (T,), whatever the order of axes of the input: steps at which another document begins, from ``hx``
            again, in all layers. A reverse direction begins at the end of each document. Beside a shard it is one.

        Returns
        -------
        output : tensor, PackedSequence or Shard
            In the order of the input, its last axis (directions n).
        final : tensor or tuple of tensors
            As ``hx``: the states after the last step of each sequence, on every rank.

        Raises
        ------
        ValueError
            For wrong shapes, lengths out of range, tensors on several devices, and ways to say where sequences end that
            exclude each other; with a shard for ``batch_first``, ``lengths``, ``cu_seqlens`` and what else ranks do not
            share: ``every``, ``cotangent_clamp``, ``kappa``.
        TypeError
            For dtypes that do not fit.
        ConvergenceError
            With ``on_failure="raise"``.
        RankError
            Where another rank has failed, or does not come.

        Notes
        -----
        Over ranks, gradients are as of torch's context parallelism: the backward of each rank gives the part of its own
        steps in the gradient of the sum of all ranks' losses. Their sum over ranks is the gradient, and ``hx`` has a
        part where sequences start alone. Every rank must go back. ``torch.compile`` breaks the graph there, or refuses
        with ``fullgraph=True``.
        """
        ways = {"lengths": lengths, "cu_seqlens": cu_seqlens, "reset": reset}
        given = [name for name, way in ways.items() if way is not None]
        if isinstance(input, Shard):
            call = run_shared  # not decorated, which takes seconds to import
            if torch.compiler.is_compiling():
                call = torch.compiler.disable(run_shared)  # ranks exchange messages, which no graph can hold
            return call(self, input, hx, **ways)
        if isinstance(input, rnn.PackedSequence):
            if given:
                raise ValueError(f"{given[0]} is given, but input is a PackedSequence, which says where sequences end")
            return self._packed(input, hx)
        if not isinstance(input, torch.Tensor):
            raise TypeError(f"input is {type(input).__name__}; wanted a tensor or a PackedSequence")
        if cu_seqlens is not None:
            if len(given) > 1:
                raise ValueError(f"{given} are given; wanted cu_seqlens alone, which says where sequences end")
            return self._documents(input, hx, cu_seqlens)
        if input.ndim == 2 and lengths is not None:
            lengths = [lengths]
        return self._ordered(input, hx, lambda x: Sequences(x, lengths, reset))

    def _ordered(self, input: Any, hx: Any, order: Callable[[Any], Sequences]) -> tuple[Any, Any]:
        """Return what :meth:`forward` does of a tensor, read in the order that ``order`` makes for steps (T, B, D)."""
        if input.ndim not in (2, 3):
            wanted = "(B, T, D)" if self.batch_first else "(T, B, D)"
            raise ValueError(f"input has shape {tuple(input.shape)}; wanted (T, D) or {wanted}")
        alone = input.ndim == 2
        x = input.unsqueeze(1) if alone else self._time_first(input)
        parts = self._initial(hx, x, alone=alone)
        y, final = self._layers(x, parts, order(x))
        if alone:
            return y.squeeze(1), self._joined([part.squeeze(1) for part in final])
        return self._time_first(y), self._joined(final)

    def _packed(self, packed: Any, hx: Any) -> tuple[Any, Any]:
        """Return what :meth:`forward` does of a PackedSequence, where sequences lie from the longest on."""
        x, lengths = rnn.pad_packed_sequence(type(packed)(packed.data, packed.batch_sizes))
        parts = self._initial(hx, x)
        if packed.sorted_indices is not None:
            parts = [None if part is None else part.index_select(1, packed.sorted_indices) for part in parts]
        y, final = self._layers(x, parts, Sequences(x, lengths))
        if packed.unsorted_indices is not None:
            final = [part.index_select(1, packed.unsorted_indices) for part in final]
        data = rnn.pack_padded_sequence(y, lengths).data
        return type(packed)(data, *packed[1:]), self._joined(final)

    def _documents(self, input: Any, hx: Any, cu_seqlens: Any) -> tuple[Any, Any]:
        """Return what :meth:`forward` does of sequences one after the other."""
        if input.ndim != 2:
            raise ValueError(f"input has shape {tuple(input.shape)}; wanted (total, D), as cu_seqlens is given")
        given = cu_seqlens if torch.compiler.is_compiling() else check_offsets(cu_seqlens, len(input))
        offsets = torch.as_tensor(given, dtype=torch.int64, device=input.device)
        if hx is None:  # all begin alike, so that one long sequence may hold them
            x = input.unsqueeze(1)
            y, final = self._layers(x, self._initial(None, x), Documents(x, offsets))
            return y.squeeze(1), self._joined(final)
        lengths = (offsets[1:] - offsets[:-1]).tolist()
        x = rnn.pad_sequence(input.split(lengths)) if lengths else input[:, None][:, :0]
        y, final = self._layers(x, self._initial(hx, x), Sequences(x, lengths))
        rows = [y[:length, index] for index, length in enumerate(lengths)]
        return torch.cat(rows) if rows else y[:, :0].flatten(0, 1), self._joined(final)

    def _layers(self, x: Any, parts: list[Any], order: Sequences) -> tuple[Any, list[Any]]:
        """Return the output (T, B, directions n) and the final states (layers directions, B, n), by component."""
        dtype = self._result_dtype(x)
        final: list[list[Any]] = []
        for layer in range(self.num_layers):
            entered, shown = self._enter(layer, x), []
            for reverse in (False, True)[: 1 + self.bidirectional]:
                starts = [None if part is None else part[len(final)] for part in parts]
                y, ends = self._solve(layer, reverse, entered, starts, order)
                shown.append(y.to(dtype))
                final.append(ends)
            y = shown[0] if len(shown) == 1 else torch.cat(shown, dim=-1)
            x = self._leave(layer, x, y)
        return x, [torch.stack(part).to(dtype) for part in zip(*final, strict=True)]

    def _enter(self, layer: int, x: Any) -> Any:
        """Return the input of the cells of a layer, for that of the layer."""
        return x

    def _leave(self, layer: int, x: Any, y: Any) -> Any:
        """Return the output of a layer, for its input and the output of its cells."""
        if self.dropout and layer < self.num_layers - 1:
            y = functional.dropout(y, self.dropout, self.training)
        return y

    def _solve(self, layer: int, reverse: bool, x: Any, starts: list[Any], order: Sequences) -> tuple[Any, list[Any]]:
        """Return the output (T, B, n) of a direction in the order of x, and its final states (B, n) by component."""
        way, dtype, spec = self._direction(layer, reverse), wide(x), self._specs[layer][reverse]
        starts, resets = [None if part is None else part.to(dtype) for part in starts], order.resets(reverse)

        def solve(x: Any, resets: Any, *starts: Any) -> tuple[Any, ...]:
            rows = way.project(x).to(dtype)
            with torch.autocast(x.device.type, enabled=False):  # which stops at the projection: states are not rounded
                return tuple(way.parts(self._states(spec, way.tensors(rows, starts, resets))))

        every = None if self.seen is not None else self.solving.every
        read, axis = order.read(x, reverse), order.axis(reverse)
        if axis is not None:
            parts, final = solve_shared(self, way, spec, read, starts, resets, axis)
            return order.read(parts[way.shown], reverse), final
        if every is None:
            parts = list(solve(read, resets, *starts))
        else:
            parts = in_windows(solve, read, starts, resets, order.breaks(reverse), every, way.given())
        starts = [part.new_zeros(part.shape[1:]) if s is None else s for part, s in zip(parts, starts, strict=True)]
        final = [order.last(part, start, reverse) for part, start in zip(parts, starts, strict=True)]
        return order.read(parts[way.shown], reverse), final

    def _states(self, spec: CellSpec, tensors: dict[str, Any], solve: Callable[..., Any] = run) -> Any:
        """Return the states (T, B, *event) of a cell, or what else a solve returns."""
        tensors = {name: x for name, x in tensors.items() if x is not None}
        try:
            states = solve(spec, tensors)
        except ConvergenceError as error:
            self.counters.count(error.solution, kappa=False)
            raise
        if self.seen is not None:
            self.seen.append(Seen(spec, tensors, states.detach()))
        return states

    # Arguments -------------------------------------------------------------------------------------------------

    def _time_first(self, x: Any) -> Any:
        return x.transpose(0, 1) if self.batch_first else x

    def _initial(self, hx: Any, x: Any, *, alone: bool = False) -> list[Any]:
        """Return one initial state (layers directions, B, n) for each component, or None for each; check x too."""
        self._check_input(x)
        widths = self._widths()
        if hx is None:
            return [None] * len(widths)
        parts = list(hx) if isinstance(hx, (tuple, list)) else [hx]
        if len(parts) != len(widths):
            raise ValueError(f"hx has {len(parts)} parts; wanted {len(widths)}")
        count = self.num_layers * (1 + self.bidirectional)
        for i, (part, width) in enumerate(zip(parts, widths, strict=True)):
            name, wanted = f"hx[{i}]" if len(parts) > 1 else "hx", (count, *((), (x.shape[1],))[not alone], width)
            if not isinstance(part, torch.Tensor):
                raise TypeError(f"{name} is {type(part).__name__}; wanted a tensor")
            if tuple(part.shape) != wanted:
                raise ValueError(f"{name} has shape {tuple(part.shape)}; wanted (layers directions, [B], n) = {wanted}")
            _check_alike(name, part, x)
        return [part.unsqueeze(1) for part in parts] if alone else parts

    def _check_input(self, x: Any) -> None:
        if x.shape[-1] != self.input_size:
            raise ValueError(f"input has {x.shape[-1]} features; wanted input_size = {self.input_size}")
        _check_alike("input", x, self._like(), "the weights")

    def _joined(self, parts: list[Any]) -> Any:
        return parts[0] if len(parts) == 1 else tuple(parts)


def _check_alike(name: str, x: Any, like: Any, other: str = "input") -> None:
    """Refuse a tensor on another device; or of another dtype, unless autocast makes them one."""
    if x.device != like.device:
        raise ValueError(f"{name} is on {x.device} and {other} on {like.device}; wanted one device")
    cast = torch.is_autocast_enabled(x.device.type) and torch.float64 not in (x.dtype, like.dtype)
    if not x.is_floating_point() or (x.dtype != like.dtype and not cast):
        raise TypeError(f"{name} has dtype {x.dtype}; wanted {like.dtype}, as {other}")
