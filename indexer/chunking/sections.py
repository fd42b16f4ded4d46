"""What belongs together: the headings of a document as a tree, and the parts it is cut into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from rag.types import Block, BlockKind, Document

_DEEPEST = 6
Weigh = Callable[[int, int], int]
"""Tokens in [start, end)."""


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring blocks that may share a chunk, and the headings above all of them."""

    headings: tuple[str, ...]
    blocks: tuple[Block, ...]
    starts: tuple[int, ...] = field(init=False)
    ends: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", tuple(block.start for block in self.blocks))
        object.__setattr__(self, "ends", tuple(block.end for block in self.blocks))


@dataclass(slots=True)
class _Section:
    """A heading, the blocks right below it, and the sections below those."""

    path: tuple[str, ...]
    level: int
    heading: Block | None = None
    body: list[Block] = field(default_factory=list)
    children: list[_Section] = field(default_factory=list)

    def blocks(self) -> Iterator[Block]:
        if self.heading is not None:
            yield self.heading
        yield from self.body
        for child in self.children:
            yield from child.blocks()


def parts(document: Document, weigh: Weigh, small: int, headings_in_text: bool) -> Iterator[Part]:
    """The parts of a document in reading order; each block is in one of them.

    A part is one section's own blocks. Its heading is in `headings`, and among the blocks only
    where `headings_in_text`. Neighbouring sections of fewer than `small` tokens each (all that is
    below them included) are one part under their common parent: their headings are blocks of it.
    The heading of an empty section with nothing below it is a part of its own, under its parent.
    """
    yield from _walk(_tree(document), weigh, small, headings_in_text)


def _tree(document: Document) -> _Section:
    root = _Section((), 0)
    stack = [root]
    for block in document.blocks:
        trimmed = _trim(block, document.text)
        if trimmed is None:
            continue
        if trimmed.kind is not BlockKind.HEADING:
            stack[-1].body.append(trimmed)
            continue
        level = min(max(trimmed.level, 1), _DEEPEST)
        while stack[-1].level >= level:
            stack.pop()
        name = " ".join(document.text[trimmed.start : trimmed.end].split())
        section = _Section((*stack[-1].path, name), level, trimmed)
        stack[-1].children.append(section)
        stack.append(section)
    return root


def _trim(block: Block, text: str) -> Block | None:
    """The block without white space around it, or None if nothing else is in it."""
    inside = text[block.start : block.end]
    start = block.start + len(inside) - len(inside.lstrip())
    end = block.start + len(inside.rstrip())
    return replace(block, start=start, end=end) if start < end else None


def _walk(section: _Section, weigh: Weigh, small: int, headings_in_text: bool) -> Iterator[Part]:
    own = _Section(section.path, section.level, None, section.body)
    if section.heading is not None and headings_in_text:
        own.body = [section.heading, *section.body]
    items = [own, *section.children] if own.body else section.children
    if not items and section.heading is not None:
        yield Part(section.path[:-1], (section.heading,))
    for is_small, run in groupby(items, key=lambda item: _weight(item, weigh) < small):
        members = list(run)
        groups = _group(members, weigh, small) if is_small else [[item] for item in members]
        for group in groups:
            if len(group) > 1:
                yield Part(section.path, tuple(block for item in group for block in item.blocks()))
            elif group[0] is own:
                yield Part(section.path, tuple(own.body))
            else:
                yield from _walk(group[0], weigh, small, headings_in_text)


def _weight(section: _Section, weigh: Weigh) -> int:
    blocks = list(section.blocks())
    return weigh(blocks[0].start, blocks[-1].end)


def _group(run: Sequence[_Section], weigh: Weigh, small: int) -> list[list[_Section]]:
    """Small neighbours in groups of about equal weight, each about `small` tokens."""
    weights = [_weight(item, weigh) for item in run]
    total = max(sum(weights), 1)
    count = max(total // small, 1)
    groups: list[list[_Section]] = [[] for _ in range(count)]
    before = 0
    for item, weight in zip(run, weights, strict=True):
        groups[min((2 * before + weight) * count // (2 * total), count - 1)].append(item)
        before += weight
    return [group for group in groups if group]
