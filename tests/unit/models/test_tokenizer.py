from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import ConfigurationError
from rag.models.encoder import resolve
from rag.models.tokenizer import Tokenizer

TEXTS = ["hello world", "", "안녕하세요, 검색 시스템입니다.", "word " * 300, "naïve 😀 日本語"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(resolve("default"))


@pytest.fixture(scope="module")
def reference() -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(str(resolve("default")))


def test_counts_are_of_whole_texts_with_special_tokens(
    tokenizer: Tokenizer, reference: Any
) -> None:
    expected = [len(reference(text, truncation=False)["input_ids"]) for text in TEXTS]
    assert tokenizer.count(TEXTS).tolist() == expected
    assert tokenizer.count(TEXTS).dtype == np.int64
    assert tokenizer.count(["", "word " * 300]).tolist() == [2, 302]
    assert tokenizer.special == 2
    assert tokenizer.count([]).shape == (0,)


def test_many_texts_count_as_one_by_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.count(TEXTS * 40).tolist() == tokenizer.count(TEXTS).tolist() * 40


@pytest.mark.parametrize("max_tokens", [3, 8, 256, 512])
def test_inputs_are_cut_as_transformers_cuts_them(
    tokenizer: Tokenizer, reference: Any, max_tokens: int
) -> None:
    tokens = tokenizer.encode(TEXTS, max_tokens)
    expected = reference(
        TEXTS, truncation=True, max_length=max_tokens, padding=True, return_tensors="np"
    )
    assert np.array_equal(tokens.ids, expected["input_ids"])
    assert np.array_equal(tokens.mask, expected["attention_mask"])
    assert np.array_equal(tokens.type_ids, expected["token_type_ids"])
    assert {array.dtype for array in tokens} == {np.dtype(np.int64)}


def test_no_state_is_left_by_a_call(tokenizer: Tokenizer) -> None:
    before = tokenizer.count(TEXTS).tolist()
    tokenizer.encode(TEXTS, 5)
    assert tokenizer.count(TEXTS).tolist() == before
    assert len(tokenizer.offsets(TEXTS[3])) == 300


def test_offsets_are_characters(tokenizer: Tokenizer) -> None:
    text = "😀 Hello, 검색 world"
    offsets = tokenizer.offsets(text)
    assert offsets.dtype == np.int64
    pieces = [text[start:end] for start, end in offsets]
    assert {"Hello", ",", "world"} <= set(pieces)
    # The tokenizer takes syllables apart, but each piece points at whole characters.
    assert {"검", "색"} <= set(pieces)
    assert (np.diff(offsets[:, 0]) >= 0).all()
    assert tokenizer.offsets("").shape == (0, 2)


def test_no_texts_and_no_room(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([], 8).ids.shape == (0, 0)
    with pytest.raises(ConfigurationError, match="special tokens alone take 2"):
        tokenizer.encode(["x"], 2)


def test_prompt_tokens_count_the_leading_special_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.prompt_tokens("") == 0
    assert tokenizer.prompt_tokens("query: ") == 3


def test_threads_share_one_tokenizer(tokenizer: Tokenizer) -> None:
    def work(n: int) -> list[int]:
        assert tokenizer.encode(TEXTS, 3 + n).ids.shape[1] <= 3 + n
        return tokenizer.count(TEXTS).tolist()

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(64)))
    assert results == [tokenizer.count(TEXTS).tolist()] * 64


def test_lower_casing_in_the_configuration_is_honoured(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    backend = Backend(models.WordLevel({"[UNK]": 0, "hello": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).encode(["HELLO"], 4).ids.tolist() == [[0]]
    (tmp_path / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    assert Tokenizer.load(tmp_path).encode(["HELLO"], 4).ids.tolist() == [[1]]


def test_an_absent_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Tokenizer.load(tmp_path)
