from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer.spool import Spool
from rag.types import Chunk


def chunks(doc_id: str, count: int) -> list[Chunk]:
    return [
        Chunk(
            doc_id=doc_id, uri=f"u/{doc_id}", title="제목", text=f"{doc_id} {i} 본문", start=i,
            end=i + 9, page=i or None, headings=("A", "나"), context="ctx" if i else "",
            lang="ko", format="md", metadata={"n": 1, "tags": ["x"]},
        )
        for i in range(count)
    ]  # fmt: skip


def test_chunks_come_back_whole_in_the_order_of_their_ids(tmp_path: Path) -> None:
    added = chunks("a", 40) + chunks("b", 40)
    with Spool(tmp_path / "spool") as spool:
        spool.add(added[:40], np.arange(40))
        spool.add([], np.zeros(0, dtype=np.int64))
        spool.add(added[40:], np.arange(40, 80))
        with pytest.raises(RuntimeError, match="finish"):
            spool.chunk(0)
        spool.finish()
        assert len(spool) == 80
        assert spool.chunk(41) == added[41]
        assert [spool.indexed_text(i) for i in (0, 1)] == [c.indexed_text for c in added[:2]]
        ordered = list(spool.in_row_order())
        assert ordered == sorted((c.chunk_id, c) for c in added)
        assert spool.tokens.tolist() == list(range(80))


def test_an_empty_spool(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool") as spool:
        spool.finish()
        assert len(spool) == 0
        assert list(spool.in_row_order()) == []
