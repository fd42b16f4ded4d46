"""Where a part is cut: between blocks, else between sentences, else clauses, words, tokens."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import replace

from indexer.chunking.graphemes import extends, joins
from indexer.chunking.sections import Part
from indexer.chunking.tokens import TokenMap
from rag.sentences import split_sentences
from rag.types import Block, BlockKind, Document

Span = tuple[int, int]

_WHOLE = frozenset({BlockKind.TABLE, BlockKind.CODE})
# A cut is where the match ends.
_ITEM = re.compile(r"\n(?=\S)")
_ROW = re.compile(r"\n(?!\| ?:?--)")  # Markdown's separator line stays with the header
_BLANK_LINE = re.compile(r"\n[^\S\n]*+\n")
_LINE = re.compile(r"\n")
_CELL = re.compile(r"\|[^\S\n]++|\t")
_FULL_STOP = re.compile(r"[.!?…][\"'”’)\]]*\s++")  # sentences of text without capital letters
_CLAUSE = re.compile(r"[,;:—–]\s++|[、，；：。！？]\s*+|\n")
_SPACE = re.compile(r"\s(?=\S)")
_SENTENCE, _ENDED_LINE = "sentence", "sentence that begins a line"
_LEVELS = {
    BlockKind.PARAGRAPH: (_ENDED_LINE, _SENTENCE, _FULL_STOP, _CLAUSE, _SPACE),
    BlockKind.HEADING: (_SENTENCE, _FULL_STOP, _CLAUSE, _SPACE),
    BlockKind.LIST: (_ITEM, _LINE, _SENTENCE, _FULL_STOP, _CLAUSE, _SPACE),
    BlockKind.TABLE: (_ROW, _CELL, _CLAUSE, _SPACE),
    BlockKind.CODE: (_BLANK_LINE, _LINE, _SPACE),
}
_WEAK = (_CELL, _FULL_STOP, _CLAUSE, _SPACE)


class Cutter:
    """Cuts the parts of one document. Blocks of a part are trimmed, as `sections.parts` gives."""

    def __init__(self, document: Document, tokens: TokenMap) -> None:
        self._text = document.text
        self._tokens = tokens
        self._sentences: dict[tuple[int, str], list[int]] = {}

    def cut(
        self, part: Part, room: Callable[[int], int], smallest: int, overlap: int
    ) -> Iterator[Span]:
        """Non-blank [start, end) in order; together they hold all of the part.

        `room(start)` is how many tokens a piece that begins at `start` may have. Pieces below
        `smallest` tokens are avoided. With `overlap`, a piece may begin with the last sentences
        of the one before, up to that many tokens.
        """
        begin = done = part.starts[0]
        end = part.ends[-1]
        while done < end:
            budget = max(room(begin), 1)
            least = min(smallest, budget // 4)
            stop = self._stop(part, begin, done, budget, least)
            span = self._strip(begin, stop)
            if self._strip(done, stop) != (stop, stop):
                yield span
            done = begin = self._skip_space(stop, end)
            if overlap and done < end:
                begin = self._overlap_start(part, span, done, min(overlap, budget // 2))

    def halve(self, part: Part, span: Span) -> list[Span]:
        """About half and half of a piece, cut by the same rules; `[span]` if it is indivisible."""
        total = self._tokens.count(*span)
        first, last = bisect_right(part.ends, span[0]), bisect_left(part.starts, span[1])
        blocks = tuple(
            replace(block, start=max(block.start, span[0]), end=min(block.end, span[1]))
            for block in part.blocks[first:last]
        )
        # Some slack, so that a boundary beyond the middle can be taken.
        return list(self.cut(replace(part, blocks=blocks), lambda _: total * 7 // 10, 0, 0))

    def _stop(self, part: Part, begin: int, done: int, budget: int, least: int) -> int:
        """Where the piece that begins at `begin` ends; always after `done`."""
        tokens = self._tokens
        end = part.ends[-1]
        limit = tokens.reach(begin, budget)
        first = bisect_right(part.ends, begin)
        inside = part.blocks[first].kind in _WHOLE and part.starts[first] < begin
        if inside and part.ends[first] <= limit:
            # The rest of a cut table or of cut code; only what is small may join it.
            rest = tokens.count(part.ends[first], end)
            return end if rest < least and limit >= end else part.ends[first]
        if limit >= end:
            return end
        low = max(done + 1, tokens.reach(done, least))
        high = min(limit, tokens.back(end, least))
        stop = self._between_blocks(part, low, high, begin, budget)
        stop = stop or self._between_blocks(part, low, limit, begin, budget)
        if stop is not None:
            return stop
        number = bisect_right(part.ends, limit)
        block = part.blocks[number]
        if block.kind in _WHOLE and tokens.count(block.start, block.end) <= budget:
            stop = self._before_whole(part, number, done, budget)
            if stop is not None:
                return stop
        return self._inside_block(block, (begin, done, low, limit), budget)

    def _between_blocks(
        self, part: Part, low: int, high: int, begin: int, budget: int
    ) -> int | None:
        """The block's end in [low, high] that makes the pieces most equal: better not of one that
        introduces the next, never of a heading.
        """
        ends = range(bisect_left(part.ends, low), bisect_right(part.ends, high))
        found = [i for i in ends if part.blocks[i].kind is not BlockKind.HEADING]
        best = [i for i in found if not self._introduces(part.blocks[i])] or found
        return self._nearest(
            [part.ends[i] for i in best], self._target(begin, part.ends[-1], budget)
        )

    def _before_whole(self, part: Part, number: int, done: int, budget: int) -> int | None:
        """Where to cut before a table or code that is kept whole, with what introduces it."""
        lead = number - 1
        if number == 0 or part.ends[lead] <= done:
            return None
        together = self._tokens.count(part.starts[lead], part.ends[number]) <= budget
        if together and lead and self._introduces(part.blocks[lead]):
            before = part.ends[lead - 1]
            return before if before > done else part.ends[lead]
        return part.ends[lead]

    def _introduces(self, block: Block) -> bool:
        return block.kind is BlockKind.HEADING or self._text[block.end - 1] in ":："

    def _inside_block(self, block: Block, window: tuple[int, int, int, int], budget: int) -> int:
        begin, done, low, limit = window
        target = self._target(begin, block.end, budget)
        half = self._tokens.reach(done, self._tokens.count(done, limit) // 2)
        low = max(low, block.start + 1)
        for level in _LEVELS[block.kind]:
            if isinstance(level, str):
                starts = self._sentence_starts(block, level)
                found = starts[bisect_left(starts, low) : bisect_right(starts, limit)]
            else:
                floor = max(low, half) if level in _WEAK else low
                found = self._matches(level, floor, limit)
            stop = self._nearest(found, target)
            if stop is not None:
                return stop
        return self._between_graphemes(done, limit)

    def _target(self, begin: int, end: int, budget: int) -> int:
        """The end of the first piece if [begin, end) is cut into as few equal ones as can be."""
        total = self._tokens.count(begin, end)
        pieces = -(-total // budget)
        return self._tokens.reach(begin, -(-total // max(pieces, 1)))

    def _nearest(self, positions: list[int], target: int) -> int | None:
        if not positions:
            return None
        return min(positions, key=lambda position: (abs(position - target), -position))

    def _matches(self, pattern: re.Pattern[str], low: int, high: int) -> list[int]:
        found = pattern.finditer(self._text, max(low - 1, 0), min(high + 1, len(self._text)))
        ends = (match.end() for match in found)
        return [end for end in ends if low <= end <= high and not extends(self._text[end])]

    def _between_graphemes(self, done: int, limit: int) -> int:
        """The last end of a grapheme up to `limit`, or `limit` itself inside a giant one."""
        last = limit
        while last > done and joins(self._text, last, done):
            last -= 1
        if last > done or limit > done:
            return last if last > done else limit
        last = done + 1
        while last < len(self._text) and joins(self._text, last, done):
            last += 1
        return last

    def _overlap_start(self, part: Part, before: Span, done: int, overlap: int) -> int:
        """The earliest sentence start that is at most `overlap` tokens before `done`."""
        number = bisect_left(part.ends, before[1])
        following = part.blocks[bisect_right(part.ends, done)]
        earliest = max(self._tokens.back(done, overlap), before[0] + 1)
        best = done
        while following.kind not in _WHOLE and number >= 0:
            block = part.blocks[number]
            if block.kind in (*_WHOLE, BlockKind.HEADING) or block.end <= earliest:
                break
            starts = self._sentence_starts(block)
            found = starts[bisect_left(starts, earliest) : bisect_left(starts, best)]
            best = found[0] if found else best
            number -= 1
        return best

    def _sentence_starts(self, block: Block, which: str = _SENTENCE) -> list[int]:
        if (block.start, which) not in self._sentences:
            inside = self._text[block.start : block.end]
            starts: list[int] = []
            on_new_line: list[int] = []
            before = 0
            for start, end in split_sentences(inside):
                if not extends(inside[start]):
                    starts.append(block.start + start)
                    if "\n" in inside[before:start]:
                        on_new_line.append(block.start + start)
                before = end
            self._sentences[block.start, _SENTENCE] = starts
            self._sentences[block.start, _ENDED_LINE] = on_new_line
        return self._sentences[block.start, which]

    def _strip(self, start: int, end: int) -> Span:
        piece = self._text[start:end]
        stop = start + len(piece.rstrip())
        return (stop - len(piece.strip()), stop) if stop > start else (end, end)

    def _skip_space(self, position: int, end: int) -> int:
        while position < end and self._text[position].isspace():
            position += 1
        return position
