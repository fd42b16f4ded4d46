from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.models.batches import attention_rows, packed_batches

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


@settings(deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(1, 80))
def test_attention_sees_every_token_once_and_every_text_whole(
    lengths: list[int], places: int
) -> None:
    rows = attention_rows(np.array(lengths, dtype=np.int64), places)
    assert rows.shape[1] == max(max(lengths), min(places, sum(lengths)))
    assert sorted(rows[rows >= 0].tolist()) == list(range(sum(lengths)))
    text = np.repeat(np.arange(len(lengths)), lengths)
    for row in rows:
        kept = row[row >= 0]
        assert (row[: len(kept)] == kept).all()  # what is empty comes last
        for number in np.unique(text[kept]):
            assert (np.diff(np.flatnonzero(text[kept] == number)) == 1).all()
            assert (text[kept] == number).sum() == lengths[number]
    # First fit: no two rows would have fitted into one.
    used = sorted((rows >= 0).sum(axis=1).tolist())
    assert len(used) < 2 or used[0] + used[1] > rows.shape[1]


def test_without_places_each_text_has_a_row() -> None:
    rows = attention_rows(np.array([3, 1, 2], dtype=np.int64), 0)
    assert rows.tolist() == [[0, 1, 2], [3, -1, -1], [4, 5, -1]]
