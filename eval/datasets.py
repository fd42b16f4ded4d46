"""Collections with judgements: BEIR folders, and query sets over documents that are indexed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rag.errors import EvaluationError

Qrels = dict[str, dict[str, int]]
"""query id -> document id -> grade; above 0 is relevant, 0 was judged and is not."""

SAMPLE = Path(__file__).parent / "sample"
"""The built-in set: documents of many formats, `queries.jsonl`, `qrels/test.tsv`."""
QUERIES = "queries.jsonl"
CORPUS = "corpus.jsonl"


class CorpusLine(NamedTuple):
    """One document of a collection, as its line says."""

    doc_id: str
    title: str
    text: str
    metadata: Mapping[str, Any]

    @property
    def passage(self) -> str:
        """What both legs see: title and text as one passage."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Dataset:
    """Queries and judgements over a collection.

    `queries` are all of the set, in the order of their file; `metadata` is what their lines say
    beside id and text. `corpus_path` is None where the documents are indexed elsewhere (a bundle,
    a service). Judgements may name documents that the collection lacks: they can never be found,
    and count.
    """

    name: str
    queries: Mapping[str, str]
    qrels: Qrels
    split: str = "test"
    corpus_path: Path | None = None
    metadata: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def corpus(self) -> Iterator[CorpusLine]:
        """The documents, in the order of their file; EvaluationError at a line that is none."""
        if self.corpus_path is None:
            raise EvaluationError(
                f"{self.name} has no {CORPUS}; name a --bundle or a --url that holds its documents"
            )
        seen: set[str] = set()
        for where, raw in _json_lines(self.corpus_path):
            doc_id = _id(raw, where)
            if doc_id in seen:
                raise EvaluationError(f"{where}: document '{doc_id}' is there twice; keep one")
            seen.add(doc_id)
            title = _text(raw, "title", where, default="")
            yield CorpusLine(doc_id, title, _text(raw, "text", where), _metadata(raw, where))

    def judged(self) -> list[str]:
        """Ids of the queries that have a judgement and a text: what is searched for."""
        return [q for q, text in self.queries.items() if q in self.qrels and text.strip()]

    def unsearched(self) -> list[str]:
        """Ids of judged queries without a text: they find nothing, and score 0."""
        searched = set(self.judged())
        return [q for q in self.qrels if q not in searched]


def load_beir(folder: Path, *, split: str = "test") -> Dataset:
    """The collection in a folder of BEIR's layout: `corpus.jsonl`, `queries.jsonl` and
    `qrels/<split>.tsv`. The corpus is read later, by `Dataset.corpus`.

    Raises EvaluationError, naming file and line, for anything that is missing or malformed.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is not a folder; name one that holds {CORPUS}")
    corpus = folder / CORPUS
    if not corpus.is_file():
        raise EvaluationError(f"{corpus} is not there; a collection is {CORPUS}, {QUERIES}, qrels/")
    qrels = folder / "qrels" / f"{split}.tsv"
    if not qrels.is_file():
        splits = ", ".join(sorted(p.stem for p in qrels.parent.glob("*.tsv"))) or "none"
        raise EvaluationError(f"{qrels} is not there; the splits of {folder.name} are: {splits}")
    return load_judged(
        folder.resolve().name, folder / QUERIES, qrels, split=split, corpus_path=corpus
    )


def load_sample() -> Dataset:
    """The built-in set; its judgements name documents by their path below `sample/documents`."""
    return load_judged("sample", SAMPLE / QUERIES, SAMPLE / "qrels" / "test.tsv")


def load_judged(
    name: str,
    queries: Path,
    qrels: Path | None,
    *,
    split: str = "test",
    corpus_path: Path | None = None,
) -> Dataset:
    """Queries (`{"_id", "text"}` a line) with their judgements (tab-separated, as BEIR's), or with
    none.
    """
    texts: dict[str, str] = {}
    metadata: dict[str, Mapping[str, Any]] = {}
    for where, raw in _json_lines(queries):
        query_id = _id(raw, where)
        if query_id in texts:
            raise EvaluationError(f"{where}: query '{query_id}' is there twice; keep one")
        texts[query_id] = _text(raw, "text", where)
        metadata[query_id] = _metadata(raw, where)
    if not texts:
        raise EvaluationError(f"{queries} holds no query; there is nothing to evaluate")
    judgements = {} if qrels is None else read_qrels(qrels)
    return Dataset(name, texts, judgements, split, corpus_path, metadata)


def read_qrels(path: Path) -> Qrels:
    """Judgements from lines 'query-id<TAB>corpus-id<TAB>score', with or without that header.

    A judgement may be repeated, not contradicted. Raises EvaluationError with file and line.
    """
    qrels: Qrels = {}
    for number, line in enumerate(_lines(path), 1):
        fields = line.split("\t")
        if number == 1 and len(fields) == 3 and not _is_integer(fields[2]):
            continue
        if not line.strip():
            continue
        where = f"{path}:{number}"
        if len(fields) != 3 or not fields[0] or not fields[1] or not _is_integer(fields[2]):
            raise EvaluationError(
                f"{where}: {line[:80]!r} is not 'query-id<TAB>corpus-id<TAB>integer'"
            )
        query_id, doc_id, grade = fields[0], fields[1], int(fields[2])
        if qrels.setdefault(query_id, {}).setdefault(doc_id, grade) != grade:
            raise EvaluationError(
                f"{where}: '{doc_id}' was judged {qrels[query_id][doc_id]} for query '{query_id}'"
                f" before, now {grade}; keep one"
            )
    if not qrels:
        raise EvaluationError(f"{path} holds no judgement; there is nothing to evaluate")
    return qrels


def _is_integer(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal()


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their line breaks; a byte order mark is dropped."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except FileNotFoundError:
        raise EvaluationError(f"{path} is not there; check the path") from None
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path} is not UTF-8 ({error.reason}); convert it") from None
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror}); check it") from None


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """('file:line', object) of each line that is not empty."""
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            raw = json.loads(line)
        except ValueError as error:
            raise EvaluationError(f"{where}: not JSON ({error}); one object a line") from None
        if not isinstance(raw, dict):
            raise EvaluationError(f"{where}: {line[:40]!r} is not a JSON object; one a line")
        yield where, raw


def _id(raw: dict[str, Any], where: str) -> str:
    value = raw.get("_id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise EvaluationError(f"{where}: '_id' is {value!r}; it must be a string that is not empty")
    return value


def _text(raw: dict[str, Any], key: str, where: str, *, default: str | None = None) -> str:
    value = raw.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise EvaluationError(f"{where}: '{key}' is {value!r:.60}; it must be a string")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise EvaluationError(f"{where}: '{key}' is not valid Unicode (a lone surrogate)")
    return value


def _metadata(raw: dict[str, Any], where: str) -> Mapping[str, Any]:
    value = raw.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise EvaluationError(f"{where}: 'metadata' is {value!r:.60}; it must be an object")
    return value
