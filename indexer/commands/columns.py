"""The options that name the columns of a text corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rag.errors import ConfigurationError

if TYPE_CHECKING:
    from indexer.source import CorpusColumns

TextColumn = Annotated[
    str | None,
    typer.Option(help="JSON Lines and Parquet are corpora: each row a document, its text here."),
]
IdColumn = Annotated[
    str | None, typer.Option(help="Column of a row's id (default: file and number).")
]
TitleColumn = Annotated[str | None, typer.Option(help="Column of a row's title.")]
MetadataColumns = Annotated[
    str | None,
    typer.Option(help="Columns to filter on, with commas between; '*': all that are left."),
]


def corpus_columns(
    text: str | None, id_: str | None, title: str | None, metadata: str | None
) -> CorpusColumns | None:
    """What the four options say together; None without any. Raises ConfigurationError."""
    from indexer.source import CorpusColumns

    if text is None:
        if id_ or title or metadata:
            raise ConfigurationError("name the column of the text too: --text-column")
        return None
    names = tuple(name.strip() for name in (metadata or "").split(",") if name.strip())
    return CorpusColumns(text, id_, title, names)
