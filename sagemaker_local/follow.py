"""`make follow-demo`: documents on S3, a processing job that publishes, a service that follows it;
documents change, the job runs again, and the service swaps without losing a request.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from sagemaker_local import jobs
from sagemaker_local.engine import Engine
from sagemaker_local.errors import LocalError
from sagemaker_local.hosting import Endpoint, endpoint
from sagemaker_local.s3 import Objects, free_port, object_store
from sagemaker_local.train_deploy import DOCUMENTS

BUCKET = "follow"
ROOT = f"s3://{BUCKET}/bundle"
NEW = ("operations/coffee.md", "# Coffee\n\nThe espresso machine on floor 3 is cleaned on Fridays.")
QUESTION = "When is the espresso machine cleaned?"
CALLERS = 4
SWAP_S = 300.0


class Load:
    """Callers that ask without a pause, and count what came back by status and version."""

    def __init__(self, served: Endpoint) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[str] = Counter()
        self._served = served
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CALLERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self) -> None:
        body = json.dumps({"query": QUESTION, "mode": "retrieve", "top_k": 1}).encode()
        headers = {"content-type": "application/json"}
        while not self._stop.is_set():
            reply = self._served.send("POST", "/invocations", body, headers)
            version = reply.json()["index_version"] if reply.status == 200 else ""
            with self._lock:
                self.statuses[reply.status] += 1
                self.versions[version] += 1


def publish(engine: Engine, image: str, objects: Objects, work: Path) -> str:
    """Runs the processing job from s3://…/documents to the root; what it prints."""
    arguments = [
        "process", "--source", f"s3://{BUCKET}/documents", "--output", ROOT, "--layout", "root",
    ]  # fmt: skip
    ended, _ = jobs.process(
        engine, image, work, arguments=arguments, inputs={}, outputs=[],
        environment=objects.environment, flags=["--network", "host"],
    )  # fmt: skip
    if ended.exit_code:
        raise LocalError(f"the processing job failed: {ended.reason}\n{ended.log[-2000:]}")
    return ended.log


def swap(engine: Engine, indexer: str, objects: Objects, served: Endpoint, work: Path) -> Load:
    """Changes the documents, publishes under load, and waits for the new version to answer."""
    changed = work / "changed.md"
    changed.write_text(NEW[1], encoding="utf-8")
    with Load(served) as load:
        before = time.monotonic()
        while not load.versions and time.monotonic() - before < SWAP_S:
            time.sleep(0.1)
        objects.upload(changed, f"s3://{BUCKET}/documents/{NEW[0]}")
        publish(engine, indexer, objects, work / "second")
        published = time.monotonic()
        while len(load.versions) < 2:
            if time.monotonic() - published > SWAP_S:
                raise LocalError(
                    f"no swap within {SWAP_S:.0f} s: {served.container.logs()[-2000:]}"
                )
            time.sleep(0.1)
        print(f"the service swapped {time.monotonic() - published:.1f} s after publication")
        time.sleep(1)
    return load


def main() -> None:
    """Runs the whole chain; fails if a request was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=Path, default=DOCUMENTS)
    parser.add_argument("--inference", default="rag-inference")
    parser.add_argument("--indexer", default="rag-indexer")
    given = parser.parse_args()
    engine, port = Engine.find(), free_port()
    with object_store() as objects, tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        objects.create(BUCKET)
        objects.upload(given.documents, f"s3://{BUCKET}/documents")
        publish(engine, given.indexer, objects, work / "first")
        print(f"the processing job published {ROOT}")
        settings = objects.environment | {"RAG_BUNDLE": ROOT, "RAG_FOLLOW_INTERVAL_S": "1"}
        with endpoint(
            engine, given.inference, None, environment=settings, host_network=True, port=port
        ) as served:
            print(f"/ping is 200 after {served.wait():.1f} s")
            load = swap(engine, given.indexer, objects, served, work)
            reply = served.invoke(json.dumps({"query": QUESTION, "top_k": 1}).encode()).json()
    print(f"requests by status: {dict(load.statuses)}, by version: {dict(load.versions)}")
    print(f"\n{QUESTION}\n{reply['answer']}  ({reply['passages'][0]['uri']})")
    if set(load.statuses) != {200}:
        raise SystemExit("requests were lost")


if __name__ == "__main__":
    main()
