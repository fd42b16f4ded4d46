"""Markdown: CommonMark with tables, front matter, and the usual container directives."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.cleaning import clean, unwrap
from indexer.parsing.directives import is_prose_fence, unwrap_directives
from indexer.parsing.encoding import decode
from indexer.parsing.frontmatter import split_front_matter
from indexer.parsing.html import parse_fragment
from indexer.parsing.metadata import flatten

_MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_ANCHOR = re.compile(r"(?:\{\s*[#.:][^{}]*\}|\[#[^\]\[]*\])$")  # '{ #id .class }', '[#id]'
_ATTRIBUTES = re.compile(r"^\{:?\s*[.#][^{}]*\}")  # of the link before: '{.external}'
_SHORTCODE = re.compile(
    r"\[[\w-]+(?:\s+[\w-]+=(?:\"[^\"]*\"|[^\s\"\]]+))+\s*\]"
)  # [iframe src="..."]
_MAX_DEPTH = 4  # directives within directives


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the Markdown text in `data`; `title`, `lang` and the rest of its front matter count."""
    header, text = split_front_matter(clean(decode(data)))
    builder.metadata.update(flatten(header))
    for key in ("lang", "language"):
        if isinstance(builder.metadata.get(key), str):
            builder.lang = str(builder.metadata[key])
            break
    if isinstance(title := builder.metadata.get("title"), str | int | float):
        builder.title = str(title)
    parse_text(text, builder)


def parse_text(text: str, builder: DocumentBuilder, page: int | None = None) -> None:
    """Adds Markdown without front matter."""
    _Walker(builder, page, 0).walk(text)


class _Walker:
    """Goes over the flat token stream once, keeping the lists that are open."""

    def __init__(self, builder: DocumentBuilder, page: int | None, depth: int) -> None:
        self._builder = builder
        self._page = page
        self._depth = depth
        self._lists: list[int | None] = []  # next number of each open list; None: bullets
        self._marker: str | None = None
        self._rows: list[list[str]] = []
        self._header_rows = 0

    def walk(self, text: str) -> None:
        tokens = _MARKDOWN.parse(unwrap_directives(text))
        for i, token in enumerate(tokens):
            if token.type == "inline":
                self._inline(token, tokens[i - 1])
            elif token.type in ("fence", "code_block"):
                self._code(token)
            elif token.type == "html_block":
                parse_fragment(token.content, self._builder, self._page)
            elif token.type.startswith(("bullet_list", "ordered_list", "list_item")):
                self._list(token)
            else:
                self._table(token)

    def _inline(self, token: Token, opener: Token) -> None:
        text = _inline_text(token.children or ())
        if opener.type == "heading_open":
            self._builder.heading(_ANCHOR.sub("", text.rstrip()), int(opener.tag[1]), self._page)
        elif opener.type in ("th_open", "td_open"):
            self._rows[-1].append(text)
        elif self._lists:
            depth = len(self._lists) - 1
            self._builder.list_item(unwrap(text), depth, self._marker, self._page)
            self._marker = None
        elif not _SHORTCODE.fullmatch(text):
            self._builder.paragraph(text, self._page)

    def _code(self, token: Token) -> None:
        if self._depth < _MAX_DEPTH and token.type == "fence":
            title = is_prose_fence(token.info)
            if title is not None:
                self._builder.paragraph(title, self._page)
                _Walker(self._builder, self._page, self._depth + 1).walk(token.content)
                return
        self._builder.code(token.content, self._page)

    def _list(self, token: Token) -> None:
        if token.type == "bullet_list_open":
            self._lists.append(None)
        elif token.type == "ordered_list_open":
            self._lists.append(int(token.attrGet("start") or 1))
        elif token.type == "list_item_open":
            number = self._lists[-1]
            self._marker = "-" if number is None else f"{number}."
            if number is not None:
                self._lists[-1] = number + 1
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            self._lists.pop()
            if not self._lists:
                self._builder.end_list()

    def _table(self, token: Token) -> None:
        if token.type == "table_open":
            self._rows, self._header_rows = [], 0
        elif token.type == "tr_open":
            self._rows.append([])
        elif token.type == "thead_close":
            self._header_rows = len(self._rows)
        elif token.type == "table_close":
            self._builder.table(self._rows, self._header_rows, self._page)


def _inline_text(children: Sequence[Token]) -> str:
    """What a reader sees: link and image texts without their targets, no emphasis marks."""
    parts: list[str] = []
    before = ""
    for child in children:
        if child.type == "text" and before in ("link_close", "image", "code_inline"):
            parts.append(_ATTRIBUTES.sub("", child.content))
        elif child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.content.lower() == "<sup>":
            parts.append("^")
        elif child.type == "softbreak":
            parts.append("\n")
        elif child.type == "hardbreak" or child.content.lower().startswith("<br"):
            parts.append("\u2028")
        elif child.type == "image":
            parts.append(_inline_text(child.children or ()))
        before = child.type
    # A soft break is only a wrapped line; a hard one is meant.
    return unwrap("".join(parts)).replace("\u2028", "\n")
