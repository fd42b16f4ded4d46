"""For LangChain: a retriever over a bundle or a service, and chains that keep a conversation."""

from __future__ import annotations

from rag.errors import ConfigurationError

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError:
    raise ConfigurationError(
        "langchain-core is not installed; install rag-containers[langchain]"
    ) from None

from rag.langchain.chains import conversational_chain, history_aware_retriever
from rag.langchain.retriever import HybridRetriever
from rag.langchain.sources import BundleSource, Source
from rag.langchain.wire import ServiceSource
from rag.models.langchain_generator import LangChainGenerator

__all__ = [
    "BundleSource",
    "HybridRetriever",
    "LangChainGenerator",
    "ServiceSource",
    "Source",
    "conversational_chain",
    "history_aware_retriever",
]
