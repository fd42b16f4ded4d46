"""One version of a bundle as an HTML page: what went in, what did not, which index and how fast."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from indexer import report_plots as plots
from indexer.report import REPORT
from rag.index.bundle import Bundle, open_bundle
from rag.models.tokenizer import Tokenizer
from rag.page import figure, frame
from rag.types import Int64

SAMPLED = 20_000
AT_ONCE = 512
SKIPPED_SHOWN = 500


def report_page(uri: str, cache_dir: Path) -> str:
    """The page of the bundle that `uri` names (see `rag.index.bundle.open_bundle`).

    Raises BundleError, StorageError.
    """
    bundle = open_bundle(uri, cache_dir=cache_dir, verify=False)
    manifest = bundle.manifest
    counts = manifest.counts
    skipped = json.loads((bundle.folder / REPORT).read_bytes())["skipped"]
    body = [
        f"<h1>Bundle {escape(manifest.version)}</h1>",
        f"<p>{counts['documents']:,} documents in {counts['chunks']:,} passages,"
        f" {counts['skipped']:,} not in it; {sum(f.size for f in manifest.files.values()):,} bytes."
        f" Made by {escape(manifest.program)}.</p>",
        f'<div class="grid2">{"".join(_figures(bundle))}</div>',
        _dense(manifest.measured.get("dense", {}), manifest.dense),
        _skipped(skipped),
        _parts(manifest),
    ]
    return frame(f"Bundle {manifest.version}", body)


def _figures(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    lengths = _lengths(bundle)
    limit = int(manifest.encoder["max_tokens"])
    of = f"{len(lengths):,} passages" + (
        "" if len(lengths) == bundle.store.rows else f", evenly spaced among {bundle.store.rows:,}"
    )
    figures = [
        figure(
            "Length of passages",
            plots.lengths(lengths, limit),
            f"Tokens of the encoder, in {of}; it reads {limit}. Median {np.median(lengths):.0f}.",
        )
    ]
    if seconds := manifest.measured.get("seconds"):
        caption = f"{sum(seconds.values()):,.1f} s in all, one stage after the other's end."
        figures.append(figure("Time of each stage", plots.amounts(seconds, "seconds"), caption))
    sizes: Counter[str] = Counter()
    for name, entry in manifest.files.items():
        sizes[name.partition("/")[0]] += entry.size
    megabytes = {name: size / 1e6 for name, size in sizes.most_common()}
    figures.append(
        figure("Size of each part", plots.amounts(megabytes, "MB"), "Bytes on disk, in millions.")
    )
    table = manifest.measured.get("dense", {}).get("table", [])
    if table:
        caption = "p50 to p95 of one query at a time; to the left and up is better."
        figures.append(figure("Dense index: time against recall", plots.tried(table), caption))
    return figures


def _lengths(bundle: Bundle) -> Int64:
    """Tokens of at most 20,000 passages, in evenly spaced blocks."""
    rows = bundle.store.rows
    blocks = min(-(-rows // AT_ONCE), SAMPLED // AT_ONCE)
    starts = np.linspace(0, max(0, rows - AT_ONCE), blocks).astype(np.int64)
    tokenizer = Tokenizer.load(bundle.encoder_folder)
    counts = [
        tokenizer.count(bundle.store.indexed_texts(int(start), int(start) + AT_ONCE))
        for start in np.unique(starts)
    ]
    return np.concatenate(counts).astype(np.int64)


def _dense(measured: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """The table of what was tried, and what it was tried with."""
    if not measured:
        return f"<h2>Dense index</h2><pre>{escape(json.dumps(dict(reference), indent=1))}</pre>"
    columns = {
        "index": "index", "search": "search options", "recall_at_10": "recall@10",
        "recall_at_100": "recall@100", "p50_ms": "p50, ms", "p95_ms": "p95, ms",
        "bytes_per_passage": "bytes of a passage", "build_s": "build, s",
    }  # fmt: skip
    head = "".join(f'<th scope="col">{title}</th>' for title in columns.values())
    rows = []
    for line in measured["table"]:
        kind = ' class="best"' if line["chosen"] else ""
        cells = "".join(f"<td{kind}>{_cell(line[name])}</td>" for name in columns)
        rows.append(f"<tr>{cells}</tr>")
    verdict = "reached" if measured["met"] else "not reached: this is the best that was found"
    return (
        f"<h2>Dense index</h2><p>Wanted: recall@10 of {measured['recall_target']:g};"
        f" {verdict}. Asked with {escape(measured['sample'])}, against exact search."
        " What was chosen is in bold.</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return escape(", ".join(f"{name} {number}" for name, number in value.items())) or "–"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return escape(str(value))


def _skipped(skipped: Sequence[Mapping[str, str]]) -> str:
    if not skipped:
        return "<h2>Documents that are not in it</h2><p>None.</p>"
    rows = "".join(
        f"<tr><td>{escape(line['doc_id'])}</td><td>{escape(line['reason'])}</td></tr>"
        for line in skipped[:SKIPPED_SHOWN]
    )
    more = len(skipped) - SKIPPED_SHOWN
    note = f"<p>And {more:,} more, in {REPORT} of the bundle.</p>" if more > 0 else ""
    return (
        f"<h2>Documents that are not in it</h2><p>{len(skipped):,}, with the reason.</p>"
        f'<div class="scroll"><table><thead><tr><th>document</th><th>reason</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _parts(manifest: Any) -> str:
    """Encoder, analyzer and the rest, as the manifest has them."""
    parts = {
        name: {k: v for k, v in getattr(manifest, name).items() if k != "goldens"}
        for name in ("encoder", "analyzer", "chunker", "dense", "sparse", "fusion")
    }
    shown = escape(json.dumps(parts, ensure_ascii=False, indent=1))
    return f"<details><summary>What decided this version</summary><pre>{shown}</pre></details>"
