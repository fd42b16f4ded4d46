"""The plots of a report, each one function from results to SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.results import Result
from rag.svg import Chart, Scale, span

MEASURE = "nDCG@10"
SHOWN = ("nDCG@10", "Recall@100", "MRR@10", "MAP")
MAX_POINTS = 1_500
_SEED = 1


def quality(result: Result) -> str:
    """Each measure's mean by mode, with its 95 % bootstrap interval."""
    names = [name for name in SHOWN if name in next(iter(result.results.values()))]
    rows = [(name, mode, result) for name in names for mode in result.modes]
    label = f"Quality on {result.dataset}: " + "; ".join(
        f"{name} {mode} {result.results[mode][name]:.3f}" for name, mode, _ in rows
    )
    groups = [(name, [(mode, result, name) for mode in result.modes]) for name in names]
    return _intervals(label, groups, "mean over queries, with 95 % interval")


def overview(results: Sequence[Result]) -> str:
    """nDCG@10 by mode on every collection."""
    groups = [(r.dataset, [(mode, r, MEASURE) for mode in r.modes]) for r in results]
    label = f"{MEASURE} by mode: " + "; ".join(
        f"{r.dataset} {mode} {r.results[mode][MEASURE]:.3f}" for r in results for mode in r.modes
    )
    return _intervals(label, groups, f"{MEASURE}, with 95 % interval")


def recall(result: Result) -> str:
    """Recall against depth, by mode."""
    curves = {mode: sorted(curve.items()) for mode, curve in result.recall_at_depth.items()}
    deepest = max((depth for curve in curves.values() for depth, _ in curve), default=1)
    chart = _chart(
        f"Recall against depth on {result.dataset}",
        x=(1.0, float(max(deepest, 2))),
        y=(0.0, 1.0),
        log_x=True,
    )
    chart.axes("depth (documents, log scale)", "recall")
    for mode, curve in curves.items():
        chart.line([(depth, value) for depth, value in curve], mode)
        for depth, value in curve:
            chart.mark(depth, value, mode, f"{mode}: recall@{depth} {value:.3f}", radius=3)
    return chart.svg()


def latency(result: Result) -> str:
    """Median latency, to its 95th percentile, against nDCG@10 with its interval, by mode."""
    times = [found[p] for found in result.latency_ms.values() for p in ("p50", "p95")]
    qualities = [edge for mode in result.modes for edge in result.intervals[mode][MEASURE]]
    low, high = max(min(times) / 1.6, 1e-3), max(times) * 2.2
    chart = _chart(
        f"Latency against {MEASURE} on {result.dataset}",
        x=(low, high),
        y=span(qualities),
        log_x=True,
    )
    chart.axes("latency of one query: p50 to p95 (ms, log scale)", MEASURE)
    for mode in result.modes:
        found, at = result.latency_ms[mode], result.results[mode][MEASURE]
        bottom, top = result.intervals[mode][MEASURE]
        chart.whisker((found["p50"], found["p95"]), (at, at), mode)
        chart.whisker((found["p50"], found["p50"]), (bottom, top), mode)
        tip = f"{mode}: p50 {found['p50']:.1f} ms, p95 {found['p95']:.1f} ms, {MEASURE} {at:.3f}"
        chart.mark(found["p50"], at, mode, tip, radius=6)
    return chart.svg()


def per_query(result: Result) -> str:
    """Every query's dense against its sparse nDCG@10, coloured by what the hybrid made of it."""
    dense, sparse = result.scores("dense", MEASURE), result.scores("sparse", MEASURE)
    hybrid = result.scores("hybrid", MEASURE) if "hybrid" in result.per_query else None
    chart = _chart(
        f"{MEASURE} of each query of {result.dataset}, dense against sparse",
        x=(-0.03, 1.03),
        y=(-0.03, 1.03),
        square=True,
    )
    chart.axes(f"sparse {MEASURE}", f"dense {MEASURE}")
    chart.diagonal()
    rng = np.random.default_rng(_SEED)
    places = np.arange(len(dense))
    if len(places) > MAX_POINTS:
        places = np.sort(rng.choice(places, MAX_POINTS, replace=False))
    # Many queries share a corner: a little scatter shows how many.
    jitter = rng.uniform(-0.012, 0.012, size=(2, len(dense)))
    for i in places.tolist():
        kind, tip = (
            "between",
            f"{result.query_ids[i]}: dense {dense[i]:.3f}, sparse {sparse[i]:.3f}",
        )
        if hybrid is not None:
            tip += f", hybrid {hybrid[i]:.3f}"
            if hybrid[i] > max(dense[i], sparse[i]) + 1e-9:
                kind = "above"
            elif hybrid[i] < min(dense[i], sparse[i]) - 1e-9:
                kind = "below"
        chart.mark(sparse[i] + jitter[0, i], dense[i] + jitter[1, i], kind, tip, radius=3)
    return chart.svg()


def _intervals(
    label: str, groups: Sequence[tuple[str, Sequence[tuple[str, Result, str]]]], title: str
) -> str:
    """Rows in groups: a mark at the mean and a whisker over its interval."""
    rows = sum(len(members) for _, members in groups)
    edges = [
        edge for _, members in groups for mode, r, name in members
        for edge in (*r.intervals[mode][name], r.results[mode][name])
    ]  # fmt: skip
    low, high = span(edges)
    top, row_height, gap = 14.0, 20.0, 12.0
    height = top + rows * row_height + len(groups) * gap
    # One unit of y is one pixel, downwards.
    chart = Chart(
        label, Scale(low, high, 128, 500), Scale(0, height, height, 0), 560, height + 44
    )  # fmt: skip
    chart.x_axis(title)
    y = height - top
    for name, members in groups:
        chart.row(y - (len(members) - 1) * row_height / 2, name)
        for mode, result, measure in members:
            mean = result.results[mode][measure]
            bottom, upper = result.intervals[mode][measure]
            chart.whisker((bottom, upper), (y, y), mode)
            tip = f"{result.dataset} {mode}: {measure} {mean:.4f}, {bottom:.4f} to {upper:.4f}"
            chart.mark(mean, y, mode, tip)
            chart.note(upper, y, f"{mean:.3f}", mode)
            y -= row_height
        y -= gap
    return chart.svg()


def _chart(
    label: str,
    *,
    x: tuple[float, float],
    y: tuple[float, float],
    log_x: bool = False,
    square: bool = False,
) -> Chart:
    width, height = (420.0, 420.0) if square else (560.0, 340.0)
    return Chart(
        label,
        Scale(*x, 52, width - 24, log=log_x),
        Scale(*y, height - 46, 30),
        width,
        height,
    )


def key_mark(kind: str) -> str:
    """The mark of a kind alone, for legends."""
    chart = Chart(kind, Scale(0, 1, 0, 14), Scale(0, 1, 14, 0), 14, 14)
    chart.mark(0.5, 0.5, kind, radius=5)
    return chart.svg()
