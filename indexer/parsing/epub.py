"""EPUB: the chapters in the order of the spine, each read as HTML."""

from __future__ import annotations

import posixpath
import zipfile
from typing import Any
from urllib.parse import unquote

from indexer.parsing import html
from indexer.parsing.archive import READ_ERRORS, open_archive
from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.safe_xml import local_name, parse_xml
from rag.errors import UnreadableDocument

_META = {"creator": "author", "subject": "subject", "publisher": "publisher", "description":
         "description", "date": "created"}  # fmt: skip
_CHAPTERS = ("application/xhtml+xml", "text/html")


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the chapters of the book in `data`; title, language and author are the package's."""
    with open_archive(data) as archive:
        if "META-INF/encryption.xml" in archive.namelist() and "META-INF/rights.xml" in (
            archive.namelist()
        ):
            raise UnreadableDocument("it is copy-protected")
        container = parse_xml(_member(archive, "META-INF/container.xml"), recover=True)
        paths = [e.get("full-path") for e in container.iter() if local_name(e) == "rootfile"]
        if not paths or not paths[0]:
            raise UnreadableDocument("its container.xml names no package file")
        package = parse_xml(_member(archive, paths[0]), recover=True)
        chapters = _chapters(package, posixpath.dirname(paths[0]))
        for path in chapters:
            html.parse(_member(archive, path), builder)
    builder.title = builder.lang = None  # the last chapter's; the package knows the book's
    for key in ("author", "description", "keywords"):
        builder.metadata.pop(key, None)
    _properties(package, builder)
    builder.metadata["chapters"] = len(chapters)


def _chapters(package: Any, folder: str) -> list[str]:
    items = {e.get("id"): e for e in package.iter() if local_name(e) == "item"}
    paths: list[str] = []
    for reference in package.iter():
        item = items.get(reference.get("idref")) if local_name(reference) == "itemref" else None
        if item is None or item.get("media-type") not in _CHAPTERS:
            continue
        if "nav" not in (item.get("properties") or "").split():
            paths.append(posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "")))))
    return paths


def _properties(package: Any, builder: DocumentBuilder) -> None:
    for element in package.iter():
        name, text = local_name(element), (element.text or "").strip()
        if not text:
            continue
        if name == "title" and builder.title is None:
            builder.title = text
        elif name == "language" and builder.lang is None:
            builder.lang = text
        elif name in _META:
            builder.metadata.setdefault(_META[name], text)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except READ_ERRORS as error:
        raise UnreadableDocument(f"'{name}' is missing or damaged in the container") from error
