"""Builds the prompt of one answer: which passages go in, and how they are kept apart."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rag.answering.templates import TEMPLATES, PromptTemplate
from rag.errors import InvalidRequest
from rag.models.abstention import abstention
from rag.models.generator import Prompt
from rag.sentences import split_sentences
from rag.types import Message, Passage

CountTokens = Callable[[str], int]

CUT_MARK = "[… cut here]"
_PER_TURN = 8  # tokens that chat templates put around a turn
_LEAST_ROOM = 64  # tokens; with less there is no use in a passage

# Anything that a reader could take for one of the delimiters, or for a turn of a chat template.
_DELIMITER = re.compile(r"<(?=\s*/?\s*passages?\b|\|)", re.IGNORECASE)
_TURN = re.compile(r"\[(?=/?INST\]|/?SYS)|<(?=/?s>|</?SYS>>|start_of_turn|end_of_turn|im_)")


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` has, erring high: 1 per 3 ASCII characters, else 1 each.

    For endpoints whose tokenizer is not at hand; English runs near 4 characters a token, Hangul
    between 1 and 2.
    """
    ascii_count = sum(1 for c in text if c < "\x80")
    return math.ceil(ascii_count / 3) + len(text) - ascii_count


def build_prompt(
    query: str,
    passages: Sequence[Passage],
    *,
    template: str = "default",
    templates: Mapping[str, PromptTemplate] = TEMPLATES,
    history: Sequence[Message] = (),
    max_context_tokens: int,
    count_tokens: CountTokens | None = None,
    max_tokens: int = 512,
    temperature: float = 0.0,
) -> tuple[Prompt, list[Passage]]:
    """The prompt, and the passages that went into it, by rank.

    `max_context_tokens` is the model's window: prompt and answer together. Where it is short, the
    oldest turns of `history` go first, until the passages have half of what is left; then whole
    passages go, from the last. A first passage too large by itself is cut after a sentence with a
    visible mark; the returned passage then holds just the text that is left.
    Raises InvalidRequest for an unknown template, a bad role in `history`, or a question that
    leaves no room for a passage.
    """
    chosen = find_template(template, templates)
    for turn in history:
        if turn.role not in ("user", "assistant"):
            raise InvalidRequest(f"message role is {turn.role!r}; use 'user' or 'assistant'")
    count = count_tokens or estimate_tokens
    question, decline = _defuse(query.strip()), abstention(query)
    bare = chosen.render(passages="", question=question, abstention=decline)
    room = max_context_tokens - max_tokens - sum(count(part) + _PER_TURN for part in bare)
    if room < _LEAST_ROOM:
        raise InvalidRequest(
            f"question, instructions and max_tokens {max_tokens} leave {max(0, room)} of "
            f"{max_context_tokens} tokens for passages; shorten the question or lower max_tokens"
        )
    turns, room = _recent(history, room, count)
    used, blocks = _fit(sorted(passages, key=lambda p: p.rank), room, count)
    system, user = chosen.render(passages="\n".join(blocks), question=question, abstention=decline)
    messages = (Message("system", system), *turns, Message("user", user))
    return Prompt(query, used, messages, max_tokens, temperature), used


def find_template(name: str, templates: Mapping[str, PromptTemplate]) -> PromptTemplate:
    """The template of that name; raises InvalidRequest that lists those there are."""
    if name not in templates:
        raise InvalidRequest(
            f"prompt template {name!r} does not exist; there are: {', '.join(sorted(templates))}"
        )
    return templates[name]


def _recent(history: Sequence[Message], room: int, count: CountTokens) -> tuple[list[Message], int]:
    """The last turns that fit into half of `room`, beginning with the user's, and what is left."""
    kept: list[Message] = []
    spent = 0
    for turn in reversed(history):
        cost = count(turn.content) + _PER_TURN
        if spent + cost > room // 2:
            break
        kept.insert(0, turn)
        spent += cost
    while kept and kept[0].role != "user":  # chat templates want the user to begin
        spent -= count(kept[0].content) + _PER_TURN
        kept.pop(0)
    return kept, room - spent


def _fit(
    passages: Sequence[Passage], room: int, count: CountTokens
) -> tuple[list[Passage], list[str]]:
    used: list[Passage] = []
    blocks: list[str] = []
    for passage in passages:
        block = _block(passage)
        cost = count(block) + 1
        if cost > room:
            if not used:
                passage, block = _cut(passage, room, count)
                used.append(passage)
                blocks.append(block)
            break
        used.append(passage)
        blocks.append(block)
        room -= cost
    return used, blocks


def _cut(passage: Passage, room: int, count: CountTokens) -> tuple[Passage, str]:
    """The longest whole-sentence beginning that fits (or, of one long sentence, whole words)."""
    chunk = passage.chunk
    ends = [end for _, end in split_sentences(chunk.text)]

    def cut_at(end: int) -> tuple[Passage, str]:
        text = chunk.text[:end].rstrip()
        shorter = replace(chunk, text=text, end=chunk.start + len(text))
        cut = passage._replace(chunk=shorter)
        return cut, _block(cut, mark=CUT_MARK)

    def largest(stops: Sequence[int]) -> int:
        low, high = 0, len(stops)  # stops[:low] fit
        while low < high:
            middle = (low + high) // 2
            if count(cut_at(stops[middle])[1]) + 1 <= room:
                low = middle + 1
            else:
                high = middle
        return stops[low - 1] if low else 0

    end = largest(ends)
    if not end:
        end = largest([m.end() for m in re.finditer(r"\S+", chunk.text)])
    if not end:
        end = largest(range(1, len(chunk.text)))
    return cut_at(end)


def _block(passage: Passage, mark: str = "") -> str:
    """One delimited passage; nothing in the document can end it or open another."""
    chunk = passage.chunk
    path = [chunk.title, *(h for h in chunk.headings if h != chunk.title)]
    source = _attribute(" > ".join(part for part in path if part))
    header = _table_header(chunk.context, chunk.text)
    body = _defuse(f"{header}{chunk.text}{' ' if mark else ''}") + mark
    return f'<passage n="{passage.rank}" source="{source}">\n{body}\n</passage>'


def _table_header(context: str, text: str) -> str:
    """The header row of the table that `text` is a later piece of, as the chunker left it."""
    last = context.rpartition("\n")[2]
    return f"{last}\n" if last.startswith("|") and text.lstrip().startswith("|") else ""


def _attribute(text: str) -> str:
    flat = _defuse(" ".join(text.split())[:200])
    return flat.replace('"', "&quot;").replace("<", "&lt;")


def _defuse(text: str) -> str:
    return _TURN.sub(lambda m: "&lt;" if m.group() == "<" else "(", _DELIMITER.sub("&lt;", text))
