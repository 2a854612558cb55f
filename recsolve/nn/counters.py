"""What the layers of a model have done so far, for logs and tables."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsolve.solution import Solution


@dataclass
class Counters:
    """What one layer has done since it was made, or since :func:`reset_counters`.

    Attributes
    ----------
    solves : int
        Solves, one for each layer of the stack, direction and window of every call.
    iterations : int
        Of all solves together.
    completed : int
        Solves that were not met and that the sequential loop has completed.
    unmet : int
        Solves that were not met in the end: used as they are, raised, or not finite.
    worst : int
        The most iterations of one solve.
    kappa : float
        The largest conditioning of a solve; NaN unless the layer was made with ``kappa=True``.

    Examples
    --------
    >>> import torch, recsolve as rs
    >>> layer = rs.nn.GRU(3, 8, num_layers=2)
    >>> _ = layer(torch.ones(50, 4, 3))
    >>> layer.counters.solves, layer.counters.completed
    (2, 0)
    """

    solves: int = 0
    iterations: int = 0
    completed: int = 0
    unmet: int = 0
    worst: int = 0
    kappa: float = float("nan")

    def count(self, solution: Solution, *, kappa: bool) -> None:
        """Count a solve."""
        self.solves += 1
        self.iterations += solution.nit
        self.worst = max(self.worst, solution.nit)
        if not solution.success:
            self.unmet += 1
        elif solution.stats["completed_from"] is not None:
            self.completed += 1
        if kappa:
            found = solution.condition
            self.kappa = found if not self.kappa > found else self.kappa

    def as_dict(self) -> dict[str, float]:
        """Return the counts by name, as loggers take them."""
        return asdict(self)


def _layers(model: Any) -> dict[str, Counters]:
    """Return the counters of all layers of a model, by the names of its modules."""
    if not hasattr(model, "named_modules"):
        raise TypeError(f"model is {type(model).__name__}; wanted a torch.nn.Module")
    found = {name: getattr(module, "counters", None) for name, module in model.named_modules()}
    return {name: c for name, c in found.items() if isinstance(c, Counters)}


def reset_counters(model: Any) -> None:
    """Set the counters of all layers of a model to nothing.

    Parameters
    ----------
    model : torch.nn.Module

    Raises
    ------
    TypeError
        For what is no module.

    Examples
    --------
    >>> import torch, recsolve as rs
    >>> layer = rs.nn.GRU(3, 8)
    >>> _ = layer(torch.ones(50, 4, 3))
    >>> rs.nn.reset_counters(layer)
    >>> layer.counters.solves
    0
    """
    for counters in _layers(model).values():
        vars(counters).update(vars(Counters()))


def report(model: Any, *, show: bool = True) -> dict[str, dict[str, float]]:
    """Print what the layers of a model have done, as a table, and return it.

    Parameters
    ----------
    model : torch.nn.Module
        Of which all modules of ``recsolve.nn`` are listed, by their names in it.
    show : bool
        Whether to print; where the standard output is no terminal, the table is plain text.

    Returns
    -------
    dict of dict
        The numbers of :class:`Counters` by the name of the layer; that of the model itself is empty.

    Raises
    ------
    TypeError
        For what is no module.

    Examples
    --------
    >>> import torch, recsolve as rs
    >>> model = torch.nn.ModuleDict({"encoder": rs.nn.GRU(3, 8)})
    >>> _ = model.encoder(torch.ones(50, 4, 3))
    >>> rs.nn.report(model, show=False)["encoder"]["solves"]
    1
    """
    found = {name: counters.as_dict() for name, counters in _layers(model).items()}
    if show:
        _print(found)
    return found


_TITLES = {
    "solves": "solves", "iterations": "iterations", "worst": "most of one", "completed": "completed by the loop",
    "unmet": "not met", "kappa": "kappa",
}  # fmt: skip


def _print(found: dict[str, dict[str, float]]) -> None:
    rows = [
        [name or "(model)", *(f"{row[key]:.3g}" if key == "kappa" else str(row[key]) for key in _TITLES)]
        for name, row in found.items()
    ]
    titles = ["layer", *_TITLES.values()]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*titles)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = [[titles[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(titles[1:], widths[1:], strict=True))]]
    lines += [[r[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(r[1:], widths[1:], strict=True))] for r in rows]
    sys.stdout.write("".join("  ".join(line) + "\n" for line in lines))
