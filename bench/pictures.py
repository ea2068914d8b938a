"""The figures as pictures, in SVG."""

from collections.abc import Iterable
from math import nan
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib import rc_context

from bench import sweep


def heat_maps(results: dict[str, Any], file: Path) -> None:
    """The rates by workers and threads: a row for each store and pinning, a column a load."""
    found = [point for store in results["stores"].values() for point in store["points"]]
    chosen = list(sweep.spots(results))
    rows = list(dict.fromkeys((point.store, point.pinned) for point in found))
    loads = [load.name for load in sweep.LOADS]
    figure, axes = plt.subplots(
        len(rows), len(loads), squeeze=False, figsize=(4.5 * len(loads), 2.6 * len(rows))
    )
    for (store, pinned), across in zip(rows, axes, strict=True):
        for load, axis in zip(loads, across, strict=True):
            place = (store, load, pinned)
            heat_map(axis, (p for p in found if (p.store, p.load, p.pinned) == place), chosen)
            axis.set_title(f"{store}, {load}{', pinned' if pinned else ''}", fontsize=9)
    save(figure, file)


def heat_map(axis: Any, found: Iterable[sweep.Point], chosen: list[sweep.Point]) -> None:
    """One map, with rate and p99 in each cell; the sweet spot is framed."""
    points = {(point.workers, point.threads): point for point in found}
    workers = sorted({number for number, _ in points})
    threads = sorted({number for _, number in points})
    rates = [[points[w, t].rate if (w, t) in points else nan for t in threads] for w in workers]
    axis.imshow(rates, aspect="auto", cmap="YlGn", vmin=0)
    axis.set_xticks(range(len(threads)), threads)
    axis.set_yticks(range(len(workers)), workers)
    axis.set(xlabel="threads of each worker", ylabel="workers")
    for point in points.values():
        frame = {"edgecolor": "black", "facecolor": "none"} if point in chosen else None
        axis.annotate(
            f"{point.rate:,.0f}/s\n{point.p99:.0f} ms",
            (threads.index(point.threads), workers.index(point.workers)),
            ha="center",
            va="center",
            fontsize=7,
            bbox=frame,
        )


def save(figure: Any, file: Path) -> None:
    """A figure with its text as text, the same for the same figures."""
    figure.tight_layout()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "bench"}):
        figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
