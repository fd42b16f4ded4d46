"""The dense leg scores as sentence-transformers scores the same model by itself."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from eval.commands import Target, evaluate_target
from eval.datasets import load_beir

NFCORPUS = Path(__file__).parents[2].parent / "shared" / "data" / "beir" / "nfcorpus"
DOCUMENTS = 200


@pytest.mark.skipif(not NFCORPUS.is_dir(), reason=f"{NFCORPUS} is not there")
def test_ndcg_equals_sentence_transformers(tmp_path: Path, exported_encoder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    folder = _first_documents(tmp_path / "part")
    part = load_beir(folder)
    target = Target(
        dataset=folder, indexing={"encoder": str(exported_encoder)}, running={"backend": "onnx"}
    )
    ours = evaluate_target(target, modes="dense", timed=0, advance=lambda *_: None).result
    evaluator = InformationRetrievalEvaluator(
        {q: part.queries[q] for q in part.judged()},
        {line.doc_id: line.passage for line in part.corpus()},
        {q: {d for d, grade in judged.items() if grade > 0} for q, judged in part.qrels.items()},
        map_at_k=[DOCUMENTS],
        show_progress_bar=False,
        write_csv=False,
    )
    theirs = evaluator(SentenceTransformer(str(exported_encoder), device="cpu"))
    for name, their_name in (
        ("nDCG@10", "cosine_ndcg@10"),
        ("MRR@10", "cosine_mrr@10"),
        ("MAP", f"cosine_map@{DOCUMENTS}"),
        ("P@5", "cosine_precision@5"),
    ):
        assert ours.results["dense"][name] == pytest.approx(theirs[their_name], abs=0.001), name


def _first_documents(folder: Path) -> Path:
    """The first documents of the collection, with their judgements, all of grade 1: the other
    side knows relevant documents, not grades.
    """
    (folder / "qrels").mkdir(parents=True)
    with (NFCORPUS / "corpus.jsonl").open(encoding="utf-8") as file:
        first = list(itertools.islice(file, DOCUMENTS))
    (folder / "corpus.jsonl").write_text("".join(first), "utf-8")
    (folder / "queries.jsonl").write_bytes((NFCORPUS / "queries.jsonl").read_bytes())
    here = {json.loads(line)["_id"] for line in first}
    lines = [
        f"{q}\t{d}\t1\n"
        for q, judged in load_beir(NFCORPUS).qrels.items()
        for d, grade in judged.items()
        if d in here and grade > 0
    ]
    assert len(lines) > 50
    (folder / "qrels" / "test.tsv").write_text("".join(lines), "utf-8")
    return folder
