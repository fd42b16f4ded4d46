"""`rag-indexer build`: its options, and what it prints.

The options are defined here once: hyperparameters of a training job and RAG_INDEXER_* variables
are read from the same definition.
"""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from indexer.commands.build_output import print_build, print_plan
from indexer.commands.columns import (
    IdColumn,
    MetadataColumns,
    TextColumn,
    TitleColumn,
    corpus_columns,
)
from indexer.commands.versions import (
    GateFolder,
    GateMargin,
    GateMeasure,
    GateStrict,
    gate_option,
)
from indexer.sagemaker import Flag
from rag.errors import ConfigurationError
from rag.storage import is_remote

PREFIX = "RAG_INDEXER"
CONTEXT: dict[str, Any] = {"auto_envvar_prefix": PREFIX}
"""Every option is also a variable: --chunk-size is RAG_INDEXER_CHUNK_SIZE."""

HELP = """Index every document below SOURCE and publish the bundle at OUTPUT.

SOURCE and OUTPUT are folders or s3://bucket/prefix URIs. Below OUTPUT the bundle is written to
versions/<id>/ and CURRENT is pointed at it. A document that cannot be read is reported at the
end, with the reason, and does not stop the build. Where OUTPUT has a version already, only what
changed since is read and embedded; the bundle is the same as by --full. Every option is also a
variable:
RAG_INDEXER_CHUNK_SIZE is --chunk-size.

Example:  rag-indexer build --source ./documents --output ./bundle
"""


class Layout(StrEnum):
    """What a build leaves at its output."""

    ROOT = "root"
    BUNDLE = "bundle"


