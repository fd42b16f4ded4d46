"""Chains over any retriever and any chat model that keep a conversation, from langchain-core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnablePassthrough,
)

from rag.answering.prompt import build_prompt
from rag.langchain.documents import passage_of_document
from rag.models.langchain_generator import to_langchain
from rag.types import Message

REPHRASE = ChatPromptTemplate.from_messages(
    [
        (
            "system",
            "Rewrite the user's last message as one question that can be understood without the"
            " conversation: put names in the place of words that point back. Keep its language."
            " Do not answer it. Reply with the question alone.",
        ),
        MessagesPlaceholder("chat_history"),
        ("human", "{input}"),
    ]
)


def history_aware_retriever(
    model: BaseChatModel, retriever: BaseRetriever, *, prompt: ChatPromptTemplate = REPHRASE
) -> Runnable[dict[str, Any], list[Document]]:
    """Documents for `{"input": question, "chat_history": messages}`.

    Without a history the question is searched as it is; with one, `model` first rewrites it to
    stand alone. Messages are LangChain's, or `(role, text)` pairs.
    """
    alone: Runnable[dict[str, Any], str] = RunnableLambda(_question)
    rewritten = RunnableLambda(_with_messages) | prompt | model | StrOutputParser()
    return RunnableBranch(
        (_has_history, rewritten | retriever),
        alone | retriever,
    ).with_config(run_name="history_aware_retriever")


def conversational_chain(
    model: BaseChatModel,
    retriever: BaseRetriever,
    *,
    rewriter: BaseChatModel | None = None,
    max_context_tokens: int = 8192,
) -> Runnable[dict[str, Any], dict[str, Any]]:
    """Cited answers in a conversation: `{"input", "chat_history"}` in, the same with `context`
    (documents, best first) and `answer` out. Streams `context` once and `answer` in pieces.

        chain = conversational_chain(model, HybridRetriever(bundle="./bundle"))
        reply = chain.invoke({"input": "How long is its warranty?", "chat_history": messages})

    `[n]` in the answer is the n-th document of `context`. The prompt is the one of the service:
    documents are delimited as data, and the last ones go where `max_context_tokens` are short.
    `rewriter` rewrites questions that lean on the history, if that is to be another model.
    """
    found = history_aware_retriever(rewriter or model, retriever)
    answer = RunnableLambda(_prompt(max_context_tokens)) | model | StrOutputParser()
    chain = RunnablePassthrough.assign(context=found) | RunnablePassthrough.assign(answer=answer)
    return chain.with_config(run_name="conversational_chain")


def _question(values: Mapping[str, Any]) -> str:
    return str(values["input"])


def _has_history(values: Mapping[str, Any]) -> bool:
    return bool(values.get("chat_history"))


def _with_messages(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"input": values["input"], "chat_history": _messages(values)}


def _messages(values: Mapping[str, Any]) -> list[BaseMessage]:
    return convert_to_messages(values.get("chat_history") or [])


def _prompt(max_context_tokens: int) -> Callable[[Mapping[str, Any]], list[BaseMessage]]:
    def build(values: Mapping[str, Any]) -> list[BaseMessage]:
        context: Sequence[Document] = values["context"]
        built, _ = build_prompt(
            _question(values),
            [passage_of_document(document, place) for place, document in enumerate(context, 1)],
            history=_turns(_messages(values)),
            max_context_tokens=max_context_tokens,
        )
        return to_langchain(built.messages)

    return build


def _turns(messages: Sequence[BaseMessage]) -> list[Message]:
    """What user and assistant said; calls of tools and system turns are left out."""
    turns = []
    for message in messages:
        text = str(message.text)
        if isinstance(message, HumanMessage):
            turns.append(Message("user", text))
        elif isinstance(message, AIMessage) and text:
            turns.append(Message("assistant", text))
    return turns
