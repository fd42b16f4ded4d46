"""The retriever that LangChain users plug in."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from rag.errors import ConfigurationError, InvalidRequest
from rag.langchain.sources import BundleSource, Source
from rag.langchain.wire import TIMEOUT_S, ServiceSource
from rag.retrieval.opening import open_retriever
from rag.types import Mode, Query

_PER_CALL = ("top_k", "filter", "legs", "fusion", "min_score")


class HybridRetriever(BaseRetriever):
    """Hybrid search over a bundle opened in this process, or over a running service.

        HybridRetriever(bundle="./bundle", top_k=4).invoke("How do I reset the lamp?")
        HybridRetriever(url="http://localhost:8080", filter={"lang": {"$eq": "ko"}})

    Give `bundle`, `url` or a `source` of your own. Documents come best first; see
    `rag.langchain.documents.document_of_passage` for their metadata. `invoke`, `ainvoke`, `batch`
    and `abatch` take top_k, filter, legs, fusion and min_score for one call, as keywords.
    With `url`, the asynchronous calls use no thread.

    Making one raises ConfigurationError for fields that cannot be used, and what opening a bundle
    raises; asking raises RequestError, InvalidRequest for what cannot be searched, and
    ConfigurationError where no service answers.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    bundle: str | Path | None = Field(None, description="Folder or s3:// address of a bundle")
    url: str | None = Field(None, description="http(s) address of a running service")
    top_k: int = Field(5, ge=1, description="How many documents")
    filter: Mapping[str, Any] | None = Field(None, description="Which passages may answer")
    legs: Literal["hybrid", "dense", "sparse"] = Field("hybrid", description="Which legs search")
    fusion: Mapping[str, Any] | None = Field(None, description="Instead of the bundle's own")
    min_score: float | None = Field(
        None, allow_inf_nan=False, description="Leave out passages with a score below this"
    )
    cache_dir: Path | None = Field(None, description="Where a bundle from s3:// is copied to")
    headers: Mapping[str, str] | None = Field(
        None, exclude=True, repr=False, description="Sent to the service, such as authorization"
    )
    timeout_s: float = Field(TIMEOUT_S, gt=0, description="Seconds to wait for the service")
    source: Source | None = Field(None, exclude=True, repr=False, description="What is searched")

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, fields: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(fields)
        except ValidationError as error:
            raise ConfigurationError(_explain(error)) from None

    def model_post_init(self, context: Any) -> None:
        """Opens what is searched; a copy with other fields shares it."""
        super().model_post_init(context)
        if self.source is not None:
            return
        if self.bundle is not None and self.url is None:
            opened = open_retriever(str(self.bundle), cache_dir=self.cache_dir)
            self.source = BundleSource(opened)
        elif self.url is not None and self.bundle is None:
            self.source = ServiceSource(self.url, headers=self.headers, timeout_s=self.timeout_s)
        else:
            given = "neither" if self.url is None else "both"
            raise ConfigurationError(
                f"HybridRetriever needs bundle or url, and has {given}; give one of them"
            )

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        asked, min_score = self._asked(query, options)
        return self._searched().search(asked, min_score)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        asked, min_score = self._asked(query, options)
        return await self._searched().asearch(asked, min_score)

    def _searched(self) -> Source:
        if self.source is None:
            raise ConfigurationError("HybridRetriever has no source; give bundle or url")
        return self.source

    def _asked(self, text: str, options: Mapping[str, Any]) -> tuple[Query, float | None]:
        """The query, with the options of this call over the retriever's own fields."""
        if unknown := sorted(options.keys() - set(_PER_CALL)):
            raise InvalidRequest(
                f"{unknown[0]} is not an option of a search; use {', '.join(_PER_CALL)}"
            )
        if not isinstance(text, str):
            raise InvalidRequest(f"query is {type(text).__name__}; send text to search for")
        said = {name: getattr(self, name) for name in _PER_CALL} | dict(options)
        try:
            legs = Mode(said["legs"])
        except ValueError:
            raise InvalidRequest(f"legs is {said['legs']!r}; use hybrid, dense or sparse") from None
        query = Query(
            text=unicodedata.normalize("NFC", text),
            top_k=said["top_k"],
            where=said["filter"],
            legs=legs,
            fusion=said["fusion"],
        )
        return query, said["min_score"]


def _explain(error: ValidationError) -> str:
    """The first thing wrong, as one line, without the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"][:1]) or "fields"
    if first["type"] == "extra_forbidden":
        known = ", ".join(HybridRetriever.model_fields)
        return f"HybridRetriever has no field {name}; known are {known}"
    return f"HybridRetriever: {name} is not valid: {first['msg'][:1].lower()}{first['msg'][1:]}"
