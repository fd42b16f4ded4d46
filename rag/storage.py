"""Folders and object stores behind one protocol, with the conditional writes that publishing needs.

`s3://`, `gs://` and `az://` go through obstore, which reads credentials and endpoints from the
usual environment variables and instance roles. Folders are served by the file system itself,
because file names may hold what object keys may not, and because replacing a pointer only when it
is unchanged needs a lock there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from rag import multipart
from rag.errors import ConditionFailed, ConfigurationError, ObjectNotFound, StorageError

_REMOTE = ("s3", "s3a", "gs", "az", "abfs", "abfss")
_PART_BYTES = 8 * 1024 * 1024
_TEMPORARY = ".rag-tmp-"


class ObjectInfo(NamedTuple):
    """One object: its key below the store's root, size in bytes, and a mark that changes whenever
    the content may have changed (on an object store the ETag that `write` expects; in a folder
    made from time and size, cheaper than reading, and not what `write` expects). `modified` is
    when it was written, seconds since the epoch.
    """

    key: str
    size: int
    etag: str
    modified: float = 0.0


class Store(Protocol):
    """A tree of objects under one URI. Keys are '/' separated, relative, and never contain '..'.

    Raises ObjectNotFound for a key that is not there, ConditionFailed for a conditional write
    that lost, StorageError for everything else that the store reports.
    """

    @property
    def uri(self) -> str: ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key begins with the folder `prefix`, ascending by key."""
        ...

    def read(self, key: str) -> tuple[bytes, str]:
        """The object's bytes and ETag."""
        ...

    def read_unless(self, key: str, etag: str) -> tuple[bytes, str] | None:
        """`read`, or None without a transfer if the object's ETag is still `etag`."""
        ...

    def info(self, key: str) -> ObjectInfo:
        """What `list` says of one object."""
        ...

    def read_range(self, info: ObjectInfo, start: int, end: int) -> bytes:
        """Bytes start..end-1 of the object that `info` describes; ConditionFailed if an object
        store holds another by now.
        """
        ...

    def download(self, key: str, target: Path) -> None:
        """Copies an object into a new file, in parts; memory stays bounded."""
        ...

    def write(self, key: str, data: bytes | Path, *, expected: str | None) -> str:
        """Writes an object if it is still as `expected` (None: if it does not exist); returns its
        new ETag. Readers see the old object or the new one, never a part.
        """
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Removes objects; those that are not there are no error."""
        ...


def open_store(uri: str) -> Store:
    """The store for a folder's path, a `file://` URI or an object store's URI."""
    scheme = urlsplit(uri).scheme.lower() if "://" in uri else ""
    if scheme in _REMOTE:
        return _ObjectStore(uri)
    if scheme == "file":
        return _Folder(Path(unquote(urlsplit(uri).path)))
    if scheme:
        raise ConfigurationError(
            f"{uri}: scheme '{scheme}' is not known; use a folder, or one of {', '.join(_REMOTE)}"
        )
    return _Folder(Path(uri))


def is_remote(uri: str) -> bool:
    """Whether `uri` names an object store and not a folder of this machine."""
    return "://" in uri and urlsplit(uri).scheme.lower() in _REMOTE


def join(uri: str, *parts: str) -> str:
    """`uri` with further path segments."""
    return "/".join([uri.rstrip("/"), *parts])


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def uri(self) -> str:
        return str(self._root)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        base = self._path(prefix) if prefix else self._root
        if not base.exists():
            return
        for key in sorted(self._keys(base)):
            with contextlib.suppress(ObjectNotFound):  # gone since it was listed
                yield self.info(key)

    def read(self, key: str) -> tuple[bytes, str]:
        with self._reporting(key):
            data = self._path(key).read_bytes()
        return data, hashlib.sha256(data).hexdigest()

    def read_unless(self, key: str, etag: str) -> tuple[bytes, str] | None:
        found = self.read(key)
        return None if found[1] == etag else found

    def info(self, key: str) -> ObjectInfo:
        with self._reporting(key):
            found = self._path(key).stat()
        mark = f"{found.st_mtime_ns:x}-{found.st_size:x}"
        return ObjectInfo(key, found.st_size, mark, found.st_mtime)

    def read_range(self, info: ObjectInfo, start: int, end: int) -> bytes:
        with self._reporting(info.key), self._path(info.key).open("rb") as source:
            source.seek(start)
            return source.read(end - start)

    def download(self, key: str, target: Path) -> None:
        with self._reporting(key), self._path(key).open("rb") as source, target.open("xb") as sink:
            while part := source.read(_PART_BYTES):
                sink.write(part)

    def write(self, key: str, data: bytes | Path, *, expected: str | None) -> str:
        path = self._path(key)
        with self._reporting(key):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except (NotADirectoryError, FileExistsError):
                raise StorageError(
                    f"{path.parent} cannot be made: a file is where a folder must be; name another"
                    " place"
                ) from None
            with self._written(path, data) as (temporary, digest):
                if expected is None:
                    self._create(temporary, path)
                else:
                    self._swap(temporary, path, expected)
        return digest

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self._path(key)
            with self._reporting(key):
                path.unlink(missing_ok=True)
            self._drop_empty(path.parent)

    def _drop_empty(self, folder: Path) -> None:
        """Folders are only where keys lie: an empty one goes, up to the root."""
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _create(self, temporary: Path, path: Path) -> None:
        try:
            path.hardlink_to(temporary)  # unlike a rename, it fails where a file is
        except FileExistsError:
            raise ConditionFailed(f"{path} exists already; nothing was written") from None

    def _swap(self, temporary: Path, path: Path, expected: str) -> None:
        lock = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists() or _digest(path) != expected:
                raise ConditionFailed(
                    f"{path} was changed by someone else; nothing was written"
                ) from None
            temporary.replace(path)
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _written(self, path: Path, data: bytes | Path) -> Iterator[tuple[Path, str]]:
        """A synced temporary file beside `path` and its SHA-256; gone afterwards."""
        digest = hashlib.sha256()
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                for part in _parts(data):
                    digest.update(part)
                    sink.write(part)
                sink.flush()
                os.fsync(sink.fileno())
            temporary.chmod(0o644)
            yield temporary, digest.hexdigest()
        finally:
            temporary.unlink(missing_ok=True)

    def _keys(self, base: Path) -> Iterator[str]:
        for folder, names, files in os.walk(base):
            names.sort()
            for name in files:
                path = Path(folder, name)
                if not name.startswith(_TEMPORARY) and path.is_file():
                    yield path.relative_to(self._root).as_posix()

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or ".." in parts:
            raise StorageError(f"'{key}' is not a key below {self.uri}; keys are relative paths")
        return self._root.joinpath(*parts)

    @contextlib.contextmanager
    def _reporting(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectNotFound(f"{self.uri}/{key} is not there") from None
        except OSError as error:
            raise StorageError(f"{self.uri}/{key}: {error.strerror or error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _parts(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    with data.open("rb") as source:
        while part := source.read(_PART_BYTES):
            yield part


class _ObjectStore:
    def __init__(self, uri: str) -> None:
        from obstore.store import from_url

        self._uri = uri.rstrip("/")
        parts = urlsplit(self._uri)
        # Directory buckets (S3 Express) are the ones that do not list in order.
        self._in_order = parts.scheme in ("s3", "s3a") and not parts.netloc.endswith("--x-s3")
        options: dict[str, Any] = {}
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        if endpoint.startswith("http://"):
            options["client_options"] = {"allow_http": True}
        with self._reporting(""):
            self._store = from_url(self._uri, **options)

    @property
    def uri(self) -> str:
        return self._uri

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        import obstore

        with self._reporting(prefix):
            pages = obstore.list(self._store, prefix=prefix or None)
            found = (_info(meta) for page in pages for meta in page)
            # S3 lists in key order and is read page by page; others promise no order.
            yield from found if self._in_order else sorted(found)

    def info(self, key: str) -> ObjectInfo:
        import obstore

        with self._reporting(key):
            return _info(obstore.head(self._store, key))

    def read_range(self, info: ObjectInfo, start: int, end: int) -> bytes:
        import obstore

        options: Any = {"range": (start, end), "if_match": info.etag}
        with self._reporting(info.key):
            return bytes(obstore.get(self._store, info.key, options=options).bytes())

    def read(self, key: str) -> tuple[bytes, str]:
        import obstore

        with self._reporting(key):
            result = obstore.get(self._store, key)
            return bytes(result.bytes()), result.meta["e_tag"] or ""

    def read_unless(self, key: str, etag: str) -> tuple[bytes, str] | None:
        import obstore
        from obstore.exceptions import NotModifiedError

        with self._reporting(key):
            try:
                result = obstore.get(self._store, key, options={"if_none_match": etag})
            except NotModifiedError:
                return None
            return bytes(result.bytes()), result.meta["e_tag"] or ""

    def download(self, key: str, target: Path) -> None:
        import obstore

        with self._reporting(key), target.open("xb") as sink:
            for part in obstore.get(self._store, key).stream(min_chunk_size=_PART_BYTES):
                sink.write(part)

    def write(self, key: str, data: bytes | Path, *, expected: str | None) -> str:
        import obstore

        if isinstance(data, Path) and self._in_parts(data):
            return multipart.upload(self._uri, key, data, expected=expected)
        with self._reporting(key):
            mode: Any = "create" if expected is None else {"e_tag": expected}
            result = obstore.put(self._store, key, data, mode=mode, use_multipart=False)
            return result["e_tag"] or ""

    def delete(self, keys: Sequence[str]) -> None:
        import obstore

        with self._reporting(""):
            try:
                obstore.delete(self._store, list(keys))
            except FileNotFoundError:
                for key in keys:  # one that is not there must not stop the others
                    with contextlib.suppress(FileNotFoundError):
                        obstore.delete(self._store, key)

    def _in_parts(self, path: Path) -> bool:
        # Google's and Azure's stores take a large file in one request, held in memory.
        return self._uri.startswith("s3") and path.stat().st_size > multipart.ABOVE_BYTES

    @contextlib.contextmanager
    def _reporting(self, key: str) -> Iterator[None]:
        from obstore import exceptions as remote

        where = f"{self._uri}/{key}" if key else self._uri
        try:
            yield
        except (remote.NotFoundError, FileNotFoundError):
            raise ObjectNotFound(f"{where} is not there") from None
        except (remote.AlreadyExistsError, remote.PreconditionError):
            raise ConditionFailed(
                f"{where} was written by someone else; nothing was written"
            ) from None
        except (remote.BaseError, OSError, ValueError) as error:
            raise StorageError(f"{where}: {_one_line(error)}") from error


def _info(meta: Any) -> ObjectInfo:
    modified = meta["last_modified"].timestamp()
    return ObjectInfo(meta["path"], meta["size"], meta["e_tag"] or "", modified)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
