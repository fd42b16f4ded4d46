"""An S3 API on this machine (moto's server), and what the platform does with objects."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sagemaker_local.errors import InvalidInput, StartFailed

START_S = 60.0


class Objects:
    """Buckets behind one endpoint."""

    def __init__(self, url: str) -> None:
        import boto3

        self.environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": "us-east-1",
        }
        self._client: Any = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="local",
            aws_secret_access_key="local",  # noqa: S106 - of a server of this process
        )  # fmt: skip

    def create(self, bucket: str) -> None:
        self._client.create_bucket(Bucket=bucket)

    def upload(self, path: Path, uri: str) -> None:
        """A file to the key, or every file of a folder below the prefix."""
        bucket, key = _split(uri)
        if path.is_file():
            self._client.upload_file(str(path), bucket, key)
            return
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            name = f"{key}/{file.relative_to(path).as_posix()}"
            self._client.upload_file(str(file), bucket, name)

    def download(self, uri: str, folder: Path) -> None:
        """Every object below the prefix, as a channel in File mode gets them."""
        bucket, prefix = _split(uri)
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for item in (item for page in pages for item in page.get("Contents", [])):
            name = item["Key"].removeprefix(prefix).lstrip("/") or Path(prefix).name
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(bucket, item["Key"], str(folder / name))

    def delete(self, uri: str) -> None:
        bucket, key = _split(uri)
        self._client.delete_object(Bucket=bucket, Key=key)


@contextlib.contextmanager
def object_store() -> Iterator[Objects]:
    """A server in a process of its own, gone at the end with all that it held."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise StartFailed("the S3 server did not start; pip install 'moto[s3,server]'")
            time.sleep(0.1)
        yield Objects(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    """A port of this machine where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _split(uri: str) -> tuple[str, str]:
    if not uri.startswith("s3://"):
        raise InvalidInput(f"{uri!r} is no s3:// address")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key.rstrip("/")
