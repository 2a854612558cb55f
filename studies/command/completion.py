"""What a shell completes: the names of solvers, cells, studies, systems and what else options choose from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Names = Callable[[], Iterable[str]]
Completion = Callable[[str], list[str]]


def one_of(names: Names) -> Completion:
    """Return the completion of a name."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def some_of(names: Names) -> Completion:
    """Return the completion of the last of several names with commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in one_of(names)(last)]

    return complete


def cells() -> Iterable[str]:
    from recsolve.cells import REGISTRY

    return REGISTRY


def mixings() -> Iterable[str]:
    from recsolve.mixings import MIXINGS

    return MIXINGS


def solvers() -> Iterable[str]:
    from recsolve.solvers import REGISTRY

    return REGISTRY


def solvers_and_groups() -> Iterable[str]:
    from recsolve.solvers import GROUPS

    return [*solvers(), *(group.replace(" ", "-") for group in GROUPS), "all"]


def studies() -> Iterable[str]:
    from recsolve.studies.registry import CATALOGUE

    return CATALOGUE


def systems() -> Iterable[str]:
    from recsolve.studies.systems.system import CATALOGUE

    return CATALOGUE


def recordings() -> Iterable[str]:
    """Return those that come along; a shell goes on with files where none of them fits."""
    from recsolve.studies.problems.recordings import BUILT_IN

    return BUILT_IN


def tasks() -> Iterable[str]:
    from recsolve.studies.training.tasks import TASKS

    return TASKS


def timed(machine: str) -> Names:
    """Return a function of the names of what is timed on ``"cpu"`` or ``"gpu"``."""

    def names() -> Iterable[str]:
        from recsolve.studies.bench import WHAT

        return WHAT[machine]

    return names


def shared_calls() -> Iterable[str]:
    from recsolve.studies.bench.shared_calls import CASES

    return CASES
