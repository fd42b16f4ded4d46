from __future__ import annotations

import pytest

from indexer.parsing.language import document_language, language_code

KOREAN = "검색 증강 생성은 문서를 찾아 답을 만든다."
ENGLISH = "The index is built from the documents, and it is read by the service."


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        (KOREAN, "ko"),
        (KOREAN + " FAISS BM25 SageMaker Kubernetes", "ko"),
        (ENGLISH, "en"),
        (ENGLISH + " 한국", "en"),
        ("これは日本語の文章です。東京都", "ja"),
        ("这是一个中文文档。", "zh"),
        ("Это русский текст", "ru"),
        ("Це український текст їжак", "uk"),
        ("هذا نص عربي", "ar"),
        ("این یک متن فارسی است پژوهش", "fa"),
        ("זה טקסט בעברית", "he"),
        ("Αυτό είναι ελληνικά", "el"),
        ("นี่คือข้อความภาษาไทย", "th"),
        ("यह हिन्दी है", "hi"),
        ("Der Hund liegt unter dem Tisch und schläft", "und"),
        ("1234 5678", "und"),
        ("", "und"),
    ],
)
def test_detected_by_script_and_english_by_its_words(text: str, lang: str) -> None:
    assert document_language(None, text) == lang


@pytest.mark.parametrize(
    ("declared", "text", "lang"),
    [
        ("de-DE", "Der Hund liegt unter dem Tisch", "de"),
        ("ko_KR", KOREAN, "ko"),
        ("en", KOREAN, "ko"),
        ("ko", ENGLISH, "en"),
        ("ko", ENGLISH * 5 + " 한국", "en"),
        ("ko", KOREAN + ENGLISH, "ko"),
        ("uk", "Это текст", "uk"),
        ("ja", "東京都", "ja"),
        ("kor", "1", "ko"),
        ("nonsense", KOREAN, "ko"),
        ("", ENGLISH, "en"),
    ],
)
def test_declared_is_believed_unless_the_script_refutes_it(
    declared: str, text: str, lang: str
) -> None:
    assert document_language(declared, text) == lang


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("KO", "ko"),
        ("en-US", "en"),
        ("zh_Hant_TW", "zh"),
        ("eng", "en"),
        ("xyz", None),
        (None, None),
    ],
)
def test_language_code(tag: str | None, code: str | None) -> None:
    assert language_code(tag) == code
