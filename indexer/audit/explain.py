"""How one document became its chunks: every chunk, its size, its context, and why it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from indexer.chunking import Chunker, ChunkerOptions
from indexer.chunking.reasons import why
from indexer.chunking.sections import parts
from indexer.chunking.tokens import TokenMap
from rag.models.encoder import EncoderConfig
from rag.models.tokenizer import Tokenizer
from rag.types import Document


def explain(
    document: Document, *, encoder: Path, config: EncoderConfig, options: ChunkerOptions
) -> dict[str, Any]:
    """The document and its chunks as plain data.

    `tokens` counts what the encoder reads of a chunk, context, prompt and special tokens in;
    `text_tokens` its text alone; `start` and `end` are characters of the document's text. Raises
    ConfigurationError for impossible options.
    """
    tokenizer = Tokenizer.load(encoder)
    chunker = Chunker(tokenizer, config, options)
    chunks = chunker.chunks(document)
    tokens = TokenMap(document, tokenizer)
    least = chunker.options.min_size or 0
    cut = list(parts(document, tokens.count, least, not chunker.options.context))
    counts = chunker.tokens(chunks).tolist() if chunks else []
    return {
        "document": {
            "doc_id": document.doc_id,
            "title": document.title,
            "format": document.format,
            "language": document.lang,
            "characters": len(document.text),
            "blocks": len(document.blocks),
            "metadata": dict(document.metadata),
        },
        "chunker": chunker.reference(),
        "encoder": {"name": config.name, "max_tokens": config.max_tokens},
        "chunks": [
            {
                "number": number,
                "chunk_id": chunk.chunk_id,
                "start": chunk.start,
                "end": chunk.end,
                "page": chunk.page,
                "tokens": count,
                "text_tokens": tokens.count(chunk.start, chunk.end),
                "headings": list(chunk.headings),
                "context": chunk.context,
                "text": chunk.text,
                "ends_because": why(document, cut, chunk.end),
            }
            for number, (chunk, count) in enumerate(zip(chunks, counts, strict=True), 1)
        ],
    }
