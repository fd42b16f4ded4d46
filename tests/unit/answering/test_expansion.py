"""Queries out of replies, however the model puts them; and what happens without a reply."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import AsyncIterator, Callable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.answering.expansion import DEADLINE_SHARE, MAX_REPLY_CHARS, Expanded, SearchText, expand
from rag.answering.expansion_prompts import MAX_TURN_CHARS, MAX_TURNS, PROMPTS, Method
from rag.answering.expansion_replies import (
    MAX_PASSAGE_CHARS,
    MAX_QUERY_CHARS,
    keeps_language,
    read_passage,
    read_queries,
)
from rag.errors import GeneratorUnavailable
from rag.models.generator import Delta, Prompt
from rag.types import Message

METHODS: tuple[Method, ...] = ("rewrite", "multi", "hyde", "decompose")
QUESTION = "How many days off do I get?"
HISTORY = [Message("user", "Tell me of leave."), Message("assistant", "There are 15 days.")]


class Scripted:
    """A generator that says what it is told to, and keeps what it was asked."""

    name = "scripted"

    def __init__(self, *says: str | Callable[[], None]) -> None:
        self.says = says
        self.asked: list[Prompt] = []
        self.deadlines: list[float] = []
        self.closed = False

    async def stream(self, prompt: Prompt, *, deadline: float) -> AsyncIterator[Delta]:
        self.asked.append(prompt)
        self.deadlines.append(deadline)
        try:
            for part in self.says:
                await anyio.sleep(0)
                if isinstance(part, str):
                    yield Delta(part)
                else:
                    part()
        finally:
            self.closed = True

    async def aclose(self) -> None:
        pass


def expanded(
    method: Method, generator: Scripted, query: str = QUESTION, left_s: float = 60.0
) -> Expanded:
    async def run() -> Expanded:
        return await expand(
            query, HISTORY, method=method, generator=generator,
            deadline=time.monotonic() + left_s,
        )  # fmt: skip

    return anyio.run(run)


def texts(made: Expanded) -> list[str]:
    return [search.text for search in made.searches]


@pytest.mark.parametrize(
    ("reply", "queries"),
    [
        ("annual leave days\nvacation entitlement", ["annual leave days", "vacation entitlement"]),
        ("1. annual leave\n2) vacation\n(3) holidays", ["annual leave", "vacation", "holidays"]),
        ("- annual leave\n* vacation\n• holidays", ["annual leave", "vacation", "holidays"]),
        ("[1] annual leave\n[2] vacation", ["annual leave", "vacation"]),
        ("Here are three:\n\nannual leave", ["annual leave"]),
        ("Query 1: annual leave\nRewritten query: vacation", ["annual leave", "vacation"]),
        ('"annual leave"\n“vacation”\n`holidays`', ["annual leave", "vacation", "holidays"]),
        ("**annual leave**", ["annual leave"]),
        ('["annual leave", "vacation"]', ["annual leave", "vacation"]),
        ('{"queries": ["annual leave"]}', ["annual leave"]),
        ('```json\n["annual leave"]\n```', ["annual leave"]),
        ("```\nannual leave\n```", ["annual leave"]),
        ('[\n  "annual leave",\n  "vacation', ["annual leave", '"vacation']),
        ("<think>What is leave?\nHm.</think>\nannual leave", ["annual leave"]),
        ("annual leave\nAnnual  Leave?\nvacation", ["annual leave", "vacation"]),
        (f"annual leave\n{QUESTION.upper()}", ["annual leave"]),
        ("a1\nb2\nc3\nd4\ne5", ["a1", "b2", "c3"]),
        ("annual\u0000 le\ue000ave\u2028vacation", ["annual leave", "vacation"]),
        ("annual\ud800 leave\udfff", ["annual leave"]),
        ("휴가 일수\nannual leave", ["annual leave"]),
        (QUESTION, []),
        ("", None),
        (" \n\n", None),
        ("1.\n2.\n--", None),
        ("<think>never ends", None),
        ("[1, 2]", None),
        ('{"answer": "15 days"}', None),
        ('{"queries": "annual leave"}', None),
        ("x" * 301, None),
        ("[" * 8000, None),
    ],
)
def test_replies_are_read_strictly(reply: str, queries: list[str] | None) -> None:
    assert read_queries(reply, QUESTION, 3) == queries


def test_korean_replies() -> None:
    reply = "1. 연차 휴가는 며칠인가요?\n2. 질문: 유급 휴가 일수\n3. annual leave\n4. 「휴가 규정」"
    expected = ["연차 휴가는 며칠인가요?", "유급 휴가 일수", "휴가 규정"]
    assert read_queries(reply, "휴가는 며칠이죠?", 4) == expected
    decomposed = unicodedata.normalize("NFD", "유급 휴가 일수")
    assert read_queries(decomposed, "휴가는 며칠이죠?", 4) == ["유급 휴가 일수"]


@pytest.mark.parametrize(
    ("question", "text", "kept"),
    [
        ("휴가는 며칠?", "연차 일수", True),
        ("휴가는 며칠?", "days of leave", False),
        ("SageMaker endpoint의 로그는?", "SageMaker endpoint 로그 위치", True),
        ("SageMaker endpoint의 로그는?", "SageMaker endpoint log location", False),
        ("Where are the logs?", "로그 위치", False),
        ("Where are the logs?", "log location", True),
        ("What does 연차 mean in the rules?", "the meaning of annual leave", True),
        ("role of α-synuclein in disease", "alpha-synuclein and disease", True),
        ("休暇は何日ですか", "年次休暇の日数", True),
        ("休暇は何日ですか", "days of leave", False),
        ("Где журналы?", "where are the logs", False),
        ("2024?", "무엇이든 anything", True),
    ],
)
def test_the_language_of_the_question_is_kept(question: str, text: str, kept: bool) -> None:
    assert keeps_language(question, text) is kept


def test_a_passage_is_one_paragraph_of_bounded_length() -> None:
    assert (
        read_passage("You get\n15 days.\n\nAsk early.", QUESTION) == "You get 15 days. Ask early."
    )
    assert read_passage('"You get 15 days."', QUESTION) == "You get 15 days."
    assert read_passage("연차는 15일입니다.", QUESTION) is None
    assert read_passage("<think>hm</think> … ", QUESTION) is None
    long = read_passage("leave days " * 1000, QUESTION)
    assert long is not None
    assert MAX_PASSAGE_CHARS - 20 < len(long) <= MAX_PASSAGE_CHARS
    assert long.split()[-1] in ("leave", "days")


@given(st.text(alphabet=st.characters(), max_size=400), st.sampled_from([QUESTION, "휴가?", "[1]"]))
def test_whatever_is_said_gives_clean_text_or_nothing(reply: str, question: str) -> None:
    found = [*(read_queries(reply, question, 3) or []), read_passage(reply, question)]
    for text in found:
        if text is not None:
            assert text == " ".join(text.split())
            assert any(c.isalnum() for c in text)
            assert unicodedata.is_normalized("NFC", text)
            text.encode("utf-8")


def test_each_method_keeps_its_promise() -> None:
    reply = "annual leave\nvacation days\nholidays a year\ndays off\npaid leave\nabsence"
    assert texts(expanded("rewrite", Scripted(reply))) == ["annual leave"]
    for method, most in (("multi", 3), ("decompose", 4)):
        made = expanded(method, Scripted(*reply))
        assert texts(made) == [QUESTION, *reply.split("\n")[:most]]
        assert made.notes == ()
    made = expanded("hyde", Scripted("Everyone gets 15 days."))
    assert made.searches == (SearchText(QUESTION), SearchText("Everyone gets 15 days.", True))


def test_a_question_that_is_repeated_is_enough() -> None:
    for method in ("rewrite", "multi", "decompose"):
        assert expanded(method, Scripted(QUESTION)) == Expanded((SearchText(QUESTION),))


def test_the_prompt_shows_the_end_of_the_conversation() -> None:
    generator = Scripted("q")
    history = [Message("user", f"turn {i} " + "y" * 2000) for i in range(MAX_TURNS + 3)]

    async def run(method: Method) -> None:
        await expand(
            "그럼 {이것}은?", history, method=method, generator=generator,
            deadline=time.monotonic() + 60,
        )  # fmt: skip

    for method in METHODS:
        anyio.run(run, method)
        prompt = generator.asked[-1]
        system, user = prompt.messages
        assert (system.role, user.role) == ("system", "user")
        assert system.content == PROMPTS[method].system
        assert "{" not in system.content
        assert "language of the question" in system.content
        assert user.content.endswith("\n\nQuestion: 그럼 {이것}은?")
        assert "turn 2 " not in user.content
        assert "turn 3 " in user.content
        assert len(user.content) < MAX_TURNS * (MAX_TURN_CHARS + 20) + 100
        assert prompt.max_tokens == PROMPTS[method].max_tokens


def fail() -> None:
    raise GeneratorUnavailable("generator endpoint refused")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ((fail,), "generator endpoint refused"),
        (("annual ", fail), "generator endpoint refused"),
        (("…",), "the generator's reply holds no"),
        (("모든 직원은 15일",), "the generator's reply holds no"),
    ],
)
def test_failures_leave_the_query_and_a_note(
    method: Method, says: tuple[str | Callable[[], None], ...], reason: str
) -> None:
    generator = Scripted(*says)
    made = expanded(method, generator)
    assert made.searches == (SearchText(QUESTION),)
    assert len(made.notes) == 1
    assert made.notes[0].startswith(f"{method}: {reason}")
    assert "\n" not in made.notes[0]
    assert generator.closed


def test_only_a_share_of_the_deadline_is_spent() -> None:
    generator = Scripted("q")
    before = time.monotonic()
    expanded("multi", generator, left_s=100.0)
    after = time.monotonic()
    share = 100.0 * DEADLINE_SHARE
    assert before + share <= generator.deadlines[0] <= after + share


def test_an_expired_deadline_asks_for_nothing_more() -> None:
    def never() -> None:
        raise AssertionError

    made = expanded("multi", Scripted(never), left_s=-1.0)
    assert made.searches == (SearchText(QUESTION),)
    assert "share of the deadline" in made.notes[0]


def test_an_endless_reply_is_stopped() -> None:
    lines = "annual leave\n" * 10
    generator = Scripted(*[lines] * 100, fail)
    assert 100 * len(lines) > MAX_REPLY_CHARS
    assert texts(expanded("multi", generator)) == [QUESTION, "annual leave"]
    assert generator.closed


def test_a_query_that_is_an_essay_is_not_expanded() -> None:
    generator = Scripted("annual leave")
    made = expanded("multi", generator, query="a " * MAX_QUERY_CHARS)
    assert generator.asked == []
    assert made.notes[0].startswith("multi: the query is longer than 2000 characters")
