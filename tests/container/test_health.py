"""Checklist, Health: /ping."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def test_item_07_loading_is_503_within_two_seconds(serve: Any) -> None:
    seen = set()
    with serve(ready=False) as service:
        while (status := service.endpoint.ping()) != 200:
            assert service.container.running, service.container.logs()
            seen.add(status)
            time.sleep(0.02)
    # 0: nothing listened yet; a reply later than two seconds would be a 0 after a 503.
    assert 503 in seen
    assert seen <= {0, 503}


def test_item_08_ready_is_200_with_an_empty_body(served: Any) -> None:
    for method in ("GET", "POST"):
        reply = served.endpoint.send(method, "/ping")
        assert (reply.status, reply.body) == (200, b"")


def test_item_09_ping_answers_while_saturated(served: Any) -> None:
    line = json.dumps({"query": "reset the lamp", "mode": "retrieve"}).encode()
    body = b"\n".join(line.replace(b"lamp", b"lamp %d" % i) for i in range(300))
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(served.post, body, "application/jsonlines") for _ in range(8)]
        pings = []
        while not all(future.done() for future in asked):
            pings.append(served.endpoint.ping())
        assert {future.result().status for future in asked} == {200}
    # ping() gives up after two seconds, with 0.
    assert set(pings) == {200}


def test_item_10_a_damaged_bundle_never_gives_200_and_is_named(serve: Any, damaged: Path) -> None:
    with serve(damaged, ready=False) as service:
        seen = {service.endpoint.ping() for _ in iter(lambda: service.container.running, False)}
        assert 200 not in seen
        assert service.container.exit_code == 1
        assert any("chunks.arrow" in line["message"] for line in service.lines())


def test_item_10_a_missing_bundle_never_gives_200_and_is_named(serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path, ready=False) as service:
        seen = {service.endpoint.ping() for _ in iter(lambda: service.container.running, False)}
        assert 200 not in seen
        assert service.container.exit_code == 1
        assert any("/opt/ml/model" in line["message"] for line in service.lines())


def test_item_11_a_crash_ends_the_container_with_a_failure(serve: Any) -> None:
    with serve() as service:
        service.container.signal("KILL")
        service.until(lambda: not service.container.running)
        assert service.container.exit_code != 0
