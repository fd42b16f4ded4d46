"""What of an HTML page counts as text, and what surrounds it."""

from __future__ import annotations

import re

from bs4.element import NavigableString, PreformattedString, Tag

from indexer.parsing.cleaning import one_line


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


_DROPPED = _words(
    "script style noscript template svg canvas iframe object embed nav footer aside button "
    "select option textarea input dialog audio video map head title meta link"
)
_DROPPED_ROLES = _words("navigation banner contentinfo complementary search dialog menu")
_DROPPED_CLASSES = _words(
    "mw-editsection mw-portlet vector-dropdown vector-page-toolbar catlinks navbox "
    "noprint sr-only visually-hidden breadcrumb breadcrumbs headerlink anchor-link skip-link "
    "cookie-banner toc"
)
_HIDDEN = re.compile(r"display:\s*none|visibility:\s*hidden", re.IGNORECASE)
BLOCKS = _words(
    "address article blockquote body caption center details dd div dl dt fieldset figcaption "
    "figure form header hgroup hr html li main menu ol p section summary table tbody td tfoot "
    "th thead tr ul"
)


def is_dropped(tag: Tag) -> bool:
    """True for what no reader sees, and for what stands around the content on every page."""
    if tag.name in _DROPPED:
        return True
    if tag.name == "header" and tag.parent is not None and tag.parent.name == "body":
        return tag.find("h1") is None  # the site's, not the article's
    if not tag.attrs:
        return False
    if tag.name == "sup" and "reference" in attribute(tag, "class").split():
        return True  # the mark of a footnote
    if "hidden" in tag.attrs or attribute(tag, "aria-hidden") == "true":
        return True
    if attribute(tag, "role") in _DROPPED_ROLES or _HIDDEN.search(attribute(tag, "style")):
        return True
    return not _DROPPED_CLASSES.isdisjoint(attribute(tag, "class").split())


def text_of(tag: Tag) -> str:
    """The text inside, on one line, without dropped elements."""
    parts: list[str] = []
    stack: list[Tag | NavigableString] = list(reversed(list(_nodes(tag))))
    while stack:
        node = stack.pop()
        if isinstance(node, NavigableString):
            if not isinstance(node, PreformattedString):
                parts.append(node)
        elif not is_dropped(node):
            if node.name == "br" or node.name in BLOCKS:
                parts.append(" ")
            stack.extend(reversed(list(_nodes(node))))
    return one_line("".join(parts))


def _nodes(tag: Tag) -> list[Tag | NavigableString]:
    return [node for node in tag.children if isinstance(node, Tag | NavigableString)]


def attribute(tag: Tag, name: str) -> str:
    """An attribute's value, '' where there is none; several classes are joined by spaces."""
    value = tag.get(name) or ""
    return value if isinstance(value, str) else " ".join(value)
