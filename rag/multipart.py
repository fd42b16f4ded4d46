"""Large files to S3 in parts, with the same conditions as a single write.

obstore's multipart uploads cannot be made conditional, and its single writes hold the whole file
in memory, so that this one way goes through botocore.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rag.errors import ConditionFailed, ConfigurationError, StorageError

ABOVE_BYTES = 64 * 1024 * 1024
"""Files up to this size are written in one request."""
_WORKERS = 4
_MOST_PARTS = 10_000


def upload(uri: str, key: str, path: Path, *, expected: str | None) -> str:
    """Writes `path` to `key` below the s3:// prefix `uri`; returns the ETag.

    At most four parts are in memory. The object appears when all parts are there, and only if
    it is still as `expected` (None: absent): ConditionFailed otherwise, and nothing is left
    behind. Raises StorageError for everything else.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    client = _client()
    where = urlsplit(uri)
    target = {"Bucket": where.netloc, "Key": f"{where.path.strip('/')}/{key}".lstrip("/")}
    condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
    try:
        upload_id = client.create_multipart_upload(**target)["UploadId"]
        try:
            parts = _parts(client, target, upload_id, path)
            done = client.complete_multipart_upload(
                **target, UploadId=upload_id, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException:
            client.abort_multipart_upload(**target, UploadId=upload_id)
            raise
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
            raise ConditionFailed(
                f"{uri}/{key} was written by someone else; nothing was written"
            ) from None
        raise StorageError(f"{uri}/{key}: {error}") from error
    except (BotoCoreError, OSError) as error:
        raise StorageError(f"{uri}/{key}: {error}") from error
    return str(done["ETag"])


def part_bytes(size: int) -> int:
    """Bytes of each part but the last of a file of `size` bytes."""
    least = 16 * 1024 * 1024
    return max(least, -(-size // _MOST_PARTS))


def _parts(client: Any, target: dict[str, str], upload_id: str, path: Path) -> list[dict[str, Any]]:
    size = path.stat().st_size
    step = part_bytes(size)

    def send(number: int) -> dict[str, Any]:
        with path.open("rb") as source:
            source.seek((number - 1) * step)
            data = source.read(step)
        sent = client.upload_part(**target, UploadId=upload_id, PartNumber=number, Body=data)
        return {"PartNumber": number, "ETag": sent["ETag"]}

    with ThreadPoolExecutor(_WORKERS) as pool:
        return list(pool.map(send, range(1, -(-size // step) + 1)))


def _client() -> Any:
    try:
        from botocore.config import Config
        from botocore.session import get_session
    except ImportError:
        raise ConfigurationError(
            f"files above {ABOVE_BYTES >> 20} MiB are uploaded with botocore, which is not"
            " installed: install rag-containers[indexer]"
        ) from None
    own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    style = {"addressing_style": "path"} if own else {}
    config = Config(
        retries={"mode": "standard", "max_attempts": 8}, max_pool_connections=_WORKERS, s3=style
    )
    return get_session().create_client(
        "s3", region_name=os.environ.get("AWS_REGION"), config=config
    )