def command() -> Any:
    """The command `build` alone, for those that make its arguments from something else."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(help=HELP, context_settings=CONTEXT)(build)
    return typer.main.get_command(app)


def flags(*but: str) -> list[Flag]:
    """Every option of `build` but those whose parameter is named."""
    return [
        Flag([*p.opts, p.name], p.secondary_opts, p.is_flag, p.multiple)
        for p in command().params
        if p.name not in but
    ]


def check_variables(environment: Mapping[str, str]) -> None:
    """Raises ConfigurationError for a RAG_INDEXER_* variable that is no option of `build`."""
    known = [f"{PREFIX}_{p.name.upper()}" for p in command().params]
    for variable in sorted(environment):
        if variable.startswith(f"{PREFIX}_") and variable not in known:
            near = difflib.get_close_matches(variable, known, 1, cutoff=0.0)[0]
            raise ConfigurationError(f"{variable} is not known; did you mean {near}?")


def build(
    source: Annotated[str, typer.Option(help="Folder or s3:// prefix that holds the documents.")],
    output: Annotated[str, typer.Option(help="Folder or s3:// prefix to publish the bundle at.")],
    include: Annotated[
        list[str] | None, typer.Option(help="Take only keys that match, e.g. '*.md'. Repeatable.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out keys that match. Repeatable.")
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            help="Take only the objects that this SageMaker manifest or list of keys names."
        ),
    ] = None,
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    title_column: TitleColumn = None,
    metadata_columns: MetadataColumns = None,
    base_uri: Annotated[
        str | None, typer.Option(help="What to put before each document's path in its URI.")
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(help="Sentence-transformers model: 'default', a folder, or a hub id."),
    ] = "default",
    max_tokens: Annotated[
        int | None, typer.Option(help="Read at most so many tokens of a passage (default: all).")
    ] = None,
    truncate_dim: Annotated[
        int | None, typer.Option(help="Keep only the first dimensions of a matryoshka encoder.")
    ] = None,
    query_prompt: Annotated[
        str | None, typer.Option(help="Text put before every query (default: the model's own).")
    ] = None,
    passage_prompt: Annotated[
        str | None, typer.Option(help="Text put before every passage (default: the model's own).")
    ] = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(help="Largest chunk in the encoder's tokens (default: fits the encoder)."),
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option(help="Tokens that neighbouring chunks may share.")
    ] = None,
    analyzer: Annotated[
        str, typer.Option(help="auto, english, korean, cjk or whitespace.")
    ] = "auto",
    index: Annotated[
        str,
        typer.Option(help="FAISS index: auto (by count, memory and recall), flat, hnsw or ivf."),
    ] = "auto",
    storage: Annotated[
        str | None,
        typer.Option(help="How it stores vectors: float32, float16, int8; ivf also pq, pq4."),
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option(
            help="Finer copy on disk that hits are scored by: none, float32, float16 or int8"
            " (default: float16 where the index stores int8, pq or pq4)."
        ),
    ] = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(help="Memory that --index auto may plan for searching, such as 4GiB."),
    ] = None,
    recall_target: Annotated[
        float | None,
        typer.Option(
            help="Share of the exact ten best that a search shall find; search options are tuned"
            " for it (auto: 0.98)."
        ),
    ] = None,
    tune_queries: Annotated[
        Path | None,
        typer.Option(
            help="File of queries to tune for, one a line, or .jsonl with 'query' or 'text'"
            " (default: made from passages)."
        ),
    ] = None,
    sparse: Annotated[
        str, typer.Option(help="BM25 engine: bm25s, or rank-bm25 for small corpora.")
    ] = "bm25s",
    bm25_method: Annotated[
        str | None, typer.Option(help="BM25 variant, e.g. lucene, robertson, bm25+, bm25l, atire.")
    ] = None,
    k1: Annotated[float | None, typer.Option(help="BM25 term saturation.")] = None,
    b: Annotated[float | None, typer.Option(help="BM25 length normalisation.")] = None,
    fusion: Annotated[
        str | None,
        typer.Option(help="Fusion to seal: JSON, or a file of it, as rag-eval tune --out writes."),
    ] = None,
    backend: Annotated[
        Literal["auto", "onnx", "torch"],
        typer.Option(help="What embeds the passages; auto: onnx on a CPU, else torch."),
    ] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N (backend torch).")] = "cpu",
    precision: Annotated[
        str, typer.Option(help="float32, float16 or bfloat16 (backend torch).")
    ] = "float32",
    encoder_cache: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps exported encoders, so that later builds copy them."),
    ] = None,
    safetensors: Annotated[
        bool, typer.Option(help="Keep the PyTorch weights in the bundle beside the ONNX ones.")
    ] = True,
    previous: Annotated[
        str | None,
        typer.Option(help="Version to go on from: a bundle or a root (default: OUTPUT's current)."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read and embed everything, whatever was built before.")
    ] = False,
    vector_cache: Annotated[
        str | None,
        typer.Option(help="Folder or s3:// prefix that keeps vectors for builds of any source."),
    ] = None,
    checkpoint_dir: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps unfinished work, for the next run to go on from."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what changed, and how long it would take.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that parse (default: as many as CPUs).", min=1)
    ] = None,
    document_seconds: Annotated[
        float, typer.Option(help="Longest that one document may take to parse.", min=0.1)
    ] = 120.0,
    document_mib: Annotated[
        int, typer.Option(help="Most memory that parsing one document may take, MiB.", min=64)
    ] = 2048,
    read_ahead_mib: Annotated[
        int, typer.Option(help="Most that is read before it is parsed, MiB.", min=1)
    ] = 256,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if any document cannot be indexed.")
    ] = False,
    layout: Annotated[
        Layout,
        typer.Option(help="root: versions/<id>/ and CURRENT; bundle: the sealed bundle itself."),
    ] = Layout.ROOT,
    work_dir: Annotated[
        Path | None, typer.Option(help="Folder for temporary files (default: the system's).")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object.")
    ] = False,
    gate: GateFolder = None,
    gate_measure: GateMeasure = "nDCG@10",
    gate_margin: GateMargin = 0.01,
    gate_strict: GateStrict = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
) -> None:
    from indexer.build import BuildOptions, build, clear_checkpoint
    from indexer.chunking import ChunkerOptions
    from indexer.dense_options import dense_options, read_queries
    from indexer.fusion import parse_fusion
    from indexer.pipeline.workers import MIB, Limits
    from indexer.progress import make_progress
    from indexer.publish import publish
    from indexer.source import Source
    from indexer.stopping import stop_on_signals

    if work_dir is not None and not work_dir.is_dir():
        raise ConfigurationError(f"--work-dir {work_dir} is not a folder; make it first")
    prompts = {"query": query_prompt, "passage": passage_prompt}
    options = BuildOptions(
        encoder=encoder,
        max_tokens=max_tokens,
        truncate_dim=truncate_dim,
        prompts={k: v for k, v in prompts.items() if v is not None} or None,
        analyzer=analyzer,
        chunker=ChunkerOptions(**_given(size=chunk_size, overlap=chunk_overlap)),
        dense=dense_options(
            index,
            storage=storage,
            refine=refine,
            memory_budget=memory_budget,
            recall_target=recall_target,
        ),
        tune_queries=() if tune_queries is None else read_queries(tune_queries),
        sparse={"engine": sparse, **_given(method=bm25_method, k1=k1, b=b)},
        **_given(fusion=None if fusion is None else parse_fusion(fusion)),
        safetensors=safetensors,
        strict=strict,
        backend=backend,
        device=device,
        precision=precision,
        encoder_cache=encoder_cache,
        vector_cache=vector_cache,
        limits=Limits(document_seconds, document_mib * MIB, workers),
        read_ahead=read_ahead_mib * MIB,
    )
    documents = Source(
        source, include=include or (), exclude=exclude or (), base_uri=base_uri,
        object_list=manifest,
        columns=corpus_columns(text_column, id_column, title_column, metadata_columns),
    )  # fmt: skip
    before = None if full else previous or output
    if dry_run:
        print_plan(documents, options, before, as_json=as_json)
        return
    if layout is Layout.BUNDLE and (is_remote(output) or gate is not None):
        raise ConfigurationError(
            "--layout bundle writes into a folder, without a gate; use --layout root"
        )
    progress = make_progress(quiet=quiet)
    judge = gate_option(gate, progress, gate_measure, gate_margin, strict=gate_strict)
    with (
        stop_on_signals() as stop,
        tempfile.TemporaryDirectory(prefix="rag-build-", dir=work_dir) as work,
    ):
        folder = Path(work, "bundle") if layout is Layout.ROOT else Path(output)
        report = build(
            documents, folder, options, progress, previous=before, checkpoint=checkpoint_dir,
            stop=stop, copy_unchanged=before != output,
        )  # fmt: skip
        if layout is Layout.ROOT and not (report.unchanged and before == output):
            publish(report.folder, output, progress, judge)
        if checkpoint_dir is not None:
            clear_checkpoint(checkpoint_dir)
    print_build(report, output, as_json=as_json)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
