"""The lines of a job that the platform reads its metrics from, and the expressions that read them.

A metric line is `metric NAME=VALUE;` on standard output, one a line. The platform takes at most
40 definitions of at most 500 characters.
"""

from __future__ import annotations

from collections.abc import Mapping

METRICS: Mapping[str, str] = {
    "documents": "documents in the bundle",
    "chunks": "passages in the bundle",
    "skipped": "documents that could not be indexed",
    "embedded": "passages that were embedded and not taken from earlier work",
    "bytes": "size of the bundle",
    "seconds:total": "time of the whole build",
    "seconds:list": "time of listing the source",
    "seconds:read": "time of reading, parsing and chunking, with the embedding meanwhile",
    "seconds:embed": "time of the embedding that was left after it",
    "seconds:export": "time of exporting the encoder",
    "seconds:chunks": "time of writing the passages",
    "seconds:dense": "time of building the dense leg",
    "seconds:sparse": "time of building the sparse leg",
    "seconds:seal": "time of hashing and sealing",
    "chunks_per_second": "passages over the time of the whole build",
}
"""Every metric's name and meaning."""


def expression(name: str) -> str:
    """The regular expression whose only group is the metric's value."""
    return rf"metric {name}=([0-9.eE+-]+);"


def definitions() -> list[dict[str, str]]:
    """`MetricDefinitions`, as CreateTrainingJob takes them."""
    return [{"Name": name, "Regex": expression(name)} for name in METRICS]


def lines(values: Mapping[str, float]) -> list[str]:
    """The metric lines of those values that have a definition, in its order."""
    return [f"metric {name}={values[name]:.10g};" for name in METRICS if name in values]
