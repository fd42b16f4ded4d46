"""Saved e-mails: the subject as heading, who wrote to whom, and the body."""

from __future__ import annotations

import email
import email.policy
from email.message import MIMEPart
from email.utils import parsedate_to_datetime

from indexer.parsing import html
from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.encoding import decode
from indexer.parsing.text import add_paragraphs

_FIELDS = {"from": "author", "to": "to", "cc": "cc"}


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the message in `data`: its plain text, or its HTML where there is none.

    Attachments are named in the metadata, not read.
    """
    message = email.message_from_bytes(data, policy=email.policy.default)
    subject = str(message.get("subject") or "")
    builder.title = subject
    builder.heading(subject, 1)
    for field, key in _FIELDS.items():
        if value := message.get(field):
            builder.metadata[key] = str(value)
    if created := _date(str(message.get("date") or "")):
        builder.metadata["created"] = created
    body = message.get_body(preferencelist=("plain", "html"))
    if body is not None:
        _add_body(body, builder)
    names = [part.get_filename() for part in message.iter_attachments()]
    if attachments := [name for name in names if name]:
        builder.metadata["attachments"] = attachments


def _add_body(body: MIMEPart, builder: DocumentBuilder) -> None:
    payload = body.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return
    text = decode(payload, body.get_content_charset())
    if body.get_content_subtype() == "html":
        html.parse_fragment(text, builder)
    else:
        add_paragraphs(text, builder)


def _date(value: str) -> str | None:
    try:
        return parsedate_to_datetime(value).isoformat()
    except ValueError:
        return None
