"""The commands about questions with answers: ask them, make them, learn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eval.options import ApiKey, given, make_console, parse_headers, write_json
from rag.errors import ConfigurationError

ANSWERS_HELP = """Measure answers on questions with gold answers.

Name one of: --bundle, which is opened here; --url, a running service. --questions is a file of JSON
lines with _id, text and metadata.answer: a string, a list of strings, or null where the documents
hold no answer. Judgements of documents, for the citations, are --qrels, or qrels/test.tsv beside
the questions (default: the built-in sample's). With --judge-url a language model compares each
answer with its gold answer, several times.

Example:  rag-eval answers --bundle ./bundle --json answers.json
"""

SYNTH_HELP = """Make a test set from a bundle: questions, answers and the documents that hold them.

An OpenAI-compatible endpoint asks a question about each of the passages drawn. Questions that
repeat another, or for which the bundle does not find their passage, are dropped. Writes
queries.jsonl, qrels/test.tsv and report.json into --out, for rag-eval answers, retrieval and tune.

Example:  rag-eval synth --bundle ./bundle --url http://localhost:8000/v1 --model m --out ./set
"""

TUNE_HELP = """Fit fusion to a collection: method and weights, on one half of the queries.

Name --dataset, a folder of BEIR's layout, or --bundle with --queries and --qrels (default: the
built-in sample's). Every fusion method is tried on the training queries; the best is compared, on
the queries held out, with the fusion that is there. --out is written unless it loses there, and is
what rag-indexer build --fusion seals into a bundle; the exit code is 1 if it loses.

Example:  rag-eval tune --bundle ./bundle --queries queries.jsonl --qrels test.tsv --out fusion.json
"""

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this file to `app`."""
    app.command(help=ANSWERS_HELP)(answers)
    app.command(help=SYNTH_HELP)(synth)
    app.command(help=TUNE_HELP)(tune)


def answers(
    bundle: Annotated[str | None, typer.Option(help="Bundle folder, root, or s3:// URI.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of a running service.")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="Questions with gold answers, as JSON lines.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="Judgements of documents for --questions.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Passages for each answer.")] = 5,
    generator_url: Annotated[
        str | None, typer.Option(help="Endpoint that answers for --bundle (default: extractive).")
    ] = None,
    generator_model: Annotated[str | None, typer.Option(help="Its model.")] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible endpoint that judges the answers.")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Its model.")] = None,
    judge_repeats: Annotated[int, typer.Option(min=1, help="How often each answer is judged.")] = 3,
    api_key: ApiKey = None,
    header: Annotated[
        list[str] | None, typer.Option(help="'Name: value' sent to --url. Repeatable.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write scores and answers to this file.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    from eval.answer_table import show_answers
    from eval.answers import evaluate_answers, write_answers
    from eval.chat import ChatOptions
    from eval.commands import answer_source, question_set
    from eval.judge import TEMPERATURE
    from eval.progress import make_advance

    _belong("--judge-url", judge_url, "--judge-model", judge_model)
    _belong("--generator-url", generator_url, "--generator-model", generator_model)
    judging = None
    if judge_url is not None and judge_model is not None:
        judging = ChatOptions(judge_url, judge_model, api_key, temperature=TEMPERATURE)
    dataset = question_set(questions, qrels)
    source = answer_source(
        bundle,
        url,
        top_k=top_k,
        endpoint=(generator_url, generator_model, api_key),
        headers=parse_headers(header or []),
    )
    with make_advance(quiet=quiet) as advance:
        result = evaluate_answers(
            dataset, source, judge_options=judging, judge_repeats=judge_repeats, advance=advance
        )
    if json_file is not None:
        write_answers(json_file, result)
    show_answers(make_console(), result)


def synth(
    bundle: Annotated[str, typer.Option(help="Bundle folder, root, or s3:// URI.")],
    url: Annotated[str, typer.Option(help="OpenAI-compatible endpoint that asks.")],
    model: Annotated[str, typer.Option(help="Its model.")],
    out: Annotated[Path, typer.Option(help="Folder to write the set into.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many questions.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed that draws the passages.")] = 1,
    top_k: Annotated[
        int, typer.Option(min=1, help="How deep a question may find its passage.")
    ] = 10,
    temperature: Annotated[
        float, typer.Option(min=0.0, max=2.0, help="Temperature of the endpoint.")
    ] = 0.7,
    api_key: ApiKey = None,
    quiet: Quiet = False,
) -> None:
    import tempfile

    from eval.chat import ChatOptions
    from eval.progress import make_advance
    from eval.synth import synthesise, write_set
    from rag.retrieval.opening import open_retriever

    if (out / "queries.jsonl").exists():
        raise ConfigurationError(f"{out} already holds a test set; name another folder")
    options = ChatOptions(url, model, api_key, temperature=temperature)
    with tempfile.TemporaryDirectory(prefix="rag-eval-") as work, make_advance(quiet=quiet) as show:
        opened = open_retriever(bundle, cache_dir=Path(work))
        found = synthesise(opened, options, count=count, seed=seed, top_k=top_k, advance=show)
    version = opened.bundle.manifest.version
    write_set(out, found, {"version": version, "model": model, "seed": seed, "top_k": top_k})
    print(f"{out}: {len(found.pairs)} questions of {found.asked} asked for")
    for reason, dropped in found.dropped.items():
        if dropped:
            print(f"  dropped, {reason}: {dropped}")


def tune(
    dataset: Annotated[Path | None, typer.Option(help="Folder of BEIR's layout.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Bundle folder, root, or s3:// URI.")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Queries as JSON lines with _id and text.")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="Judgements of documents, by id.")] = None,
    split: Annotated[str, typer.Option(help="Which qrels/<split>.tsv of the dataset.")] = "test",
    split_seed: Annotated[int, typer.Option(help="Seed that draws the training queries.")] = 1,
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the queries to train on.")
    ] = 0.5,
    encoder: Annotated[
        str | None, typer.Option(help="Model that embeds --dataset: 'default', folder, hub id.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="What runs the encoder: torch or onnx (bundles: onnx).")
    ] = None,
    index_cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps vectors from run to run.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the fusion to this file, unless it loses.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all that was found to this file.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    from eval.commands import Target, tune_target
    from eval.progress import make_advance
    from eval.tune import write_fusion
    from eval.tune_table import show_tuned

    target = Target(
        dataset=dataset,
        bundle=bundle,
        queries=queries,
        qrels=qrels,
        split=split,
        indexing=given(encoder=encoder),
        running=given(backend=backend),
        cache=index_cache,
    )
    with make_advance(quiet=quiet) as advance:
        tuned = tune_target(target, seed=split_seed, share=share, advance=advance)
    if json_file is not None:
        write_json(json_file, tuned.to_json())
    show_tuned(make_console(), tuned)
    if out is not None and write_fusion(out, tuned):
        print(f"{out}: written; seal it with rag-indexer build --fusion {out}")
    if tuned.loses:
        raise typer.Exit(1)


def _belong(name: str, value: str | None, other: str, given: str | None) -> None:
    if (value is None) != (given is None):
        raise ConfigurationError(f"{name} and {other} belong together; give both or neither")
