from __future__ import annotations

import copy
import logging
import subprocess
import sys
import threading
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import BundleMismatch, ConfigurationError
from rag.index import analyzer as module
from rag.index.analysis import korean
from rag.index.analyzer import NAMES, Analyzer, analyzer_from_reference, make_analyzer


@pytest.fixture(scope="module")
def auto() -> Analyzer:
    return make_analyzer()


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The SIGTERM handlers", ["sigterm", "handler"]),
        ("nDCG@10", ["ndcg", "dcg", "10"]),
        ("all-MiniLM-L6-v2", ["minilm", "mini", "lm", "l6", "v2"]),
        ("GET /ping", ["get", "ping"]),
        ("k1=1.5", ["k1", "1.5"]),
        ("read_only __init__", ["read_only", "read", "init"]),
        ("IndexFlatIP", ["indexflatip", "index", "flat", "ip"]),
        ("DNAs mRNA", ["dnas", "mrna", "rna"]),
        ("1,000 1,2-dichloro 3.11.2 v2.1", ["1000", "1", "2", "dichloro", "3.11.2", "v2.1"]),
        ("C++ and C# but F1# x+y", ["c++", "c#", "f1", "x", "y"]),
        ("U.S.A. e.g. node.js", ["usa", "eg", "node", "js"]),
        ("O’Brien's McDonald's y'all", ["obrien", "brien", "mcdonald", "mc", "donald", "yall"]),
        ("Don’t ask what I'll do; she'll be ill in a shell", ["ask", "ill", "shell"]),
        ("What does WHO say? IT and US, who it was", ["who", "say", "it", "us"]),
        ("café NAÏVE Straße Łódź Ærø", ["cafe", "naiv", "strass", "lodz", "aero"]),
        ("ＦＵＬＬ ﬁne", ["full", "fine"]),
        ("Москва й हिन्दी", ["москва", "й", "हिन्दी"]),
        ("to be or not to be", []),
        ("", []),
        ("___ … !?", []),
        ("東京タワー・漢", ["東京", "京タ", "タワ", "ワー", "漢"]),
    ],
)
def test_words(auto: Analyzer, text: str, terms: list[str]) -> None:
    assert auto.terms(text) == terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("서울에서 열린 워크숍", ["서울", "열리", "워크숍"]),
        ("예뻤던 꽃들이 피었습니다", ["예쁘", "꽃", "피"]),
        ("아름다운 사람을 도왔다", ["아름답", "사람", "돕"]),
        ("2024년에 RAG를 시작했다", ["2024", "rag", "년", "시작"]),
    ],
)
def test_kiwi_keeps_stems_and_drops_particles(auto: Analyzer, text: str, terms: list[str]) -> None:
    kiwi = make_analyzer("auto", korean="kiwi")
    assert kiwi.terms(text) == terms
    assert kiwi.terms(unicodedata.normalize("NFD", text)) == terms
    assert auto.terms(text)[: len(terms)] == terms  # then come the bigrams


def test_inflections_of_one_word_meet(auto: Analyzer) -> None:
    forms = ["검색했다", "검색을", "검색이라는", "검색하면"]
    assert all("검색" in auto.terms(form) for form in forms)


def test_the_other_analyzers() -> None:
    text = "The Runners 한국어 漢字"
    assert make_analyzer("whitespace").terms(text) == ["the", "runners", "한국어", "漢字"]
    assert make_analyzer("english").terms(text) == ["runner", "한국어", "漢字"]
    assert make_analyzer("cjk").terms(text) == ["runner", "漢字", "한국", "국어"]
    assert make_analyzer("korean").terms(text) == ["runner", "漢字", "한국어", "한국", "국어"]
    assert make_analyzer("auto", korean="kiwi").terms("한국어를") == ["한국어"]
    assert make_analyzer("auto").terms("한국어를") == ["한국어", "한국", "국어", "어를"]
    plain = make_analyzer("english", stemmer="none", stopwords="none")
    assert plain.terms(text)[:2] == ["the", "runners"]
    assert make_analyzer("english", stemmer="german").terms("Häuser") == ["haus"]


def test_korean_that_is_there_twice_counts_half(auto: Analyzer) -> None:
    assert [auto.weight(term) for term in ("한국어", "한국", "runner", "漢字")] == [0.5, 0.5, 1, 1]
    assert make_analyzer("cjk").weight("한국") == make_analyzer("whitespace").weight("한국어") == 1


