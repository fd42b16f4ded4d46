"""API keys: who may ask, of which bundles, and what their searches never leave."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from rag import logs
from rag.errors import ConfigurationError, Forbidden, InvalidFilter, Unauthorized
from rag.index import filters
from rag.service.schemas import InvocationRequest

logger = logging.getLogger(__name__)

MIN_KEY_CHARS = 16
"""Keys are made by machines (`rag key`): one that is shorter can be guessed."""
RELOAD_S = 1.0
"""How often a key file is looked at, at most."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What one key allows: every search is within `where`, and asks one of `bundles` (None: any);
    `manage` lets it load and unload bundles. `name` is what logs may call it.
    """

    name: str
    where: Mapping[str, Any] | None = None
    bundles: frozenset[str] | None = None
    manage: bool = False

    def may_ask(self, bundle: str) -> bool:
        return self.bundles is None or bundle in self.bundles

    def narrowed(self, where: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """`where` and the claim together; raises InvalidFilter for a `where` that is not valid."""
        if self.where is None:
            return where
        if where is None:
            return self.where
        filters.parse(where)  # so that an error names the request's own filter, not the claim
        return {"$and": [self.where, where]}


EVERYONE = Claims("", manage=True)
"""Where there are no keys."""


class Access:
    """The keys of one service; without `keys` and `file`, everybody may ask everything.

    `keys` is the JSON itself, `file` a file that holds it and is read again when it changes; a
    change that cannot be read leaves the keys as they were. The JSON is `{"keys": [entry, …]}`:
    `name`, then `key` or its `sha256` as hex, and the claims `filter`, `bundles`, `manage`.
    Raises ConfigurationError.
    """

    def __init__(self, keys: str | None = None, file: Path | None = None) -> None:
        self._file = file
        self._stamp: tuple[int, ...] = ()
        self._looked = time.monotonic()
        self._known: dict[bytes, Claims] | None = None
        if file is not None:
            self._stamp = _stamp(file)
            self._known = _parse(_read(file), str(file))
        elif keys is not None:
            self._known = _parse(keys, "RAG_API_KEYS")

    @property
    def required(self) -> bool:
        """Whether requests need a key."""
        return self._known is not None

    def claims(self, credential: str) -> Claims:
        """What `credential` ('' for none) allows; Unauthorized if it is not one of the keys."""
        if self._known is None:
            return EVERYONE
        self._refresh()
        if not credential:
            raise Unauthorized(
                "an API key is needed; send it as 'Authorization: Bearer …', as api_key in the"
                " body, or as api_key=… in the custom attributes"
            )
        digest = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()
        found: Claims | None = None
        for known, claims in self._known.items():  # all of them: time tells nothing
            if hmac.compare_digest(known, digest):
                found = claims
        if found is None:
            raise Unauthorized("the API key is not known; check it, or ask for a new one")
        return found

    def admit(self, request: InvocationRequest, credential: str, bundle: str) -> InvocationRequest:
        """`request` as its key lets it search `bundle`; a key in the body wins over `credential`.
        The log lines of the current task name the key from here on.

        Raises Unauthorized, Forbidden where the key may not ask this bundle, InvalidFilter.
        """
        if self._known is None:
            return request
        own = request.api_key
        claims = self.check(credential if own is None else own.get_secret_value(), bundle)
        where = claims.narrowed(request.filter)
        return request if where is request.filter else request.model_copy(update={"filter": where})

    def check(self, credential: str, bundle: str) -> Claims:
        """What `credential` allows; raises Unauthorized, and Forbidden where not this bundle."""
        claims = self.claims(credential)
        logs.note(key=claims.name)
        if not claims.may_ask(bundle):
            raise Forbidden(f"the key '{claims.name}' may not ask this bundle; use another key")
        return claims

    def manager(self, credential: str) -> Claims:
        """Raises Unauthorized or Forbidden unless `credential` may load and unload bundles."""
        claims = self.claims(credential)
        if not claims.manage:
            raise Forbidden(f"the key '{claims.name}' may not manage bundles; use one that may")
        return claims

    def _refresh(self) -> None:
        """Reads a changed key file again, at most once in RELOAD_S."""
        now = time.monotonic()
        if self._file is None or now - self._looked < RELOAD_S:
            return
        self._looked = now
        try:
            stamp = _stamp(self._file)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._known = _parse(_read(self._file), str(self._file))
        except ConfigurationError as error:
            logger.error("the API keys stay as they were: %s", error)
        else:
            logger.info("read %d API keys from %s", len(self._known), self._file)


class _Entry(BaseModel):
    """One key as the file has it."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:\-]{1,64}$")]
    key: SecretStr | None = None
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    filter: dict[str, Any] | None = None
    bundles: list[str] | None = None
    manage: bool = False

    def digest(self) -> bytes:
        if (self.key is None) == (self.sha256 is None):
            raise ConfigurationError("give 'key' or 'sha256', one of the two")
        if self.sha256 is not None:
            return bytes.fromhex(self.sha256)
        plain = self.key.get_secret_value() if self.key else ""
        if len(plain) < MIN_KEY_CHARS:
            raise ConfigurationError(f"the key is shorter than {MIN_KEY_CHARS} characters")
        return hashlib.sha256(plain.encode()).digest()

    def claims(self) -> Claims:
        if self.filter is not None:
            filters.parse(self.filter)
        bundles = None if self.bundles is None else frozenset(self.bundles)
        return Claims(self.name, self.filter, bundles, self.manage)


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    keys: list[_Entry] = Field(min_length=1)


def _parse(text: str, where: str) -> dict[bytes, Claims]:
    """The claims of each key by its SHA-256; raises ConfigurationError that holds no key."""
    try:
        entries = _Keys.model_validate_json(text).keys
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{where}: {place}: {first['msg']}") from None
    known: dict[bytes, Claims] = {}
    names: set[str] = set()
    for entry in entries:
        try:
            digest, claims = entry.digest(), entry.claims()
        except (ConfigurationError, InvalidFilter) as error:
            raise ConfigurationError(f"{where}: key '{entry.name}': {error}") from None
        if digest in known or entry.name in names:
            raise ConfigurationError(
                f"{where}: key '{entry.name}': the same name or key is there twice; remove one"
            )
        known[digest] = claims
        names.add(entry.name)
    return known


def new_key(
    name: str, where: Mapping[str, Any] | None, bundles: Sequence[str] | None, *, manage: bool
) -> tuple[str, dict[str, Any]]:
    """A new key of 256 random bits, and its entry, which does not hold it.

    Raises ConfigurationError for a name or claims that a key file may not hold.
    """
    secret = f"rag-{secrets.token_urlsafe(32)}"
    entry: dict[str, Any] = {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest()}
    if where is not None:
        entry["filter"] = where
    if bundles:
        entry["bundles"] = list(bundles)
    if manage:
        entry["manage"] = True
    _parse(json.dumps({"keys": [entry]}), "the new key")
    return secret, entry


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"RAG_API_KEYS_FILE cannot be read: {error}; name a readable file"
        ) from None


def _stamp(file: Path) -> tuple[int, ...]:
    """What changes when the file does, links followed: mounted secrets are swapped by a link."""
    try:
        status = os.stat(file)
    except OSError as error:
        raise ConfigurationError(
            f"RAG_API_KEYS_FILE cannot be read: {error}; name a readable file"
        ) from None
    return (status.st_mtime_ns, status.st_ino, status.st_size)
