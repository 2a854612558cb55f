"""Draw docs/figures/training-run.png: the loss of the run of docs/runs/text.

recsolve train --config docs/runs/text/config.toml --out RUN
cp RUN/log.jsonl docs/runs/text && python docs/training_run.py
"""

from __future__ import annotations

import json
from pathlib import Path

from recsolve.studies.draw.style import house_style

HERE = Path(__file__).parent


def main() -> None:
    """Draw the figure."""
    lines = (HERE / "runs" / "text" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    held = [row for row in rows if "held_out_loss" in row]
    with house_style() as pyplot:
        figure, ax = pyplot.subplots(figsize=(5.2, 3.0))
        ax.plot([row["step"] for row in rows], [row["loss"] for row in rows], color="#0072B2", label="training")
        marks = {"color": "#D55E00", "marker": "s", "linestyle": "--", "label": "held-out text"}
        ax.plot([row["step"] for row in held], [row["held_out_loss"] for row in held], **marks)
        ax.set(xlabel="step of training", ylabel="loss per byte, nats")
        ax.legend()
        figure.savefig(HERE / "figures" / "training-run.png", dpi=110)


if __name__ == "__main__":
    main()
