"""What an extractive answer reads out of a question: its content terms, names, and kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rag.sentences import split_sentences

Terms = Callable[[str], list[str]]

_STOP = (
    "what which who whom whose when where why how many much long often does do did is are was were "
    "be been being can could should would will may might must shall the a an of for to in on at "
    "by with from and or if it its this that these those there i we you my our your me us please "
    "tell explain describe give show mean means happen happens about into than then have has had "
    "s t vs so such any some also "
    "무엇 무어 뭐 뭘 무슨 어떤 어느 어떻게 어떠하 어떻 왜 언제 어디 어디서 누구 누가 얼마 얼마나 "
    "몇 하 하다 되 되다 있 있다 없 없다 이 이다 않 않다 주 주다 수 것 거 등 때 좀 그 저 및 위하 "
    "위하다 대하 대하다 관하 관하다 따르 따르다 알리 알리다 설명 인가 나요 까요 인가요 하나요 "
    "되나요 있나요 은 는 가 을 를 에 에서 의 로 으로 와 과 도 만"
)
_NUMERIC = re.compile(
    r"\bhow (?:many|much|long|often|large|big|fast|quickly|old|far|high)\b|\bwhen\b|\bwhat (?:year|"
    r"date|port|number|percentage|size|version|limit|timeout)|몇|얼마|언제|며칠|크기|개수|포트|버전|"
    r"한도",
    re.IGNORECASE,
)
_PROCEDURE = re.compile(
    r"\bhow (?:do|can|should|to|must)\b|\bsteps?\b|\bprocedure\b|어떻게|방법|절차|단계|순서",
    re.IGNORECASE,
)
# INC-127, CMP_4002, ml.p5.48xlarge, V100; 2.7, 10.0.0.1. Not 30s, 384-dimensional, 10GB.
_IDENTIFIER = re.compile(
    r"(?<![\w.])(?:[A-Za-z][A-Za-z._-]*\d[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*|\d+(?:\.\d+)+)"
)
_NAME = re.compile(r"(?<![\w-])[A-Z][a-z]{2,}[A-Za-z]*")


def content_terms(question: str, terms: Terms) -> frozenset[str]:
    """The question's terms without function words; all of them if nothing else is left."""
    stop = {*_STOP.split(), *terms(_STOP)}
    every = frozenset(terms(question))
    return frozenset(term for term in every if term not in stop) or every


def is_numeric(question: str) -> bool:
    """Whether a number or a date is asked for."""
    return bool(_NUMERIC.search(question))


def is_procedure(question: str) -> bool:
    """Whether steps are asked for."""
    return bool(_PROCEDURE.search(question))


def missing_names(question: str, texts: Sequence[str], terms: Terms) -> list[str]:
    """What the question names and no text mentions: identifiers (INC-127, ml.p5.48xlarge, 2.7) and
    capitalised names inside a sentence (Frankfurt).

    A passage about INC-126 may hold every other word of a question about INC-127, and yet cannot
    answer it. Names are compared as terms, identifiers as they are written, in any case.
    """
    text = "\n".join(texts)
    missing = [
        name
        for name in _IDENTIFIER.findall(question)
        if not re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", text, re.I)
    ]
    starts = {start for start, _ in split_sentences(question)}
    names = [m.group() for m in _NAME.finditer(question) if m.start() not in starts]
    known = set(terms(text)) if names else set()
    return missing + [name for name in names if not set(terms(name)) <= known]
