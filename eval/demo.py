"""`make demo`: the sample documents become a bundle, a service starts on it, questions come back
answered with citations.

Everything it does is also a command that a reader can type; each is printed before it runs.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

SAMPLE = Path(__file__).parent / "sample" / "documents"
OUTPUT = Path("demo-bundle")
QUESTIONS = (
    "How long does SageMaker wait between SIGTERM and SIGKILL when it stops a container?",
    "We published a bad index last night. How do I go back to the day before?",
    "한국어를 공백으로만 나누어 색인하면 왜 검색이 잘 안 되나요?",
    "What is the population of Iceland?",
)
START_TIMEOUT_S = 120


def main() -> None:
    """Runs the demo; exits with the first failing command's code."""
    scripts = Path(sys.executable).parent
    shown = Path(os.path.relpath(SAMPLE))
    _say("1. The documents: Markdown, HTML, PDF, Word and more, in English and Korean")
    _run([scripts / "rag-indexer", "build", "--source", shown, "--output", OUTPUT])
    _say("2. Every byte of the bundle, and its encoder, are checked")
    _run([scripts / "rag-indexer", "verify", OUTPUT])
    _say("3. A service starts on the bundle")
    port = _free_port()
    serve = [scripts / "rag", "serve", "--bundle", OUTPUT, "--host", "127.0.0.1"]
    command = _show([*serve, "--port", str(port)])
    service = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own command
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(service, url)
        _say("4. Questions come back answered, each sentence with the passages it stands on")
        for question in QUESTIONS:
            _run([scripts / "rag", "ask", question, "--url", url, "--top-k", "2"])
        _say("5. The same over HTTP, as SageMaker calls it")
        body = f'{{"query": "{QUESTIONS[0]}", "mode": "retrieve", "top_k": 1}}'
        _curl(url, body)
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(30)
    _say(f"Done. Serve it yourself with: {scripts.parent}/bin/rag serve --bundle {OUTPUT}")


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _show(command: Sequence[object]) -> list[str]:
    words = [str(word) for word in command]
    print(f"$ {shlex.join([Path(words[0]).name, *words[1:]])}", flush=True)
    return words


def _run(command: Sequence[object]) -> None:
    result = subprocess.run(_show(command), check=False)  # noqa: S603 - our own commands
    if result.returncode:
        sys.exit(result.returncode)


def _curl(url: str, body: str) -> None:
    print(f"$ curl {url}/invocations -H 'Content-Type: application/json' -d '{body}'", flush=True)
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/invocations", body.encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310 - our own service
        print(reply.read().decode())


def _wait_until_ready(service: subprocess.Popen[bytes], url: str) -> None:
    started = time.monotonic()
    while time.monotonic() - started < START_TIMEOUT_S:
        if service.poll() is not None:
            sys.exit(f"the service ended with code {service.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=2):  # noqa: S310 - our own service
                print(f"/ping is 200 after {time.monotonic() - started:.1f} s", flush=True)
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    sys.exit(f"the service was not ready within {START_TIMEOUT_S} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
