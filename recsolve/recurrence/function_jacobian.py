"""The Jacobian of a user's function: differentiated forward in as few directions as its structure needs, or given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, UserArray, is_discrete, namespace, to_native
from recsolve.base.ties import ties_in_force
from recsolve.jacobians import Block, Diagonal, Identity, Jacobian, LaneDense, Scalar, Zero
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.forms import Form
from recsolve.recurrence.function_arguments import STRUCTURES
from recsolve.recurrence.function_tangent import Tangent
from recsolve.symbolic.dual import value_of


class FunctionJacobian(Recurrence[UserArray]):
    """The part of :class:`recsolve.recurrence.function.FunctionRecurrence` that differentiates its function."""

    structure: str
    form: Form | None
    jacobian: Callable[..., Any] | None
    inputs: list[Array]
    parameters: Mapping[str, Any]

    @abstractmethod
    def call(self, function: Callable[..., Any], state: Any, inputs: list[Any], parameters: Mapping[str, Any]) -> Any:
        """Return what a function of the user's gives."""

    @abstractmethod
    def after(self, previous: Any) -> tuple[int, ...]:
        """Return the shape of f at what steps see."""

    @abstractmethod
    def shown(self, previous: Any) -> Any:
        """Return what steps see so that f cannot write into it."""

    @abstractmethod
    def _call(self, previous: Any, index: slice) -> Any:
        """Return f at what steps see, checked."""

    @property
    def is_automatic(self) -> bool:
        """Whether f is differentiated with respect to the state; not where a ``jacobian`` or the structure gives J."""
        return self.jacobian is None and self.structure not in ("zero", "identity", "none")

    def differentiate(self, previous: Array) -> tuple[Array, Jacobian]:
        if self.structure == "none":
            raise TypeError(f"{self.description} has no derivative, as its structure is 'none'")
        kind, layout = STRUCTURES.get(self.structure), self.layout
        if kind is Zero or kind is Identity:
            values = self.apply(previous)
            return values, kind(values, layout)
        if self.jacobian is not None:
            return self.apply(previous), self._declared(previous)
        seeds = self._seeds(previous)
        out = self._push(previous, seeds) if len(seeds) else self.apply(previous)
        if not isinstance(out, Tangent) or not out.partials:  # f ignores the state, or has steps of it
            values = value_of(out)
            return values, Zero(values, layout)
        return out.value, self._gather(out.directions)

    def operator(self, states: Array) -> tuple[Callable[[Array], Array], Jacobian | None]:
        if self.jacobian is not None or STRUCTURES.get(self.structure) is not LaneDense:
            return super().operator(states)
        previous = self.previous(states)

        def product(v: Array) -> Array:
            with np.errstate(all="ignore"):
                return self.push_state(previous, v[None])[0]  # type: ignore[no-any-return]

        return product, None

    def _push(self, previous: Array, directions: Array) -> Any:
        with ties_in_force(self.ties):
            return self._call(Tangent.seeded(previous, directions), slice(None))

    def push_state(self, previous: Array, directions: Array) -> Array:
        """Return the automatic derivatives of F along directions of the state, whatever structure and ``jacobian`` say.

        Parameters
        ----------
        previous : array, shape (T, *batch, *event)
        directions : array, shape (m, T, *batch, *event)

        Returns
        -------
        array, shape (m, T, *batch, *event)

        Raises
        ------
        TypeError
            When automatic differentiation cannot follow f.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h * h + u, inputs=np.ones((2, 1)), initial=np.ones(1))
        >>> rec.push_state(np.array([[3.0], [4.0]]), np.ones((1, 2, 1))).ravel().tolist()
        [6.0, 8.0]
        """
        out, shape = self._push(previous, directions), (len(directions), *self.after(previous))
        if not isinstance(out, Tangent) or not out.partials:
            return namespace(previous).zeros(shape, directions.dtype)  # type: ignore[no-any-return]
        return namespace(previous).broadcast_to(out.directions, shape)  # type: ignore[no-any-return]

    def _seeds(self, previous: Array) -> Array:
        """Return the directions that reveal every entry of the structure: unit vectors, the same in all lanes."""
        xp, layout = namespace(previous), self.layout
        if self.form is not None:
            seeds = xp.asarray(self.form.seeds(), dtype=self.dtype)
        elif self.structure in ("scalar", "diagonal"):
            seeds = xp.ones((1, *layout.event), dtype=self.dtype)
        elif self.structure == "block":
            seeds = xp.broadcast_to(
                xp.eye(layout.components, dtype=self.dtype)[:, :, None], (layout.components, *layout.event)
            )
        else:
            width = layout.lane_width
            eye = xp.eye(width, dtype=self.dtype).reshape(width, *(1,) * len(layout.lanes), width)
            seeds = xp.broadcast_to(eye, (width, *layout.event))
        spread = seeds.reshape(len(seeds), *(1,) * (1 + len(self.batch)), *layout.event)
        return xp.broadcast_to(spread, (len(seeds), *previous.shape))  # type: ignore[no-any-return]

    def _gather(self, directions: Array) -> Jacobian:
        """Read the structured Jacobian off the derivatives (m, T, *batch, *event) along the seeds."""
        xp, layout = namespace(directions), self.layout
        directions = xp.broadcast_to(directions.astype(self.dtype, copy=False), (len(directions), *self.shape))
        if self.form is not None:
            return self.form.gather(directions, layout)
        if self.structure == "scalar":
            return Scalar(directions[0][(..., *(0,) * len(layout.event))], layout)
        if self.structure == "diagonal":
            return Diagonal(directions[0], layout)
        if self.structure == "block":
            return Block(xp.moveaxis(directions, 0, -2), layout)
        return LaneDense(xp.moveaxis(directions, 0, -1), layout)

    def _declared(self, previous: Array) -> Jacobian:
        """Return what the user's ``jacobian`` gives."""
        assert self.jacobian is not None
        return self._read(self.call(self.jacobian, self.shown(previous), self.inputs, self.parameters), previous)

    def _read(self, given: Any, previous: Array) -> Jacobian:
        """Return the entries that the user gave as a Jacobian of the declared structure."""
        layout, leading = self.layout, (self.length, *self.batch)
        if self.form is not None:
            return self.form.declared(given, layout, leading, previous)
        data = to_native(given, "jacobian")
        if data.dtype != self.dtype:
            raise TypeError(f"jacobian returned dtype {data.dtype}; wanted {self.dtype}")
        width = layout.lane_width
        shape: tuple[int, ...] = {
            "scalar": leading,
            "diagonal": leading + layout.event,
            "block": (*leading, layout.components, *layout.event),
        }.get(self.structure, (*leading, *layout.lanes, width, width))
        try:
            entries = namespace(previous).broadcast_to(data, shape)
        except ValueError:
            raise ValueError(
                f"jacobian returned shape {tuple(data.shape)}; wanted {shape} for structure {self.structure!r}"
            ) from None
        return STRUCTURES[self.structure](entries, layout)  # type: ignore[call-arg]

    @property
    def rounding(self) -> float:
        # The matrices are not known: rows of norm 1 are assumed.
        if self.form is not None:
            return float(self.form.terms) ** 0.5 / 8 if self.form.terms > 1 else 0.0
        couples = STRUCTURES.get(self.structure, LaneDense) is LaneDense and not is_discrete(self.dtype)
        return float(self.layout.lane_width) ** 0.5 / 8 if couples else 0.0
