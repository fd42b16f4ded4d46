"""A fake Weaviate at the wire: real HTTP, and of its REST API v1 what is documented for schemas,
listings by cursor, batches and single objects. It keeps what it is given in memory.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "weaviate-very-secret"
DEFAULT_LIMIT, MAX_LIMIT = 25, 10_000
Reply = tuple[int, Any]


class FakeWeaviate:
    """`classes` and `objects` (by class, by UUID) are what it holds; `asked` the requests so far.

    `fault` is asked about each request (method, path): a status is what is answered in its place,
    'reset' ends the connection, 'html' is a page of some other server, None leaves it alone.
    `refused` are UUIDs that a batch does not take, `lost` those it says it took and does not keep.
    """

    def __init__(self, key: str = KEY) -> None:
        self.classes: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, dict[str, dict[str, Any]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.refused: set[str] = set()
        self.lost: set[str] = set()
        self.fault: Callable[[str, str], int | str | None] = lambda method, path: None
        self._key = key
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 2**16  # an answer is sent at once

            def do_GET(self) -> None:
                size = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(size)) if size else None
                fake.handle(self, body)

            def do_POST(self) -> None:
                self.do_GET()

            def do_DELETE(self) -> None:
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self.url = f"weaviate+http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def handle(self, to: BaseHTTPRequestHandler, body: Any) -> None:
        url = urlsplit(to.path)
        self.asked.append((to.command, url.path))
        fault = self.fault(to.command, url.path)
        if fault == "reset":
            to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            to.close_connection = True
            to.connection.close()
            to.rfile, to.wfile = io.BytesIO(), io.BytesIO()
            return
        if isinstance(fault, int):
            status, value = fault, problem(f"told to fail for {to.headers['authorization']}")
        elif fault == "html":
            status, value = 200, b"<html>not here</html>"
        elif to.headers["authorization"] != f"Bearer {self._key}":
            status, value = 401, {"code": 401, "message": "anonymous access not enabled"}
        else:
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            status, value = self._reply(to.command, url.path.split("/")[2:], query, body)
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        data = b"" if value is None else data
        to.send_response(status)
        if status == 429:
            to.send_header("retry-after", "0")
        to.send_header("content-type", "application/json")
        to.send_header("content-length", str(len(data)))
        to.end_headers()
        to.wfile.write(data)

    def _reply(self, method: str, path: list[str], query: dict[str, str], body: Any) -> Reply:
        match method, path:
            case "POST", ["schema"]:
                return self._create(body)
            case "GET", ["schema", name]:
                return (200, self.classes[name]) if name in self.classes else (404, None)
            case "POST", ["schema", name, "properties"]:
                return self._extend(name, body)
            case "GET", ["objects"]:
                return self._list(query)
            case "POST", ["batch", "objects"]:
                return 200, [self._put(found) for found in body["objects"]]
            case "GET", ["objects", name, key]:
                found = self.objects.get(name, {}).get(key)
                return (404, None) if found is None else (200, shown(found, query))
            case "DELETE", ["objects", name, _] if name not in self.classes:
                return 422, problem(f"class {name} not found")
            case "DELETE", ["objects", name, key]:
                return (404 if self.objects[name].pop(key, None) is None else 204), None
        return 404, {"code": 404, "message": f"path {'/'.join(path)} was not found"}

    def _create(self, body: dict[str, Any]) -> Reply:
        name = body["class"]
        if name in self.classes:
            return 422, problem(f"class name {name} already exists")
        self.classes[name], self.objects[name] = body, {}
        return 200, body

    def _extend(self, name: str, body: dict[str, Any]) -> Reply:
        properties = self.classes[name]["properties"]
        if body["name"] in [known["name"] for known in properties]:
            return 422, problem(f"property {body['name']} already exists")
        properties.append(body)
        return 200, body

    def _list(self, query: dict[str, str]) -> Reply:
        if query["class"] not in self.classes:
            return 422, problem(f"class {query['class']} not found")
        limit = int(query.get("limit", DEFAULT_LIMIT))
        if limit > MAX_LIMIT:
            return 422, problem("query maximum results exceeded")
        after = uuid.UUID(query["after"]).bytes if "after" in query else b""
        there = sorted(
            self.objects[query["class"]].values(), key=lambda o: uuid.UUID(o["id"]).bytes
        )
        page = [o for o in there if uuid.UUID(o["id"]).bytes > after][:limit]
        return 200, {
            "objects": [shown(o, query) for o in page], "totalResults": len(page),
            "deprecations": None,
        }  # fmt: skip

    def _put(self, found: dict[str, Any]) -> dict[str, Any]:
        """One object of a batch, in the place of what has its id: the answer to it."""
        kinds = {p["name"]: p["dataType"][0] for p in self.classes[found["class"]]["properties"]}
        held = self.objects[found["class"]]
        lengths = {len(o["vector"]) for o in held.values()} - {0, len(found["vector"])}
        wrong = [
            name for name, value in found["properties"].items()
            if not fits(value, kinds.get(name, "no such property"))
        ]  # fmt: skip
        if found["id"] in self.refused:
            said: str | None = "told to refuse this object"
        elif wrong:
            said = f"invalid property '{wrong[0]}' on class '{found['class']}'"
        elif lengths:
            said = f"new node has a vector with length {len(found['vector'])}, not {lengths.pop()}"
        else:
            said = None
            held |= {found["id"]: found} if found["id"] not in self.lost else {}
        outcome = {"status": "SUCCESS"} if said is None else {"errors": problem(said)}
        return {**found, "result": {"status": "FAILED", **outcome}}


def problem(said: str) -> dict[str, Any]:
    """An ErrorResponse."""
    return {"error": [{"message": said}]}


def shown(found: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
    """An object as it is listed: the vector only where it is asked for, integers as doubles are."""
    properties = json.loads(json.dumps(found["properties"]), parse_int=lambda n: int(float(n)))
    vectors = {} if query.get("include") == "vector" else {"vector": None}
    return {**found, "properties": properties, **vectors}


def fits(value: Any, kind: str) -> bool:
    """Whether a property's value is of its data type."""
    if kind.endswith("[]"):
        return isinstance(value, list) and all(fits(item, kind[:-2]) for item in value)
    types = {"text": str, "int": int, "number": (int, float), "boolean": bool}
    right = types.get(kind, ())
    return isinstance(value, right) and (kind == "boolean" or not isinstance(value, bool))
