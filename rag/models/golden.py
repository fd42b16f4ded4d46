"""Golden vectors: proof, at start-up, that an encoder embeds as the indexer's did."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import BundleCorrupt, BundleMismatch, BundleMissing, ConfigurationError
from rag.models.embedder import Embedder
from rag.models.encoder import from_reference, reference
from rag.types import Float32

NAME = "golden.json"
FORMAT = 1
MIN_COSINE = {"float32": 0.9999, "float16": 0.999, "bfloat16": 0.999}
INT8_MARGIN = 0.01
"""Below the cosine measured at export: integer kernels differ a little between processors."""

TEXTS: Mapping[str, str] = {
    "english-question": "How many days of notice does the contract require?",
    "english-statement": "The pump must be primed with clean water before its first start.",
    "english-paragraph": (
        "Retrieval looks for passages by their meaning and by their words. The two lists are"
        " joined by rank, and a second model may read the best of them again. What is shown to"
        " the reader always names the document that it comes from, with the page."
    ),
    "korean-question": "계약을 해지하려면 며칠 전에 알려야 하나요?",
    "korean-statement": "처음 가동하기 전에 펌프에 깨끗한 물을 채워야 합니다.",
    "korean-paragraph": (
        "검색은 뜻과 낱말 두 가지로 문단을 찾는다. 두 목록은 순위로 합쳐지고, 필요하면 다른 모델이"
        " 윗부분을 다시 읽는다. 독자에게 보이는 글에는 언제나 출처 문서와 쪽수가 적혀 있다."
    ),
    "mixed": "API 응답이 HTTP 429이면 Retry-After 값(초)만큼 기다린 뒤 다시 요청하세요.",
    "code": "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)\n",
    "numbers": "2024-03-15 | 1,234.56 EUR | +12.5 % | ISO 9001:2015 | No. 00-417/B",
    "one-word": "hydrology",
    "symbols": "α ≤ β → ∑xᵢ² · “quoted” — naïve café 😀 日本語",
    "long": " ".join(
        f"Section {n}: the valve {n} is checked every {n + 2} weeks. 밸브 {n}번을 점검한다."
        for n in range(1, 61)
    ),
}


def write_golden(embedder: Embedder, folder: Path) -> None:
    """Writes golden.json: the fixed texts as queries and as passages, with their vectors.

    Vectors are base64 of little-endian float32. Equal vectors give equal bytes.
    """
    texts = list(TEXTS.values())
    queries = passages = embedder.embed_queries(texts)
    if embedder.config.prompts["query"] != embedder.config.prompts["passage"]:
        passages = embedder.embed_passages(texts)
    content = {
        "format": FORMAT,
        "encoder": reference(embedder.config),
        "texts": [[name, text] for name, text in TEXTS.items()],
        "queries": _encoded(queries),
        "passages": _encoded(passages),
    }
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, indent=1)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def check_golden(embedder: Embedder, folder: Path, *, min_cosine: float) -> float:
    """The worst cosine between the embedder's vectors and the golden ones in `folder`.

    Raises BundleMismatch where it is below `min_cosine` or the encoder is another one,
    BundleMissing where there is no golden.json, and BundleCorrupt where it cannot be read.
    """
    golden = _read(folder / NAME)
    made_by = from_reference(golden["encoder"], str(folder / NAME))
    if made_by != embedder.config:
        raise BundleMismatch(
            f"the golden vectors in {folder} are of {made_by.name} ({made_by.digest[:12]}), loaded"
            f" is {embedder.config.name} ({embedder.config.digest[:12]}) or other settings of it;"
            " serve the bundle with its own encoder"
        )
    names, texts = zip(*golden["texts"], strict=True)
    worst, where = float("inf"), ""
    queries = passages = embedder.embed_queries(texts)
    if embedder.config.prompts["query"] != embedder.config.prompts["passage"]:
        passages = embedder.embed_passages(texts)
    for role, found in (("queries", queries), ("passages", passages)):
        expected = _decoded(golden[role], (len(texts), made_by.dimension), folder)
        cosines = np.einsum("nd,nd->n", found, expected, dtype=np.float64)
        # A vector that is not a number must not pass as the best of all.
        cosines = np.where(np.isfinite(cosines), cosines, -1.0)
        row = int(cosines.argmin())
        if cosines[row] < worst:
            worst, where = float(cosines[row]), f"{names[row]!r} of the {role}"
    if worst < min_cosine:
        raise BundleMismatch(
            f"the encoder {made_by.name} gives a cosine of {worst:.6f} with the golden vector of"
            f" {where}, at least {min_cosine:.6f} is needed; use the precision and the library"
            " versions that the bundle was built for, or build it again"
        )
    return worst


def required_cosine(precision: str, measured: Mapping[str, Any]) -> float:
    """What `check_golden` should ask of a precision ('float32', 'float16', 'bfloat16', 'int8').

    `measured` is what `export_encoder` returned; int8 is held to its own measurement.
    """
    if precision in MIN_COSINE:
        return MIN_COSINE[precision]
    try:
        return float(measured[precision]["cosine_min"]) - INT8_MARGIN
    except (KeyError, TypeError):
        raise ConfigurationError(
            f"nothing was measured for the precision {precision!r}; export the encoder again"
        ) from None


def _encoded(vectors: Float32) -> list[str]:
    return [base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in vectors]


def _decoded(rows: list[str], shape: tuple[int, int], folder: Path) -> Float32:
    try:
        flat = np.frombuffer(b"".join(base64.b64decode(row) for row in rows), dtype="<f4")
        return flat.reshape(shape).astype(np.float32)
    except (ValueError, TypeError) as error:
        raise BundleCorrupt(f"{folder / NAME} is damaged ({error}); build it again") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        golden = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleMissing(f"there is no {path}; export the encoder again") from None
    except (OSError, ValueError) as error:
        raise BundleCorrupt(f"{path} cannot be read ({error}); build it again") from None
    keys = {"format", "encoder", "texts", "queries", "passages"}
    if not isinstance(golden, dict) or set(golden) != keys or golden["format"] != FORMAT:
        raise BundleCorrupt(f"{path} is not golden vectors of format {FORMAT}; build it again")
    return golden
