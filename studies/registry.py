"""The definition of a study, and the list of studies.

To write one, add a file to ``studies/catalogue`` that ends in ``STUDY = study_of(__name__, ...)``, and enter its name
in ``CATALOGUE`` (``catalogue/lyapunov.py`` is the model):

- ``Config`` is a frozen dataclass of numbers, texts, bools and tuples of them. As it stands it takes under 60 s on two
  cores (``--quick``); ``FULL`` is the instance that one would publish, ``TINY`` that for tests, a second or two.
- ``grid(config)`` yields points, the arguments of ``run``: a product of named axes (``records.product``), or several.
  A point is plain JSON and says *everything* that its numbers depend on, ``seed`` and ``dtype`` among it: its hash is
  the name of the record, and stored records are reused.
- ``run(**point)`` returns tidy rows (dicts). It is a function of a module, so that other processes can import it, and
  raises where it fails: the exception is stored. ``measure.measured`` makes a row of one solve, whatever becomes of it.
- Names in ``dims`` are coordinates, all else in rows is measured; lists among it are declared in ``curves``.
- ``facts(data)`` finds in the gathered Dataset what is claimed, by name. Sentences quote the facts, tests assert them.
  ``tables(data)`` returns tables of texts for the report.
- A ``Picture`` draws the Dataset, and says in a sentence or two what it shows, from the data alone: the finding first,
  then few numbers, the rest being for ``tables``. Ratios of times are over the time of the loop. ``drawing`` has bands
  over seeds, heat maps, legends and words for numbers. What did not converge is NaN (``drawing.converged``): it
  is left out or hatched, and never counted as an answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from recsolve.studies.store.configs import SIZES, arguments
from recsolve.studies.store.records import Point, Row

if TYPE_CHECKING:
    from xarray import Dataset

# Modules of recsolve.studies.catalogue by the name of the study, in the order of the report.
CATALOGUE: dict[str, str] = {
    "convergence": "convergence",
    "lyapunov": "lyapunov",
    "iterations_vs_length": "iterations_vs_length",
    "stability_map": "stability_map",
    "basins": "basins",
    "minmax": "minmax_slopes",
    "minmax_parity": "minmax_parity",
    "htm": "htm_sweeps",
    "htm_words": "htm_words",
    "truncation": "truncated_gradients",
    "attention_rnn": "attention_steps",
    "pgn": "pgn_windows",
    "mixing_ladder": "mixing_ladder",
    "heads": "heads",
    "slstm": "slstm_coordinates",
    "memory_routes": "memory_routes",
    "matrix_states": "matrix_states",
    "state_tracking": "state_tracking",
    "sparsity": "sparsity",
    "reber": "reber",
    "lattice": "lattice_pruning",
    "mala": "mala",
    "teacher_forcing": "teacher_forcing",
    "durations": "durations",
    "initial_guess": "initial_guess",
    "trained": "trained",
    "work_precision": "work_precision",
    "precision": "precision",
    "langevin_lorenz": "langevin_lorenz",
    "plstm": "plstm_gains",
    "seq2seq": "seq2seq_stacks",
    "depth": "depth_settling",
    "act": "act_halting",
    "sampler": "depth_sampler",
    "paths": "depth_paths",
    "thinking": "thinking",
    "speed": "speed",
    "state_maps": "state_maps",
    "recurrent_transformer": "recurrent_transformer",
    "hidden_transfer": "hidden_transfer",
    "token_sweeps": "token_sweeps",
    "learn2pd": "learned_freezing",
    "carry": "carry",
    "paper/pararnn": "paper_pararnn",
    "paper/deer": "paper_deer",
    "paper/elk": "paper_elk",
    "paper/paradigms": "paper_paradigms",
    "chunks": "chunks",
    "selectivity": "selectivity",
    "paper/lssl": "paper_lssl",
    "paper/fsmn": "paper_fsmn",
    "paper/jrt": "paper_jrt",
    "paper/convssm": "paper_convssm",
    "paper/tfla": "paper_tfla",
    "paper/tfla_chunks": "tfla_chunks",
    "staleness": "ttt_staleness",
    "lact": "lact_picard",
    "memory_caching": "cached_recall",
    "overwriting": "overwriting",
    "planted": "planted_fact",
    "hopfield": "hopfield_retrieval",
    "training": "training",
    "curriculum": "curriculum",
    "spectral": "spectral",
    "word_problem": "word_problem",
}


@dataclass(frozen=True)
class Picture:
    """A figure, and the sentence under it; both know the stored numbers and nothing else.

    Attributes
    ----------
    name : str
        Of its files.
    draw : callable
        ``draw(pyplot, data)`` returns a matplotlib Figure.
    says : callable
        ``says(data)`` returns what the figure shows, in words computed from the data.

    Examples
    --------
    >>> from recsolve.studies.registry import get
    >>> [picture.name for picture in get("lyapunov").pictures]
    ['knee', 'predicted']
    """

    name: str
    draw: Callable[[Any, Dataset], Any]
    says: Callable[[Dataset], str]


@dataclass(frozen=True)
class Table:
    """A table of the report, of texts.

    Examples
    --------
    >>> from recsolve.studies.registry import Table
    >>> Table("Iterations", ("solver", "median"), [("newton", "4")]).head
    ('solver', 'median')
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question, and all that answers it: a pure function of a frozen config.

    Attributes
    ----------
    name, question : str
    version : int
        To be raised when what a run measures changes: older records then no longer count.
    quick, full, tiny : dataclass instance
        The configs of ``--quick``, ``--full`` and ``--tiny``, of one frozen type.
    grid : callable
        ``grid(config)`` returns the points to run, mappings of JSON values.
    run : callable
        ``run(**point)`` returns tidy rows. It may be called in another process, on another machine.
    dims : tuple of str
        Which names in points and rows are coordinates; all others are measured.
    curves : mapping
        For measured lists the names of their axes: ``{"errors": ("iteration",)}``.
    facts : callable
        ``facts(data)`` returns what the study found as numbers by name: sentences quote them, tests assert them.
    pictures : tuple of Picture
    tables : callable
        ``tables(data)`` returns tables for the report.
    alone : bool
        Whether runs are timed, and so go one at a time whatever the number of workers.

    Examples
    --------
    >>> from recsolve.studies.registry import get
    >>> study = get("lyapunov")
    >>> study.question
    'How do iterations depend on the largest Lyapunov exponent, and can they be predicted?'
    >>> study.dims
    ('T', 'gain', 'seed', 'solver')
    """

    name: str
    question: str
    version: int = 1
    quick: Any
    full: Any
    tiny: Any
    grid: Callable[[Any], Iterable[Point]]
    run: Callable[..., list[Row]]
    dims: tuple[str, ...]
    curves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Callable[[Dataset], dict[str, Any]]
    pictures: tuple[Picture, ...]
    tables: Callable[[Dataset], list[Table]] = lambda data: []
    alone: bool = False

    def command(self, config: str) -> str:
        """Return the command line that runs a config, given as TOML."""
        return f"recsolve study run {self.name} {arguments(config, {size: getattr(self, size) for size in SIZES})}"


def study_of(module: str, **given: Any) -> Study:
    """Return the study of a module whose parts have the names that this file lists at its head.

    Examples
    --------
    >>> from recsolve.studies.registry import study_of
    >>> from recsolve.studies.catalogue import lyapunov
    >>> study_of(lyapunov.__name__, name="mine", question="Why?", dims=(), pictures=()).quick == lyapunov.Config()
    True
    """
    parts = vars(sys.modules[module])
    named = {name: parts[name] for name in ("grid", "run", "facts", "tables")}
    return Study(quick=parts["Config"](), full=parts["FULL"], tiny=parts["TINY"], **named, **given)


def get(name: str) -> Study:
    """Return a study by its name.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.

    Examples
    --------
    >>> from recsolve.studies.registry import get
    >>> get("lyapunov").name
    'lyapunov'
    """
    if name not in CATALOGUE:
        raise ValueError(f"study is {name!r}; wanted one of {', '.join(CATALOGUE)}")
    study: Study = import_module(f"recsolve.studies.catalogue.{CATALOGUE[name]}").STUDY
    return study
