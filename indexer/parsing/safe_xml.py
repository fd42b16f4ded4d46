"""XML from strangers: no entities, no network, no oversized trees."""

from __future__ import annotations

from typing import Any

from lxml import etree

from rag.errors import UnreadableDocument


def parse_xml(data: bytes, *, recover: bool = False) -> Any:
    """The root element. Raises UnreadableDocument for XML that is not well-formed, unless
    `recover` asks for what can be read.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, recover=recover,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise UnreadableDocument(f"its XML is damaged: {error}") from error
    if root is None:
        raise UnreadableDocument("its XML is damaged: there is no element in it")
    return root


def local_name(element: Any) -> str:
    """The tag without its namespace; '' for what is no element (an entity reference)."""
    tag = element.tag
    return str(tag).rpartition("}")[2] if isinstance(tag, str) else ""
