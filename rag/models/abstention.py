"""How an answer says that the passages hold no answer, in the language of the question."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

QuestionLanguage = Literal["en", "ko"]

ABSTENTIONS: Mapping[QuestionLanguage, str] = {
    "en": "The indexed documents do not answer this question.",
    "ko": "색인된 문서에는 이 질문에 대한 답이 없습니다.",
}

_WORD = re.compile(r"[^\W\d_]+")
_HANGUL = re.compile(r"[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]")
_ENGLISH = (
    "a an the is are was were do does did can could should what which who whom whose when where "
    "why how of for to in on at by with from please tell explain mean means"
)
_ENGLISH_FUNCTION_WORDS = frozenset(_ENGLISH.split())


def question_language(text: str) -> QuestionLanguage:
    """'ko' for a question asked in Korean, else 'en'.

    Korean questions are full of English names, so one Hangul word decides, unless English
    function words show an English sentence around it; then the majority of words decides.
    """
    words = _WORD.findall(text)
    korean = sum(1 for word in words if _HANGUL.search(word))
    if not korean:
        return "en"
    is_english_around = any(word.lower() in _ENGLISH_FUNCTION_WORDS for word in words)
    return "en" if is_english_around and korean * 2 <= len(words) else "ko"


def abstention(question: str) -> str:
    """The sentence that declines to answer `question`, in its language."""
    return ABSTENTIONS[question_language(question)]


def is_abstention(answer: str) -> bool:
    """Whether `answer` is one of the abstention sentences, give or take case, space and marks."""
    said = _letters(answer)
    return any(said == _letters(sentence) for sentence in ABSTENTIONS.values())


def _letters(text: str) -> str:
    return "".join(_WORD.findall(text)).lower()
