"""Many bundles in one process, loaded and unloaded while it serves: the platform's multi-model
contract, in which a bundle is called a model.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rag.errors import BundleError, BundleLoaded, InvalidRequest, NoSuchBundle
from rag.index.fetching import locate
from rag.index.seal import read_manifest
from rag.models.onnx_embedder import GRAPHS, WEIGHTS
from rag.service.bundles import Bundles
from rag.service.memory import Footprint, Ledger, resident_bytes

logger = logging.getLogger(__name__)

ENCODER = "encoder/"
PAGE = 100
"""Models on one page of the list."""


@dataclass(frozen=True, slots=True)
class Model:
    """One loaded bundle, as it was asked for."""

    name: str
    url: str


class Page(NamedTuple):
    """A part of the list, by name; `next_token` asks for the part after it, None: there is none."""

    models: list[Model]
    next_token: str | None


class Models:
    """The bundles of one service by opaque names, within the memory of `ledger`.

    Only folders below `folder` can be loaded. `encoder` is the (backend, precision) that runs the
    encoders. Lives on the service's event loop; one bundle is loaded or unloaded at a time.
    """

    def __init__(
        self, bundles: Bundles, ledger: Ledger, folder: Path, *, encoder: tuple[str, str]
    ) -> None:
        self._bundles = bundles
        self._ledger = ledger
        self._folder = folder
        self._encoder = encoder
        self._models: dict[str, tuple[Model, Footprint]] = {}
        self._coming: set[str] = set()
        self._lock = asyncio.Lock()

    async def load(self, name: str, url: str) -> Model:
        """Loads the bundle in the folder `url` as `name`; returns when it answers.

        Raises InvalidRequest, BundleLoaded, NoSuchBundle where there is no bundle that can be
        served, OutOfMemory; the other bundles are served meanwhile and afterwards.
        """
        if not name:
            raise InvalidRequest("model_name is empty; send the name to load the bundle under")
        if name in self._models or name in self._coming:
            raise BundleLoaded("a model of this name is loaded; delete it first")
        self._coming.add(name)
        try:
            async with self._lock:
                return await self._load(Model(name, url))
        finally:
            self._coming.discard(name)

    async def unload(self, name: str) -> None:
        """Returns when the bundle is gone from memory; requests that use it end first.

        Raises NoSuchBundle.
        """
        self.get(name)
        _, footprint = self._models.pop(name)
        try:
            await self._bundles.unload(name)
        finally:
            self._ledger.remove(footprint)
        logger.info("unloaded a bundle", extra={"bundle": name})

    def get(self, name: str) -> Model:
        """Raises NoSuchBundle."""
        if name not in self._models:
            raise NoSuchBundle("no such model is loaded; GET /models lists those that are")
        return self._models[name][0]

    def page(self, token: str | None) -> Page:
        """The models after `token`, which an earlier page gave; None: from the first.

        Raises InvalidRequest for a token that no page gave.
        """
        after = "" if token is None else _name_of(token)
        names = sorted(name for name in self._models if name > after)
        shown = [self._models[name][0] for name in names[:PAGE]]
        return Page(shown, _token(shown[-1].name) if len(names) > PAGE else None)

    async def _load(self, model: Model) -> Model:
        try:
            folder = self._locate(model.url)
            footprint = _footprint(folder, *self._encoder)
        except BundleError as error:
            raise NoSuchBundle(str(error)) from error
        self._ledger.add(footprint)
        before = resident_bytes()
        try:
            version = await self._bundles.replace(str(folder), bundle=model.name)
        except BundleError as error:
            self._ledger.remove(footprint)
            raise NoSuchBundle(str(error)) from error
        except BaseException:
            self._ledger.remove(footprint)
            raise
        footprint = self._ledger.correct(footprint, resident_bytes() - before)
        self._models[model.name] = model, footprint
        extra = {"bundle": model.name, "index_version": version, "bytes": footprint.own}
        logger.info("loaded a bundle", extra=extra)
        return model

    def _locate(self, url: str) -> Path:
        """The bundle's folder; NoSuchBundle for what is not below the folder of models."""
        path, top = Path(url.removeprefix("file://")).resolve(), self._folder.resolve()
        if not path.is_relative_to(top) or not path.is_dir():
            raise NoSuchBundle(f"url names no folder below {self._folder}; send one that is there")
        return locate(str(path))


def _footprint(folder: Path, backend: str, precision: str) -> Footprint:
    """What the bundle in `folder` will take, by its files: they are mapped, or read into memory."""
    manifest = read_manifest(folder)
    sizes = {name: entry.size for name, entry in manifest.files.items()}
    own = sum(size for name, size in sizes.items() if not name.startswith(ENCODER))
    if backend == "torch":
        encoder = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
    else:
        encoder = sizes.get(ENCODER + GRAPHS[precision], 0)
        if precision == "float32":
            encoder += sizes.get(ENCODER + WEIGHTS, 0)
    return Footprint(own, encoder, manifest.encoder["digest"])


def _token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode("utf-8", "surrogatepass")).decode()


def _name_of(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), b"-_", validate=True).decode(
            "utf-8", "surrogatepass"
        )
    except ValueError:
        raise InvalidRequest("next_page_token is not one that a page gave; leave it out") from None
