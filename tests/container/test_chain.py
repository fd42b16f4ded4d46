"""From documents on S3 to answers: train and deploy; process, follow, swap; no request is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sagemaker_local import follow, train_deploy
from sagemaker_local.hosting import endpoint
from sagemaker_local.s3 import free_port, object_store


def test_train_then_deploy(
    engine: Any, inference: str, indexer: str, documents: Path, tmp_path: Path
) -> None:
    with object_store() as objects:
        objects.create(train_deploy.BUCKET)
        objects.upload(documents, f"s3://{train_deploy.BUCKET}/documents")
        uri = train_deploy.train(engine, indexer, objects, tmp_path)
        reply = json.loads(train_deploy.deploy(engine, inference, objects, uri, tmp_path))
    assert len(reply["passages"]) == 2


def test_process_then_follow_then_swap_without_a_lost_request(
    engine: Any, inference: str, indexer: str, documents: Path, tmp_path: Path
) -> None:
    with object_store() as objects:
        objects.create(follow.BUCKET)
        objects.upload(documents, f"s3://{follow.BUCKET}/documents")
        follow.publish(engine, indexer, objects, tmp_path / "first")
        settings = objects.environment | {"RAG_BUNDLE": follow.ROOT, "RAG_FOLLOW_INTERVAL_S": "1"}
        with endpoint(
            engine, inference, None, environment=settings, host_network=True, port=free_port()
        ) as served:
            served.wait()
            load = follow.swap(engine, indexer, objects, served, tmp_path)
            body = json.dumps({"query": follow.QUESTION, "mode": "retrieve", "top_k": 1}).encode()
            found = served.invoke(body).json()["passages"][0]["doc_id"]
    assert set(load.statuses) == {200}
    assert len(load.versions) == 2
    assert found == follow.NEW[0]
