"""The plots of a bundle's report, each one function from numbers to SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rag.svg import Chart, Scale, span
from rag.types import Int64

BINS = 32
WIDTH, HEIGHT = 560.0, 320.0


def lengths(tokens: Int64, limit: int) -> str:
    """A histogram of passages by tokens, and a line at what the encoder reads."""
    most = max(int(tokens.max(initial=1)), limit) + 1
    edges = np.unique(np.linspace(0, most, BINS + 1).astype(np.int64))
    counts, _ = np.histogram(tokens, edges)
    chart = Chart(
        f"Passages by tokens: {len(tokens)} passages of {tokens.min(initial=most)} to"
        f" {tokens.max(initial=0)} tokens",
        Scale(0, float(most), 60, WIDTH - 24),
        Scale(0, float(max(counts.max(initial=1), 1)), HEIGHT - 46, 30),
        WIDTH,
        HEIGHT,
    )
    chart.axes("tokens", "passages")
    for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts, strict=True):
        tip = f"{count} passages of {low} to {high - 1} tokens"
        chart.bar((low, high - 0.15 * (high - low)), (0, float(count)), "dense", tip)
    chart.whisker((limit, limit), (0, chart.y.high), "sparse")
    return chart.svg()


def amounts(values: Mapping[str, float], unit: str) -> str:
    """One horizontal bar for each name, in order."""
    row, top = 24.0, 8.0
    height = top + row * len(values)
    most = max([*values.values(), 1e-9])
    label = f"{unit}: " + "; ".join(f"{name} {value:,.3g}" for name, value in values.items())
    # One unit of y is one pixel, downwards.
    chart = Chart(
        label, Scale(0, most * 1.15, 128, 530), Scale(0, height, height, 0), WIDTH, height + 44
    )
    chart.x_axis(unit)
    for place, (name, value) in enumerate(values.items()):
        y = height - top - row * (place + 0.5)
        chart.row(y, name)
        chart.bar((0, value), (y - 7, y + 7), "dense", f"{name}: {value:,.4g} {unit}")
        chart.note(value, y, f"{value:,.3g}", "dense")
    return chart.svg()


def tried(table: Sequence[Mapping[str, Any]]) -> str:
    """Each index: its time, from p50 to p95, against recall@10."""
    times = [max(float(line[p]), 1e-3) for line in table for p in ("p50_ms", "p95_ms")]
    recalls = [float(line["recall_at_10"]) for line in table]
    label = "Dense indexes: " + "; ".join(
        f"{line['index']} recall@10 {line['recall_at_10']} p50 {line['p50_ms']} ms"
        for line in table
    )
    chart = Chart(
        label,
        Scale(min(times) / 1.6, max(times) * 4, 60, WIDTH - 24, log=True),
        Scale(*span(recalls), HEIGHT - 46, 30),
        WIDTH,
        HEIGHT,
    )
    chart.axes("one query: p50 to p95 (ms, log scale)", "recall@10")
    for line in table:
        kind = "hybrid" if line["chosen"] else "dense"
        p50, p95 = (max(float(line[p]), 1e-3) for p in ("p50_ms", "p95_ms"))
        recall = float(line["recall_at_10"])
        chart.whisker((p50, p95), (recall, recall), kind)
        tip = f"{line['index']}: recall@10 {recall:.4f}, p50 {p50:.3f} ms, p95 {p95:.3f} ms"
        chart.mark(p50, recall, kind, tip, radius=6)
        chart.note(p95, recall, str(line["index"]), kind)
    return chart.svg()
