from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import BundleCorrupt, BundleMismatch, BundleMissing, ConfigurationError
from rag.models.golden import TEXTS, check_golden, required_cosine, write_golden
from rag.models.load import load_embedder
from rag.models.onnx_embedder import OnnxEmbedder


@pytest.fixture(scope="module")
def embedder(exported_encoder: Path) -> OnnxEmbedder:
    return OnnxEmbedder(exported_encoder)


@pytest.fixture
def copy(exported_encoder: Path, tmp_path: Path) -> Path:
    shutil.copy(exported_encoder / "golden.json", tmp_path)
    return tmp_path


def alter(folder: Path, **changes: Any) -> None:
    path = folder / "golden.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_exported_vectors_pass(embedder: OnnxEmbedder, exported_encoder: Path) -> None:
    worst = check_golden(embedder, exported_encoder, min_cosine=required_cosine("float32", {}))
    assert 0.9999 <= worst <= 1.0001


def test_writing_is_deterministic_and_has_a_dozen_texts(
    embedder: OnnxEmbedder, tmp_path: Path
) -> None:
    write_golden(embedder, tmp_path)
    first = (tmp_path / "golden.json").read_bytes()
    write_golden(embedder, tmp_path)
    assert (tmp_path / "golden.json").read_bytes() == first
    assert len(TEXTS) == 12
    assert len(json.loads(first)["queries"]) == len(json.loads(first)["passages"]) == 12


@pytest.mark.parametrize("role", ["queries", "passages"])
def test_a_vector_that_differs_is_named(embedder: OnnxEmbedder, copy: Path, role: str) -> None:
    rows = json.loads((copy / "golden.json").read_text())[role]
    rows[list(TEXTS).index("code")] = rows[0]
    alter(copy, **{role: rows})
    with pytest.raises(BundleMismatch, match=f"'code' of the {role}") as caught:
        check_golden(embedder, copy, min_cosine=0.9999)
    assert "\n" not in str(caught.value)


def test_vectors_that_are_not_numbers_do_not_pass(embedder: OnnxEmbedder, copy: Path) -> None:
    nan = base64.b64encode(np.full(384, np.nan, "<f4").tobytes()).decode()
    alter(copy, queries=[nan] * 12)
    with pytest.raises(BundleMismatch):
        check_golden(embedder, copy, min_cosine=0.9)


def test_another_encoder_is_refused(embedder: OnnxEmbedder, copy: Path) -> None:
    encoder = json.loads((copy / "golden.json").read_text())["encoder"]
    alter(copy, encoder={**encoder, "name": "other", "digest": "0" * 64})
    with pytest.raises(BundleMismatch, match="are of other"):
        check_golden(embedder, copy, min_cosine=0.9)


def test_absent_and_damaged_files_are_refused(embedder: OnnxEmbedder, copy: Path) -> None:
    rows = json.loads((copy / "golden.json").read_text())["queries"]
    alter(copy, queries=rows[:-1])
    with pytest.raises(BundleCorrupt):
        check_golden(embedder, copy, min_cosine=0.9)
    (copy / "golden.json").write_text("[]")
    with pytest.raises(BundleCorrupt):
        check_golden(embedder, copy, min_cosine=0.9)
    (copy / "golden.json").unlink()
    with pytest.raises(BundleMissing):
        check_golden(embedder, copy, min_cosine=0.9)


def test_int8_is_held_to_its_measurement() -> None:
    assert required_cosine("int8", {"int8": {"cosine_min": 0.995}}) == pytest.approx(0.985)
    assert required_cosine("bfloat16", {}) == 0.999
    with pytest.raises(ConfigurationError, match="nothing was measured"):
        required_cosine("int8", {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "tensorflow"}, "backend 'tensorflow'"),
        ({"precision": "float16"}, "no precision 'float16'"),
        ({"backend": "torch", "precision": "int8"}, "no precision 'int8'"),
        ({"device": "cuda", "precision": "int8"}, "on cuda in int8, which is for CPUs"),
        ({"device": "cuda:98"}, "run on cuda:98, and this process sees"),
        ({"backend": "torch", "device": "cuda:99"}, "run on cuda:99, and this process sees"),
        ({"speedup": "tensorrt", "backend": "torch"}, "no speed-up 'tensorrt'"),
        ({"backend": "torch", "device": "tpu"}, "device 'tpu'"),
    ],
)
def test_what_cannot_run_is_refused(
    exported_encoder: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_embedder(exported_encoder, **arguments)


def test_onnx_embeds_without_torch_or_sentence_transformers(exported_encoder: Path) -> None:
    program = f"""
        import sys
        from pathlib import Path
        from rag.models.golden import check_golden
        from rag.models.load import load_embedder
        folder = Path({str(exported_encoder)!r})
        embedder = load_embedder(folder, precision="int8", threads=1)
        assert embedder.embed_queries(["계약 해지"]).shape == (1, 384)
        check_golden(embedder, folder, min_cosine=0.9)
        heavy = {{"torch", "transformers", "sentence_transformers", "onnx", "huggingface_hub"}}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
