"""A fake chat endpoint at the wire, for inside a container: what the model's name says, it does.

python3 chat_endpoint.py PORT. `hang` says nothing; `drip` says a word each 50 ms for ever;
`stepwise` waits for the file /tmp/go-on after its first word; `cut` breaks off after it; a number
is a status. /tmp/entered and /tmp/left tell when a request came, and when its caller had gone.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SHARED = Path("/tmp")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        (SHARED / "entered").touch()
        behaviour = request["model"]
        if behaviour == "hang":
            time.sleep(3600)
        if behaviour.isdigit():
            self.send_error(int(behaviour))
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            self.talk(behaviour)
        except OSError:
            (SHARED / "left").touch()

    def talk(self, behaviour: str) -> None:
        self.say("Hold ")
        if behaviour == "cut":
            return
        while behaviour == "drip":
            self.say("on ")
            time.sleep(0.05)
        while behaviour == "stepwise" and not (SHARED / "go-on").exists():
            time.sleep(0.02)
        self.say("the power button [1].")
        self.frame({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def say(self, word: str) -> None:
        self.frame({"choices": [{"index": 0, "delta": {"content": word}}]})

    def frame(self, chunk: dict[str, object]) -> None:
        data = json.dumps({"object": "chat.completion.chunk", **chunk}).encode()
        self.wfile.write(b"data: " + data + b"\n\n")
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Nothing."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
