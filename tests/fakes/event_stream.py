"""The binary framing of AWS event streams, written out by hand: the other side of botocore's."""

from __future__ import annotations

import json
import struct
import zlib

KIND = "application/vnd.amazon.eventstream"


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """Prelude (two lengths and their CRC), headers as strings (type 7), payload, CRC of it all."""
    head = b""
    for name, value in headers.items():
        raw = value.encode()
        head += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(raw)) + raw
    prelude = struct.pack(">II", 12 + len(head) + len(payload) + 4, len(head))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    body = prelude + head + payload
    return body + struct.pack(">I", zlib.crc32(body))


def event(kind: str, payload: bytes | dict[str, object]) -> bytes:
    """An event of that type; a dict is its JSON."""
    is_json = isinstance(payload, dict)
    data = (
        json.dumps(payload, ensure_ascii=False).encode() if isinstance(payload, dict) else payload
    )
    content = "application/json" if is_json else "application/octet-stream"
    headers = {":message-type": "event", ":event-type": kind, ":content-type": content}
    return message(headers, data)


def exception(kind: str, said: dict[str, object]) -> bytes:
    """An exception within a stream."""
    headers = {":message-type": "exception", ":exception-type": kind}
    return message({**headers, ":content-type": "application/json"}, json.dumps(said).encode())
