"""Words that are tokenised once give what the whole text gives."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from rag.models import word_memo
from rag.models.encoder import resolve
from rag.models.word_memo import WordMemo

HOSTILE = (
    *" \n\r\t\x0b\x0c\x1c\x1f\x85\xa0\u200b\u2003\u2028\u3000\ufeff\0\ufffd",  # white, or removed
    *"aB9z.,-'_$[]#", "é", "e\u0301", "\u0301", "İ", "ß", "ﬁ", "한", "\u1112\u1161", "日", "本",
    "😀", "👨\u200d👩", "ก็", "\ud7a3", "word", "##ing", "[MASK]", "[sep]", "x" * 120,
)  # fmt: skip


@pytest.fixture(scope="module")
def backend() -> Tokenizer:
    found = Tokenizer.from_file(str(resolve("default") / "tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    return found


def _expected(backend: Tokenizer, text: str) -> list[int]:
    encoding = backend.encode(text, add_special_tokens=False)
    return list(accumulate((start for start, _ in encoding.offsets), max))


def test_words_give_the_tokens_of_the_text(backend: Tokenizer) -> None:
    memo = WordMemo.of(backend)
    assert memo is not None
    chance = random.Random(7)
    for _ in range(3000):
        text = "".join(chance.choices(HOSTILE, k=chance.randrange(12)))
        expected = _expected(backend, text)
        assert memo.starts(text) == expected, repr(text)
        assert memo.count(text) == len(expected)


def test_a_full_memo_starts_anew(backend: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_memo, "_MEMO_SIZE", 3)
    memo = WordMemo.of(backend)
    assert memo is not None
    text = "unaffable words are many, some of them twice: words"
    for _ in range(3):
        assert memo.starts(text) == _expected(backend, text)
        assert len(memo._memo) <= 3 + 2 * len(text.split())


def _wordpiece(added: AddedToken | None = None) -> Tokenizer:
    found = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if added is not None:
        found.add_tokens([added])
    return found


def test_a_token_that_takes_the_spaces_before_it_begins_there() -> None:
    backend = _wordpiece(AddedToken("<mask>", lstrip=True, normalized=False))
    memo = WordMemo.of(backend)
    assert memo is not None
    for text in ("a  <mask> b", "a<mask>", " <mask>", "a b"):
        assert memo.starts(text) == _expected(backend, text)
        assert memo.count(text) == len(_expected(backend, text))


def test_only_tokenizers_that_read_word_by_word_have_one() -> None:
    assert WordMemo.of(_wordpiece()) is not None
    assert WordMemo.of(_wordpiece(AddedToken("two words"))) is None
    assert WordMemo.of(_wordpiece(AddedToken("<mask>", lstrip=True, normalized=True))) is None
    spaced = _wordpiece()
    spaced.pre_tokenizer = pre_tokenizers.Metaspace()
    assert WordMemo.of(spaced) is None
    lower = _wordpiece()
    lower.normalizer = normalizers.Sequence([normalizers.Lowercase()])
    assert WordMemo.of(lower) is not None
    joined = _wordpiece()
    joined.normalizer = normalizers.Replace(" ", "")
    assert WordMemo.of(joined) is None
    phrases = Tokenizer(models.BPE())
    assert WordMemo.of(phrases) is None
