"""HTML: the main content in reading order, without what surrounds it on every page of a site."""

from __future__ import annotations

import re
import warnings

from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, XMLParsedAsHTMLWarning
from bs4.element import NavigableString, PreformattedString, Tag

from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.cleaning import one_line
from indexer.parsing.encoding import decode
from indexer.parsing.html_nodes import BLOCKS, attribute, is_dropped, text_of
from indexer.parsing.html_tables import grid

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CODE = frozenset(("pre", "listing", "xmp"))
_SITE = re.compile(r"\s*[-\u2010-\u2015|·•:»/]\s*\S")
_POWER = re.compile(r"[-+]?(?:\d{1,3}|[a-z])")  # raised: 2^53; a footnote's mark is a link
_MAX_DEPTH = 150  # deeper nesting than any page has; below it only the text counts
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"^\s*<\?xml[^>]{0,100}encoding=[\"']([\w-]+)")
_META = ("author", "description", "keywords")


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the page in `data`: its title, language, description and main content."""
    match = _XML_ENCODING.search(data[:200]) or _CHARSET.search(data[:4096])
    soup = _soup(decode(data, match[1].decode("ascii") if match else None))
    root = soup.html
    if root is None:
        return
    if soup.title is not None:
        builder.title = soup.title.get_text()
    builder.lang = attribute(root, "lang") or attribute(root, "xml:lang") or None
    for meta in soup.find_all("meta"):
        name = (attribute(meta, "name") or attribute(meta, "property")).lower()
        name = name.removeprefix("og:").removeprefix("article:")
        content = one_line(attribute(meta, "content"))
        if name in _META and content:
            builder.metadata.setdefault(name, content)
    _Walker(builder, None).walk(_main_content(soup.body or root))
    builder.title = _without_site(builder.title, soup.h1)


def parse_fragment(markup: str, builder: DocumentBuilder, page: int | None = None) -> None:
    """Adds a piece of HTML, such as one that stands within Markdown."""
    soup = _soup(markup)
    if soup.body is not None:
        _Walker(builder, page).walk(soup.body)


def _without_site(title: str | None, heading: Tag | None) -> str | None:
    """A page's title without the name of its site: 'Orders - Example Wiki' above <h1>Orders."""
    if title is None or heading is None:
        return title
    name, rest = text_of(heading), one_line(title).partition(text_of(heading))[2]
    return name if name and one_line(title).startswith(name) and _SITE.match(rest) else title


def _soup(markup: str) -> BeautifulSoup:
    with warnings.catch_warnings():
        # XHTML is read as HTML on purpose: that forgives, and gives plain tag names.
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        return BeautifulSoup(markup, "lxml")


def _main_content(body: Tag) -> Tag:
    """The element that says it is the main one, if it holds a good part of the text."""
    candidates = body.find_all("main") or body.find_all(None, {"role": "main"})
    if not candidates:
        candidates = body.find_all("article")
    if len(candidates) == 1:
        within = len(candidates[0].get_text())
        if within * 4 >= len(body.get_text()) or within > 2_000:
            return candidates[0]
    return body


class _Walker:
    """Walks the tree; inline text gathers in a line until a block begins or ends."""

    def __init__(self, builder: DocumentBuilder, page: int | None) -> None:
        self._builder = builder
        self._page = page
        self._line: list[str] = []
        self._lists: list[int | None] = []  # next number of each open list; None: bullets
        self._marker: str | None = None

    def walk(self, root: Tag) -> None:
        self._children(root, 0)
        self._flush()
        self._builder.end_list()

    def _children(self, parent: Tag, depth: int) -> None:
        for node in parent.children:
            if isinstance(node, Tag):
                self._element(node, depth + 1)
            elif isinstance(node, NavigableString) and not isinstance(node, PreformattedString):
                self._line.append(_collapsed(node))

    def _element(self, tag: Tag, depth: int) -> None:
        name = tag.name
        if is_dropped(tag):
            return
        if depth > _MAX_DEPTH:
            self._line.append(_collapsed(tag.get_text(" ")))
        elif name in _HEADINGS:
            self._flush()
            self._builder.heading(text_of(tag), _HEADINGS[name], self._page)
        elif name in _CODE:
            self._flush()
            self._builder.code(_code_text(tag), self._page)
        elif name == "table":
            self._flush()
            self._table(tag, depth)
        elif name in ("ul", "ol", "menu"):
            self._flush()
            self._list(tag, depth)
        elif name in ("dl", "dt"):
            self._flush()
            self._definitions(tag, depth)
        elif name == "br":
            self._line.append("\n")
        elif name == "sup" and tag.a is None and _POWER.fullmatch(text_of(tag)):
            self._line.append(f"^{text_of(tag)}")
        elif name == "math":
            self._line.append(f" {attribute(tag, 'alttext') or text_of(tag)} ")
        elif name in BLOCKS:
            self._flush()
            self._children(tag, depth)
            self._flush()
        else:
            self._children(tag, depth)

    def _list(self, tag: Tag, depth: int) -> None:
        start = attribute(tag, "start")
        number = (int(start) if start.isdecimal() else 1) if tag.name == "ol" else None
        self._lists.append(number)
        for item in tag.children:
            if not isinstance(item, Tag) or is_dropped(item):
                continue
            if item.name in ("ul", "ol"):  # invalid, and common
                self._list(item, depth + 1)
                continue
            self._marker = "-" if number is None else f"{number}."
            number = None if number is None else number + 1
            self._children(item, depth + 1)
            self._flush()
        self._lists.pop()
        if not self._lists:
            self._builder.end_list()

    def _definitions(self, tag: Tag, depth: int) -> None:
        """Each term is an item; its definitions continue it."""
        if tag.name == "dl":
            self._lists.append(None)
        else:
            self._marker = "-" if self._lists else None
        self._children(tag, depth)
        self._flush()
        if tag.name == "dl":
            self._lists.pop()
            if not self._lists:
                self._builder.end_list()

    def _table(self, tag: Tag, depth: int) -> None:
        """A grid becomes a table; one that only lays out the page is walked like any block."""
        rows = [row for row in tag.find_all("tr") if row.find_parent("table") is tag]
        cells = [row.find_all(["td", "th"], recursive=False) for row in rows]
        if tag.find("table") is not None or max(map(len, cells), default=0) < 2:
            self._children(tag, depth)
            self._flush()
            return
        caption = tag.find("caption")
        if caption is not None:
            self._builder.paragraph(text_of(caption), self._page)
        header_rows, width = 0, max(map(len, cells))
        for row, row_cells in zip(rows, cells, strict=True):
            in_head = row.parent is not None and row.parent.name == "thead"
            names = [cell for cell in row_cells if cell.name == "th"]
            if not in_head and (len(names) < len(row_cells) or len(names) * 2 <= width):
                break  # a lone name that heads a group of rows is no header
            header_rows += 1
        self._builder.table(grid(cells), header_rows, self._page)

    def _flush(self) -> None:
        text = "".join(self._line)
        self._line.clear()
        if not text.strip():
            return
        if self._lists:
            self._builder.list_item(text, len(self._lists) - 1, self._marker, self._page)
            self._marker = None
        else:
            self._builder.paragraph(text, self._page)


def _code_text(tag: Tag) -> str:
    for line_break in tag.find_all("br"):
        line_break.replace_with("\n")
    return tag.get_text()


def _collapsed(text: str) -> str:
    return re.sub(r"[ \t\r\n\f]+", " ", text)
