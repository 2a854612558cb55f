"""Think-at-Hard (Fu et al., arXiv 2511.08577): which tokens to iterate, when a second pass is made for hard ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.draw.drawing import CONVERGED, band
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import think_at_hard

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

MARGIN, RANDOM = "the least sure tokens", "tokens at random"
ORACLE, GENERAL = "the tokens that are wrong (oracle)", "all tokens, readout for all"
DECIDERS = (MARGIN, RANDOM)
SHARPNESS, RIDGE = 3.0, 1e-2  # of what a token embeds of its first answer, and of fits
GAIN = 0.5


@dataclass(frozen=True)
class Config:
    """``tokens`` to fit readouts on, and as many to test; labels depend with a weight ``context`` on two tokens before.

    ``shares`` of the tokens go on to the second pass.
    """

    tokens: int = 4000
    width: int = 12
    labels: int = 5
    contexts: tuple[float, ...] = (0.1, 0.6)
    shares: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
    seeds: int = 5


TINY = Config(tokens=600, width=6, contexts=(0.1, 0.6), shares=(0.0, 0.1, 0.3, 1.0), seeds=2)
FULL = Config(tokens=40_000, width=32, labels=16, contexts=(0.05, 0.1, 0.2, 0.4, 0.8), seeds=20)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        context=config.contexts, seed=range(config.seeds), tokens=config.tokens, width=config.width,
        labels=config.labels, shares=[*config.shares], dtype="float64",
    )  # fmt: skip


def run(
    *, context: float, seed: int, tokens: int, width: int, labels: int, shares: list[float], dtype: str
) -> list[Row]:
    model = Model(context, seed, tokens, width, labels, dtype)
    rows = []

    def add(decider: str, share: float, on: Array, answers: Array) -> None:
        right, first = (answers == model.y)[tokens:], (model.first == model.y)[tokens:]
        rows.append(
            {
                "solver": decider,
                "share": share,
                "status": CONVERGED,
                "iterated": float(on[tokens:].mean()),
                "right": float(right.mean()),
                "corrected": float((right & ~first).mean()),
                "spoiled": float((~right & first).mean()),
            }
        )

    wrong, everyone = model.first != model.y, np.ones(2 * tokens, bool)
    fitted = model.readout(wrong)
    add(ORACLE, 1.0, wrong, model.answers(wrong, fitted))
    add(GENERAL, 1.0, everyone, model.answers(everyone, model.readout(everyone)))
    for share in shares:
        for decider, order in ((MARGIN, model.margin), (RANDOM, model.chance)):
            on = order <= np.quantile(order[:tokens], share) if share else ~everyone
            add(decider, share, on, model.answers(on, fitted))
    return rows


class Model:
    """Tokens, their labels, the answers of a first pass, and what a second pass over some of the tokens gives.

    The last number of an embedding says whether its token goes on; nothing else sees it. Only readouts are fitted, by
    least squares, on the first half of the tokens.
    """

    def __init__(self, context: float, seed: int, tokens: int, width: int, labels: int, dtype: str) -> None:
        config = think_at_hard.Config(
            length=2 * tokens, depth=2, width=width + 1, tokens=labels, gain=GAIN, seed=seed, dtype=dtype
        )
        self.arrays = {name: np.array(x) for name, x in think_at_hard.draw(config).items()}
        for name in "WAUE":
            self.arrays[name][..., -1] = 0
        for name in "WB":
            self.arrays[name][:, -1] = 0
        self.arrays |= {"w": np.eye(width + 1, dtype=dtype)[-1], "b": np.zeros(1, dtype)}
        self.fit, random = slice(tokens), np.random.default_rng(1000 + seed)
        e = self.arrays["e"][:, 0, :-1]
        seen = np.concatenate([e, *(np.roll(e, k, axis=0) for k in (1, 2))], axis=-1)
        hidden = np.tanh(seen @ random.standard_normal((3 * width, 2 * width)) * (3 * width) ** -0.5)
        scores = e @ random.standard_normal((width, labels))
        self.y = (scores + context * hidden @ random.standard_normal((2 * width, labels))).argmax(axis=-1)
        self.labels = labels
        features = self._states(np.zeros(2 * tokens, bool))[:, 0]
        weights = self._least_squares(features, np.ones(2 * tokens, bool))
        self.scores = _affine(features) @ weights
        self.arrays["U"][:, :-1] = SHARPNESS * weights[:-1].T
        self.first, ranked = self.scores.argmax(axis=-1), np.sort(self.scores, axis=-1)
        self.margin, self.chance = ranked[:, -1] - ranked[:, -2], random.random(2 * tokens)

    def _states(self, on: Array) -> Array:
        """Return h, (positions, depths, width)."""
        e = self.arrays["e"].copy()
        e[:, 0, -1] = np.where(on, 1.0, -1.0)
        rec = think_at_hard.make({**self.arrays, "e": e})
        return np.asarray(rs.solve(rec, method="sequential").states[:, :, 0, :-2])

    def _least_squares(self, features: Array, of: Array) -> Array:
        X, Y = _affine(features[self.fit])[of[self.fit]], np.eye(self.labels)[self.y[self.fit]][of[self.fit]]
        return np.linalg.solve(X.T @ X + RIDGE * np.eye(X.shape[1]), X.T @ Y)

    def _second(self, on: Array) -> Array:
        return np.concatenate([self._states(on)[:, 1], self.scores], axis=-1)

    def readout(self, on: Array) -> Array:
        """Return the readout of the second pass, fitted on the tokens that go on."""
        return self._least_squares(self._second(on), on)

    def answers(self, on: Array, readout: Array) -> Array:
        second: Array = np.argmax(_affine(self._second(on)) @ readout, axis=-1)
        return np.where(on, second, self.first)


def _affine(x: Array) -> Array:
    return np.concatenate([x, np.ones_like(x[:, :1])], axis=-1)


def _of(data: Dataset, name: str, context: float, decider: str) -> DataArray:
    """Return what was measured, by share and seed, of the shares that were tried."""
    part = data[name].sel(context=context, solver=decider).dropna("share", how="all")
    return part.transpose("share", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"contexts": [float(context) for context in data["context"].values]}
    for context in found["contexts"]:
        for decider in (MARGIN, RANDOM, ORACLE, GENERAL):
            right = _of(data, "right", context, decider).mean("seed")
            best, name = int(right.values.argmax()), f"{context:g}.{decider}"
            found[name] = [float(x) for x in right.values]
            found[f"{name}.best_share"] = float(right["share"][best])
            for measured in ("iterated", "corrected", "spoiled"):
                found[f"{name}.{measured}"] = [float(x) for x in _of(data, measured, context, decider).mean("seed")]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    contexts = [float(context) for context in data["context"].values]
    figure, axes = pyplot.subplots(1, len(contexts), figsize=(4 * len(contexts) + 2.5, 3.4), sharey=True, squeeze=False)
    looks = series((MARGIN, RANDOM, ORACLE, GENERAL))
    for ax, context in zip(axes[0], contexts, strict=True):
        for name, look in looks.items():
            x = 100 * _of(data, "iterated", context, name).mean("seed").values
            band(ax, x, 100 * _of(data, "right", context, name), "seed", name, **look)
        ax.set(title=f"weight of context {context:g}", xlabel="tokens that go on, %", xlim=(-4, 104))
    axes[0, 0].set_ylabel("right answers, %")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    sure, oracle = (f"{f['contexts'][-1]:g}.{decider}" for decider in (MARGIN, ORACLE))
    more = "spoils more than it corrects" if f[f"{sure}.spoiled"][-1] > f[f"{sure}.corrected"][-1] else "helps"
    return (
        f"A second pass that is fitted to the tokens that the first one gets wrong {more} when all tokens take it: "
        f"where context weighs most, {f[sure][0]:.0%} are right after one pass and {f[sure][-1]:.0%} after two. What "
        f"it is worth rests on knowing the wrong ones: {f[oracle][0]:.0%} are right if none but those go on, and "
        f"{max(f[sure]):.1%} with the best share of the least sure."
    )


def tables(data: Dataset) -> list[Table]:
    f, shares = facts(data), [float(x) for x in _of(data, "right", float(data["context"][0]), MARGIN)["share"]]
    rows = [
        [f"{context:g}", decider, *(f"{100 * x:.1f}" for x in f[f"{context:g}.{decider}"])]
        for context in f["contexts"]
        for decider in DECIDERS
    ]
    head = ["weight of context", "what goes on", *(f"{100 * share:g}%" for share in shares)]
    return [Table("Right answers in % by the share of tokens that goes on", head, rows)]


STUDY = study_of(
    __name__,
    name="thinking",
    question="Which tokens are worth a second pass, and what does one cost those that were right?",
    dims=("context", "share", "seed", "solver"),
    pictures=(Picture("shares", draw, says),),
)
