"""docs/images/growth.png: whole commands as an index grows, from results/growth.json."""

from __future__ import annotations

import json
from typing import Any

from common import REPOSITORY, RESULTS
from matplotlib.figure import Figure

TARGET = REPOSITORY / "docs" / "images" / "growth.png"
LABELS = {"nothing new": "index, nothing new", "one new": "index, one new picture", "search": "search, a fresh process"}
COLOURS = ("#2563eb", "#d97706", "#059669")  # told apart in greys too


def main() -> None:
    growth: dict[str, Any] = json.loads((RESULTS / "growth.json").read_text())
    runs = growth["results"]["seconds"]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (name, label), colour in zip(LABELS.items(), COLOURS, strict=True):
        values = [run[name]["median"] for run in runs.values()]
        axes.loglog([int(size) for size in runs], values, "o-", color=colour, label=label)
    axes.set(title="Whole commands as an index grows", xlabel="pictures", ylabel="seconds")
    axes.legend(frameon=False)
    axes.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(TARGET, dpi=110)
    print(f"-> {TARGET.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
