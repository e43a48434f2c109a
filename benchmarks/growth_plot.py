"""docs/images/growth.png: whole commands as an index grows, and one query as the vectors grow, from results/."""

from __future__ import annotations

import json
from typing import Any

from common import REPOSITORY, RESULTS
from matplotlib.figure import Figure

TARGET = REPOSITORY / "docs" / "images" / "growth.png"
COLOURS = ("#2563eb", "#d97706", "#059669")  # told apart in greys too


def main() -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    commands, queries = figure.subplots(1, 2)
    growth, approximate = _read("growth"), _read("approximate")
    sizes = growth["results"]["seconds"]
    curves = {name: [run[name]["median"] for run in sizes.values()] for name in ("nothing new", "one new", "search")}
    labels = {"nothing new": "index, nothing new", "one new": "index, one new picture", "search": "search, cold"}
    _draw(commands, [int(size) for size in sizes], {labels[name]: curve for name, curve in curves.items()})
    commands.set(title="Whole commands", xlabel="pictures", ylabel="seconds")
    sizes = approximate["results"]["sizes"]
    names = {"one query": "one query, exact", "one read": "one read of the matrix"}
    times = {label: [run["seconds"][name]["median"] for run in sizes.values()] for name, label in names.items()}
    _draw(queries, [int(size) for size in sizes], times)
    listed = {int(size): run["listed"]["one"]["median"] for size, run in sizes.items() if "listed" in run}
    queries.plot(list(listed), list(listed.values()), "D", color=COLOURS[2], label="one query, --ann ivf")
    queries.set(title="One query in memory", xlabel="vectors of 512 values", ylabel="seconds")
    for axes in (commands, queries):
        axes.legend(frameon=False)
        axes.grid(visible=True, which="major", alpha=0.3)
    machine = growth["machine"]
    figure.suptitle(f"{machine['cores']} cores, {', '.join(machine.get('instructions', ()))}", fontsize=10)
    figure.savefig(TARGET, dpi=110)
    print(f"-> {TARGET.relative_to(REPOSITORY)}")


def _draw(axes: Any, sizes: list[int], curves: dict[str, list[float]]) -> None:
    for colour, (label, values) in zip(COLOURS, curves.items(), strict=False):
        axes.loglog(sizes, values, "o-", color=colour, label=label)


def _read(name: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return answer


if __name__ == "__main__":
    main()
