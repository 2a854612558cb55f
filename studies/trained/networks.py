"""The networks of this folder as recurrences, on streams of the tasks they were trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.studies.trained.tasks import TASKS

FOLDER = Path(__file__).parent
NAMES = tuple(f"{task}-{kind}" for task in TASKS for kind in ("gru", "lstm"))
STAGES = ("before", "during", "after")


def recurrence(
    name: str, stage: str = "after", *, T: int, batch: int | None = None, seed: int = 0, dtype: Any = np.float64
) -> rs.Recurrence:
    """Return a network at one stage of its training, driven by new streams of its task.

    Parameters
    ----------
    name : str
        One of ``NAMES``, as ``"recall-lstm"``.
    stage : {"before", "during", "after"}
        Of training.
    T : int
        Steps.
    batch : int, optional
        Streams side by side; default: one, without an axis for them.
    seed : int
        Of the streams.
    dtype : dtype
        Of weights and states.

    Returns
    -------
    Recurrence
        Of 32 (recall, parity), 48 (digits) or 64 units (english), from zeros.

    Examples
    --------
    >>> from recsolve.studies.trained.networks import recurrence
    >>> recurrence("recall-lstm", T=100).shape
    (100, 2, 32)
    """
    from safetensors.numpy import load_file

    file, task = FOLDER / f"{name}.safetensors", name.partition("-")[0]
    inputs, _ = TASKS[task](T, batch or 1, np.random.default_rng(seed))
    embedding = load_file(file).get(f"{stage}.embedding.weight")
    x = inputs if embedding is None else embedding[inputs]
    cell: rs.WeightedCell = rs.load(file, keys=f"{stage}.layer").map(lambda w: np.asarray(w, dtype))
    return cell.recurrence((x if batch else x[:, 0]).astype(dtype))
