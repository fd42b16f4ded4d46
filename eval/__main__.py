"""`rag-eval`: the commands that measure retrieval, compare results and guard promotion."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from eval import question_commands
from eval.options import ApiKey, given, make_console, parse_headers, write_json
from rag.errors import RagError

app = typer.Typer(
    name="rag-eval",
    help="Measures retrieval, compares results, and guards promotion.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RETRIEVAL_HELP = """Measure retrieval on a collection, a bundle or a running service.

Name one of: --dataset, a folder of BEIR's layout (corpus.jsonl, queries.jsonl, qrels/<split>.tsv),
which is indexed first; --bundle, a bundle that exists; --url, a service. The last two use
--queries and --qrels, which judge documents by id (default: the built-in sample's).

--expand and --rerank measure what a request may ask for: the queries that a generator endpoint
makes of each query, and a reranker over the best passages. Both may be used at once.

Example:  rag-eval retrieval --dataset ./nfcorpus --index-cache ./cache --html report.html
"""

COMPARE_HELP = """Compare two results of the same queries: B against A.

A and B are folders of --runs or files of --json, each with ':MODE' after it to compare one mode,
such as 'out:dense out:hybrid'. Prints the paired randomisation test, the bootstrap interval of the
difference, its effect size, and the queries that changed most.

Example:  rag-eval compare before after --measure nDCG@10
"""

GATE_HELP = """Exit 0 if the candidate may replace the baseline, 1 if it may not.

It may not if its mean is lower by significantly more than the margin (one-sided paired
randomisation test). With --strict it also must be shown not to be: the one-sided confidence bound
of the difference has to lie above minus the margin.

Example:  rag-eval gate --baseline before --candidate after --measure nDCG@10 --margin 0.01
"""

REPORT_HELP = """Put results into one self-contained HTML page.

Example:  rag-eval report out/nfcorpus out/cranfield --html report.html
"""

GOLDEN_HELP = """Rerun what the shipped scores were made with; exit 1 if any of them drifts.

The sample set is always there; collections are looked for below --data by name.

Example:  rag-eval golden --data ./beir --only nfcorpus
"""

Modes = Annotated[str, typer.Option(help="Which of sparse, dense and hybrid, with commas.")]
Measure = Annotated[str, typer.Option(help="Measure to compare, as the result names it.")]


@app.command(help=RETRIEVAL_HELP)
def retrieval(
    dataset: Annotated[Path | None, typer.Option(help="Folder of BEIR's layout.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Bundle folder, root, or s3:// URI.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of a running service.")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Queries as JSON lines with _id and text.")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="Judgements of documents, by id.")] = None,
    split: Annotated[str, typer.Option(help="Which qrels/<split>.tsv of the dataset.")] = "test",
    modes: Modes = "sparse,dense,hybrid",
    fusion: Annotated[
        str | None, typer.Option(help='Fusion as JSON, e.g. \'{"method": "rrf", "k": 60}\'.')
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Candidates per leg (1000); passages asked of --url (100).")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Model that embeds --dataset: 'default', folder, hub id.")
    ] = None,
    analyzer: Annotated[
        str | None, typer.Option(help="auto (default), english, korean, cjk or whitespace.")
    ] = None,
    dense: Annotated[str | None, typer.Option(help="FAISS index: flat (default) or hnsw.")] = None,
    bm25_method: Annotated[str | None, typer.Option(help="BM25 variant, e.g. lucene.")] = None,
    k1: Annotated[float | None, typer.Option(help="BM25 term saturation.")] = None,
    b: Annotated[float | None, typer.Option(help="BM25 length normalisation.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="What runs the encoder: torch or onnx (bundles: onnx).")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu (default), cuda or cuda:N (backend torch).")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32 (default), int8 (onnx), float16 (torch) …")
    ] = None,
    timed: Annotated[
        int, typer.Option(help="Queries asked one by one for the latency; 0 for none.")
    ] = 100,
    index_cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps vectors from run to run.")
    ] = None,
    expand: Annotated[
        str | None, typer.Option(help="Expand each query: multi, hyde or decompose.")
    ] = None,
    generator_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible endpoint that expands (not with --url).")
    ] = None,
    generator_model: Annotated[str | None, typer.Option(help="Its model.")] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            help="Rerank: a cross-encoder's folder, a rerank endpoint's URL, or 'service'"
            " for the reranker of --url."
        ),
    ] = None,
    rerank_model: Annotated[
        str | None, typer.Option(help="Model to ask for at a rerank endpoint.")
    ] = None,
    rerank_dialect: Annotated[
        str, typer.Option(help="What that endpoint speaks: tei, jina or cohere.")
    ] = "tei",
    rerank_depth: Annotated[int, typer.Option(help="Passages that are reranked.")] = 50,
    api_key: ApiKey = None,
    header: Annotated[
        list[str] | None, typer.Option(help="'Name: value' sent to --url. Repeatable.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result to this file.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Write result, TREC runs and texts into this folder.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report to this file.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
) -> None:
    from eval.commands import Target, evaluate_target, parse_json_option
    from eval.progress import make_advance
    from eval.results import write_result
    from eval.stages import Stages
    from eval.terminal import show_result

    stages = Stages(
        expand, generator_url, generator_model, rerank, rerank_model, rerank_dialect, rerank_depth,
        api_key,
    )  # fmt: skip
    target = Target(
        dataset=dataset,
        bundle=bundle,
        url=url,
        queries=queries,
        qrels=qrels,
        split=split,
        fusion=parse_json_option("--fusion", fusion),
        depth=depth,
        indexing=given(
            encoder=encoder, analyzer=analyzer, dense=dense, method=bm25_method, k1=k1, b=b
        ),
        running=given(backend=backend, device=device, precision=precision),
        cache=index_cache,
        headers=parse_headers(header or []),
        stages=stages if stages.wanted else None,
    )
    with make_advance(quiet=quiet) as advance:
        found = evaluate_target(target, modes=modes, timed=timed, advance=advance)
    if json_file is not None:
        write_result(json_file, found.result)
    if runs is not None:
        found.write(runs)
    if html is not None:
        from eval.report import write_report

        write_report(html, [found.result])
    show_result(make_console(), found.result)


@app.command(help=COMPARE_HELP)
def compare(
    a: Annotated[str, typer.Argument(help="Result to compare with: PATH or PATH:MODE.")],
    b: Annotated[str, typer.Argument(help="Result to compare: PATH or PATH:MODE.")],
    measure: Measure = "nDCG@10",
    changes: Annotated[int, typer.Option(help="How many of the most changed queries.")] = 3,
    top: Annotated[int, typer.Option(help="How many passages of each of them.")] = 3,
    seed: Annotated[int | None, typer.Option(help="Seed of the tests.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the comparison to this file.")
    ] = None,
) -> None:
    from eval.compare import biggest_changes, pairs, to_json
    from eval.compare import compare as compare_sides
    from eval.statistics import SEED
    from eval.terminal import show_changes, show_comparisons

    sides = pairs(a, b)
    found = [
        (x, y, compare_sides(x, y, measure, seed=SEED if seed is None else seed)) for x, y in sides
    ]
    console = make_console()
    show_comparisons(console, measure, found)
    shown, of = sides[0][0], sides[0][1]
    for x, y in sides:
        if x.mode == "hybrid" or y.mode == "hybrid":
            shown, of = x, y
    show_changes(console, measure, biggest_changes(shown, of, measure, changes, top=top))
    if json_file is not None:
        raw = [{"a": x.mode, "b": y.mode, **to_json(c)} for x, y, c in found]
        write_json(json_file, {"measure": measure, "comparisons": raw})


@app.command(help=GATE_HELP)
def gate(
    baseline: Annotated[str, typer.Option(help="Result in service now: PATH or PATH:MODE.")],
    candidate: Annotated[str, typer.Option(help="Result that wants to replace it.")],
    measure: Measure = "nDCG@10",
    margin: Annotated[float, typer.Option(help="Loss that is accepted, in the measure.")] = 0.01,
    alpha: Annotated[float, typer.Option(help="Level of the test.")] = 0.05,
    mode: Annotated[
        str, typer.Option(help="Mode that decides, where the paths name none.")
    ] = "hybrid",
    strict: Annotated[
        bool, typer.Option("--strict", help="Also fail if a loss is not ruled out.")
    ] = False,
) -> None:
    from eval.gate import describe, gate_sides

    verdict, what = gate_sides(
        baseline, candidate, measure=measure, margin=margin, alpha=alpha, mode=mode, strict=strict
    )
    print(describe(verdict, what))
    if not verdict.passed:
        raise typer.Exit(1)


@app.command(help=REPORT_HELP)
def report(
    results: Annotated[list[Path], typer.Argument(help="Folders of --runs or files of --json.")],
    html: Annotated[Path, typer.Option(help="File to write.")],
) -> None:
    from eval.report import write_report
    from eval.results import read_result

    write_report(html, [read_result(path) for path in results])
    print(f"{html}: written")


@app.command(help=GOLDEN_HELP)
def golden(
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds collections, one folder each.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these sets. Repeatable.")] = None,
    index_cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps vectors from run to run.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Replace the expected scores by what is measured.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
) -> None:
    from eval.golden import rerun, show_drifts
    from eval.progress import make_advance

    with make_advance(quiet=quiet) as advance:
        checked = rerun(data, only=only or [], cache=index_cache, write=write, advance=advance)
    if not show_drifts(make_console(), checked):
        raise typer.Exit(1)


question_commands.add_to(app)


def main() -> None:
    """Runs the command; an error that has a name is one line on standard error and exit code 1."""
    # The tokenizer's threads and the encoder's would fight over the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except RagError as error:
        print(f"rag-eval: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