def test_batch_equals_one_by_one(auto: Analyzer) -> None:
    texts = [
        "한국의 수도는 서울",
        "plain text",
        "",
        "서울 Seoul 首都",
        "한 줄\nan English line\n두 줄",
    ]
    assert auto.batch(texts) == [auto.terms(text) for text in texts]
    assert auto.batch([]) == []


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_has_clean_terms(text: str) -> None:
    for name in ("cjk", "english", "whitespace"):
        analyzer = make_analyzer(name)
        terms = analyzer.terms(text)
        assert terms == make_analyzer(name).terms(text)
        assert all(terms)
        assert all(not any(c.isspace() for c in term) for term in terms)
        if name != "whitespace":
            assert all(len(term) <= 64 for term in terms)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a.b",
        "1.5",
        "1,000",
        "aB",
        "a'",
        "_a",
        "a_",
        "漢",
        "é",
        "a\u0301",
        "1.a",
        "C++",
        "한글",
    ],
)
def test_a_megabyte_without_spaces(piece: str) -> None:
    terms = make_analyzer("cjk").terms(piece * (1_000_000 // len(piece)))
    assert all(len(term) <= 64 for term in terms)


def test_threads_agree(auto: Analyzer) -> None:
    texts = [f"검색 {i}번째 질문은 running tests {i}" for i in range(40)]
    expected = auto.batch(texts)
    wrong: list[int] = []

    def analyse(number: int) -> None:
        if [auto.terms(text) for text in texts] != expected:
            wrong.append(number)

    threads = [threading.Thread(target=analyse, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_hash_seed_changes_nothing() -> None:
    code = (
        "from rag.index.analyzer import make_analyzer\n"
        "print(make_analyzer('cjk').terms('The quick ReadOnly fox 한국어 x_y 1,000'))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(said) == 1


# ---- references ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hangul", [True, False])
def test_a_reference_rebuilds_its_analyzer(name: str, hangul: bool) -> None:
    made = make_analyzer(name)
    again = analyzer_from_reference(made.reference(hangul=hangul))
    texts = ["The café's nDCG@10", "漢字 text"] + (["한국어를 분석한다"] if hangul else [])
    assert again.batch(texts) == made.batch(texts)
    assert again.name == name


def test_the_reference_tells_whether_korean_was_seen() -> None:
    made = make_analyzer()
    made.terms("only English")
    assert made.reference()["scripts"] == []
    assert "kiwipiepy" not in made.reference()["components"]
    made.batch(["한국어"])
    assert made.reference()["scripts"] == ["Hang"]
    assert {"kiwipiepy", "kiwipiepy_model", "PyStemmer"} <= set(made.reference()["components"])
    assert any("서울" in terms for _, terms in made.reference()["goldens"])


def test_halfwidth_hangul_counts_as_seen() -> None:
    made = make_analyzer("cjk")
    made.terms("\uffa1\uffc2")  # half-width letters that NFKC turns into a syllable
    assert made.hangul_seen


def test_without_korean_in_the_corpus_kiwi_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = make_analyzer().reference(hangul=False)
    monkeypatch.setattr(korean, "is_installed", lambda: False)
    analyzer = analyzer_from_reference(reference)
    assert analyzer.terms("검색 search") == ["search"]


def test_kiwi_is_loaded_only_for_hangul() -> None:
    code = (
        "import sys\n"
        "from rag.index.analyzer import analyzer_from_reference, make_analyzer\n"
        "a = make_analyzer(); a.terms('plain 漢字'); analyzer_from_reference(a.reference())\n"
        "assert not {'kiwipiepy', 'numba', 'torch'} & set(sys.modules), 'loaded too early'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_component_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = make_analyzer().reference(hangul=True)
    monkeypatch.setattr(korean, "is_installed", lambda: False)
    with pytest.raises(BundleMismatch, match=r"rag-containers\[korean\]"):
        analyzer_from_reference(reference)
    with pytest.raises(ConfigurationError, match=r"rag-containers\[korean\]"):
        make_analyzer("korean")
    with pytest.raises(ConfigurationError, match=r"rag-containers\[korean\]"):
        make_analyzer("auto", korean="kiwi")


def test_auto_without_kiwi_warns_once_and_records_bigrams(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(korean, "is_installed", lambda: False)
    with caplog.at_level(logging.WARNING, logger=module.__name__):
        made = make_analyzer()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert made.reference()["options"]["korean"] == "bigram"
    assert made.terms("한국어") == ["한국", "국어"]


def changed(reference: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**copy.deepcopy(reference), **fields}


def test_other_terms_are_refused(auto: Analyzer) -> None:
    reference = auto.reference(hangul=True)
    goldens = copy.deepcopy(reference["goldens"])
    goldens[-1][1].append("없는말")
    components = {**reference["components"], "kiwipiepy": "0.1"}
    with pytest.raises(BundleMismatch) as caught:
        analyzer_from_reference(changed(reference, goldens=goldens, components=components))
    assert "없는말" in str(caught.value)
    assert "kiwipiepy 0.1, here" in str(caught.value)
    assert "\n" not in str(caught.value)
    options = {**reference["options"], "stemmer": "none"}
    with pytest.raises(BundleMismatch, match="other terms"):
        analyzer_from_reference(changed(reference, options=options))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "chinese"},
        {"version": 99},
        {"options": {"stemmer": "klingon", "stopwords": "none"}},
    ],
)
def test_references_from_elsewhere_are_refused(auto: Analyzer, fields: dict[str, Any]) -> None:
    with pytest.raises(BundleMismatch):
        analyzer_from_reference(changed(auto.reference(hangul=False), **fields))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("chinese", {}, "unknown analyzer 'chinese'"),
        ("english", {"stemmer": "klingon"}, "unknown stemmer 'klingon'"),
        ("english", {"stopwords": "all"}, "unknown stop words 'all'"),
        ("english", {"korean": "kiwi"}, "no option 'korean'"),
        ("cjk", {"korean": "kiwi"}, "no option 'korean'"),
        ("auto", {"korean": "mecab"}, "unknown korean 'mecab'"),
        ("whitespace", {"stemmer": "none"}, "no option 'stemmer'"),
    ],
)
def test_bad_options(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_analyzer(name, **options)


def test_words_are_the_terms_without_bigrams_beside_morphemes() -> None:
    analyzer = make_analyzer("auto")
    assert analyzer.words("연차 휴가는 며칠인가요?") == ["연차", "휴가", "며칠"]
    assert analyzer.words("the limit of 검색") == ["limit", "검색"]
    english = make_analyzer("english")
    assert english.words("limits 검색") == english.terms("limits 검색")
