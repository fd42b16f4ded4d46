"""`make train-deploy`: documents on S3, a training job, its model.tar.gz deployed, an answer."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from sagemaker_local import jobs
from sagemaker_local.engine import Engine
from sagemaker_local.errors import LocalError
from sagemaker_local.hosting import endpoint
from sagemaker_local.layout import extract_model
from sagemaker_local.s3 import Objects, object_store

DOCUMENTS = Path(__file__).parents[1] / "eval" / "sample" / "documents"
QUESTION = "How long does SageMaker wait between SIGTERM and SIGKILL?"
BUCKET = "train-deploy"


def train(engine: Engine, image: str, objects: Objects, work: Path) -> str:
    """Trains on s3://…/documents; the address of the model.tar.gz."""
    objects.download(f"s3://{BUCKET}/documents", work / "channel")
    channels = [{"documents": work / "channel"}]
    isolated = ["--network", "none"]
    with jobs.training(
        engine, image, work / "job", hyperparameters={"safetensors": False}, channels=channels,
        flags=isolated,
    ) as hosts:  # fmt: skip
        ended = hosts[0].end()
        if ended.exit_code:
            raise LocalError(f"the training job failed: {ended.reason}\n{ended.log[-2000:]}")
        archive = work / "model.tar.gz"
        if problems := jobs.model_archive(hosts, archive, work / "merged"):
            raise LocalError(f"links or clashing names in the model: {', '.join(problems)}")
    uri = f"s3://{BUCKET}/models/model.tar.gz"
    objects.upload(archive, uri)
    return uri


def deploy(engine: Engine, image: str, objects: Objects, uri: str, work: Path) -> str:
    """Serves the archive without any network; the reply to QUESTION."""
    objects.download(uri, work / "archive")
    extract_model(work / "archive" / "model.tar.gz", work / "model")
    with endpoint(engine, image, work / "model", isolated=True) as served:
        print(f"/ping is 200 after {served.wait():.1f} s, without a network")
        reply = served.invoke(json.dumps({"query": QUESTION, "top_k": 2}).encode())
        print(f"exit code {served.stop()} after SIGTERM")
    return reply.body.decode()


def main() -> None:
    """Runs the whole chain and prints the answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=Path, default=DOCUMENTS)
    parser.add_argument("--inference", default="rag-inference")
    parser.add_argument("--indexer", default="rag-indexer")
    given = parser.parse_args()
    engine = Engine.find()
    with object_store() as objects, tempfile.TemporaryDirectory() as work:
        objects.create(BUCKET)
        objects.upload(given.documents, f"s3://{BUCKET}/documents")
        print(f"documents are at s3://{BUCKET}/documents")
        uri = train(engine, given.indexer, objects, Path(work))
        print(f"the training job left {uri}")
        reply = json.loads(deploy(engine, given.inference, objects, uri, Path(work)))
    print(f"\n{QUESTION}\n{reply['answer']}")
    for passage in reply["passages"]:
        print(f"  [{passage['rank']}] {passage['uri']}")


if __name__ == "__main__":
    main()
