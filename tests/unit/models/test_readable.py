from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers

from rag.models.encoder import resolve
from rag.models.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(resolve("default"))


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Why does the drain handler hang?", 1.0),
        ("café naïve résumé", 1.0),
        ("Straße über Köln", 1.0),
        ("", 1.0),
        ("2024 → 2025 …", 1.0),
        ("배포를 롤백하는 방법", 0.0),
        ("Привет мир", 0.0),
        ("Ελληνικά", 0.0),
        ("مرحبا بالعالم", 0.0),
        ("東京タワーの高さ", 0.0),
        ("Kubernetes 배포 롤백", 10 / 14),
    ],
)
def test_english_vocabulary_reads_latin_words_alone(
    tokenizer: Tokenizer, text: str, share: float
) -> None:
    assert tokenizer.readable([text])[0] == pytest.approx(share)


def test_each_text_by_itself(tokenizer: Tokenizer) -> None:
    assert tokenizer.readable(["쿼리", "query", ""]).tolist() == [0, 1, 1]
    assert tokenizer.readable([]).shape == (0,)


def made(vocabulary: list[str]) -> Tokenizer:
    ids = {token: i for i, token in enumerate(["[UNK]", *vocabulary])}
    backend = Backend(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(backend)


def test_a_vocabulary_of_syllables_reads_them_one_by_one() -> None:
    syllables = [chr(0xAC00 + i) for i in range(2500)]
    korean = made([*syllables, *("##" + s for s in syllables)])
    assert korean.readable(["가나 각간", "가나 힣"]).tolist() == pytest.approx([1, 2 / 3])
    few = made([*syllables[:100], *("##" + s for s in syllables[:100])])
    assert few.readable(["가각"])[0] == 0


def test_unknown_words_are_not_read(tmp_path: Path) -> None:
    words = made(["naïve", "über"])
    assert words.readable(["naïve über", "naïve Köln"]).tolist() == pytest.approx([1, 5 / 9])
