from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rag.models.batches import packed_batches

LENGTHS = st.lists(st.integers(0, 300), max_size=80)


@given(LENGTHS, st.integers(1, 2000), st.integers(1, 400))
def test_packed_batches_hold_every_text_once_longest_first(
    given_lengths: list[int], most: int, run_tokens: int
) -> None:
    lengths = np.array(given_lengths, dtype=np.int64)
    batches = list(packed_batches(lengths, most, run_tokens))
    assert sorted(np.concatenate([np.empty(0, np.int64), *batches]).tolist()) == list(
        range(len(lengths))
    )
    for batch in batches:
        assert (np.diff(lengths[batch]) <= 0).all()
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= most
    if batches:
        assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()


def test_packed_batches_share_their_tokens_evenly() -> None:
    lengths = np.array([10] * 60, dtype=np.int64)
    assert [len(batch) for batch in packed_batches(lengths, 8192, 256)] == [29, 31]
    # Less than one and a half runs are one.
    assert [len(batch) for batch in packed_batches(lengths[:38], 8192, 256)] == [38]
    assert list(packed_batches(lengths[:0], 8192, 256)) == []
