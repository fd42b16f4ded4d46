"""Which FAISS index: its kind, how it stores vectors, and what each passage costs in memory.

'flat' scans everything. 'hnsw' walks a graph (Malkov and Yashunin, TPAMI 2020). 'ivf' scans the
nearest of many lists, of whole vectors or of product-quantised ones (Jégou et al., TPAMI 2011):
'pq' has a byte for several dimensions, 'pq4' four bits for two, summed up in registers (FAISS's
fast scan; André et al., "Cache locality is not enough", VLDB 2015). Others are float32, float16,
or int8 between each dimension's extremes.
With `refine`, what the index nominates is scored by a second, finer copy of the vectors, which is
read from disk only where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rag.errors import BundleMixed, ConfigurationError

KINDS = ("flat", "hnsw", "ivf")
STORAGE = {"float32": 4.0, "float16": 2.0, "int8": 1.0}
"""Bytes of one dimension of one vector."""
STORED_AS = {
    "flat": tuple(STORAGE),
    "hnsw": tuple(STORAGE),
    "ivf": (*STORAGE, "pq", "pq4"),
}
NO_REFINE = "none"
HNSW_DEFAULTS = {"m": 32, "ef_construction": 200, "ef_search": 128}
IVF_DEFAULTS = {"lists": 0, "nprobe": 32, "candidates": 256}
SEARCHED_WITH = {"flat": (), "hnsw": ("ef_search",), "ivf": ("nprobe", "candidates")}
"""The options that a search needs and the files do not depend on."""
TRAINING_PER_LIST = 39
"""FAISS's own least number of vectors for one list."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One concrete index. `numbers` holds the options of its kind, all of them.

    'hnsw': m (links of a node), ef_construction and ef_search (candidates while building and
    searching). 'ivf': lists, nprobe (lists scanned for a query), candidates (nominees that are
    scored again), and for 'pq' pq_bytes (of one vector).
    """

    kind: str
    dimension: int
    storage: str = "float32"
    refine: str = NO_REFINE
    numbers: Mapping[str, int] = field(default_factory=dict)

    def reference(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        return {
            "kind": self.kind,
            "dimension": self.dimension,
            "metric": "inner_product",
            "storage": self.storage,
            "refine": self.refine,
            **self.numbers,
        }

    @property
    def name(self) -> str:
        """Such as 'hnsw int8, refined by float16'."""
        return f"{self.kind} {self.storage}" + (
            "" if self.refine == NO_REFINE else f", refined by {self.refine}"
        )

    @property
    def resident_bytes(self) -> float:
        """Of one passage, in what every search walks over: that should stay in memory."""
        if self.storage == "pq":
            vector = float(self.numbers["pq_bytes"])
        elif self.storage == "pq4":
            vector = self.dimension / 4
        else:
            vector = self.dimension * STORAGE[self.storage]
        if self.kind == "hnsw":
            # 2m links on the ground floor, 1/m of the nodes on each floor above with m.
            links = 4.0 * (2 * self.numbers["m"] + 1.0)
            return vector + links + 20
        return vector + (8.0 if self.kind == "ivf" else 0.0)

    @property
    def refine_bytes(self) -> float:
        """Of one passage, in the copy that nominees are scored by: on disk, read where needed."""
        return 0.0 if self.refine == NO_REFINE else self.dimension * STORAGE[self.refine]


def make_spec(
    dimension: int,
    rows: int,
    *,
    kind: str = "flat",
    storage: str = "float32",
    refine: str | None = None,
    **numbers: Any,
) -> Spec:
    """The concrete index for `rows` vectors; raises ConfigurationError for what does not exist.

    `refine` None means float16 where the index stores int8, pq or pq4, else none; 'pq4' needs a
    finer copy. 'lists' 0 means about 2 · sqrt(rows).
    """
    if kind not in KINDS:
        raise ConfigurationError(f"unknown dense index '{kind}'; use one of {', '.join(KINDS)}")
    if storage not in STORED_AS[kind]:
        raise ConfigurationError(
            f"'{kind}' does not store vectors as '{storage}'; use {_or(STORED_AS[kind])}"
        )
    if refine is None:
        coarse = storage in ("int8", "pq", "pq4") and kind != "flat"
        refine = "float16" if coarse else NO_REFINE
    if refine not in (NO_REFINE, *STORAGE) or (kind == "flat" and refine != NO_REFINE):
        known = _or((NO_REFINE, *STORAGE)) if kind != "flat" else "only 'none' with 'flat'"
        raise ConfigurationError(f"'refine={refine}' does not go with '{kind}'; use {known}")
    if storage == "pq4" and (refine == NO_REFINE or dimension % 2):
        raise ConfigurationError(
            "'pq4' needs a finer copy and an even number of dimensions; use refine=float16, or"
            " store int8"
        )
    known_numbers = {"flat": {}, "hnsw": HNSW_DEFAULTS, "ivf": IVF_DEFAULTS}[kind]
    if storage == "pq":
        known_numbers = {**known_numbers, "pq_bytes": max(1, math.gcd(dimension, dimension // 8))}
    for name, value in numbers.items():
        if name not in known_numbers or not isinstance(value, int) or value < 1:
            names = ", ".join(known_numbers) or "none"
            raise ConfigurationError(f"'{name}={value}' is no option of '{kind}' (known: {names})")
    chosen = {**known_numbers, **numbers}
    if storage == "pq" and dimension % chosen["pq_bytes"]:
        raise ConfigurationError(
            f"pq_bytes={chosen['pq_bytes']} does not divide the {dimension} dimensions; choose one"
            " that does"
        )
    if kind == "ivf":
        chosen["lists"] = min(chosen["lists"] or _usual_lists(rows), max(1, rows))
    return Spec(kind, dimension, storage, refine, chosen)


def resolve(reference: Mapping[str, Any], measured: Mapping[str, Any], path: str) -> Spec:
    """The concrete index of a manifest: what `reference` says, or for 'auto' what was chosen, with
    tuned search options. Raises BundleMixed where the manifest does not say.
    """
    said = dict(measured["chosen"]) if "chosen" in measured else dict(reference)
    said |= measured.get("search", {})
    try:
        spec = spec_of(said)
        needed = {"hnsw": HNSW_DEFAULTS, "ivf": IVF_DEFAULTS}.get(spec.kind, {})
        if spec.kind not in KINDS or any(name not in spec.numbers for name in needed):
            raise KeyError(spec.kind)
    except KeyError as error:
        raise BundleMixed(
            f"the manifest does not say which index {path} is ({error}); build the bundle again"
        ) from None
    return spec


def spec_of(reference: Mapping[str, Any]) -> Spec:
    """The index that `reference` describes; KeyError where it describes none."""
    fixed = ("kind", "dimension", "metric", "storage", "refine", "recall_target")
    return Spec(
        reference["kind"],
        reference["dimension"],
        reference.get("storage", "float32"),
        reference.get("refine", NO_REFINE),
        {name: value for name, value in reference.items() if name not in fixed},
    )


def _usual_lists(rows: int) -> int:
    return max(1, min(round(2 * math.sqrt(rows)), rows // TRAINING_PER_LIST))


def _or(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
