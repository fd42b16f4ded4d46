"""Opens zip containers (OOXML, ODF, EPUB) only when unpacking them is safe."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from rag.errors import UnreadableDocument

MAX_TOTAL_BYTES = 512 * 1024**2
MAX_RATIO = 200
RATIO_APPLIES_FROM_BYTES = 10 * 1024**2
MAX_MEMBERS = 50_000
_ENCRYPTED = 0x1
_XML_ENDINGS = (".xml", ".rels", ".opf", ".ncx")

READ_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, OSError, ValueError,
    RuntimeError,  # a password, or a compression method that zipfile does not know
)  # fmt: skip
"""What zipfile raises for a damaged container or a member that is not there."""


def open_archive(data: bytes) -> zipfile.ZipFile:
    """The container in `data`.

    Raises UnreadableDocument for a damaged or password-protected one, for one that would unpack
    to more than 512 MiB or has a member above 10 MiB packed more than 200 times smaller. The
    sizes are the declared ones: `zipfile` never reads a member beyond its declared size.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = archive.infolist()
    except READ_ERRORS as error:
        raise UnreadableDocument(f"the container is damaged: {error}") from error
    if len(members) > MAX_MEMBERS:
        raise UnreadableDocument(f"the container has {len(members)} members, limit {MAX_MEMBERS}")
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL_BYTES:
        raise UnreadableDocument(f"it unpacks to {total} bytes, limit {MAX_TOTAL_BYTES}")
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise UnreadableDocument("it is password-protected: remove the password first")
        if (
            member.file_size > RATIO_APPLIES_FROM_BYTES
            and member.file_size > MAX_RATIO * member.compress_size
        ):
            raise UnreadableDocument(f"'{member.filename}' unpacks more than {MAX_RATIO}-fold")
    return archive


def open_office_archive(data: bytes) -> zipfile.ZipFile:
    """`open_archive` for OOXML and ODF; raises UnreadableDocument for XML that declares a document
    type: no office format does, and entity expansion needs it.
    """
    archive = open_archive(data)
    for member in archive.infolist():
        if member.filename.lower().endswith(_XML_ENDINGS):
            with archive.open(member) as stream:
                head = stream.read(1024)
            if b"<!DOCTYPE" in head:
                raise UnreadableDocument(f"'{member.filename}' declares a document type")
            if b"//purl.oclc.org/ooxml/" in head:
                raise UnreadableDocument("it is 'Strict' Open XML: save it in the ordinary variant")
    return archive
