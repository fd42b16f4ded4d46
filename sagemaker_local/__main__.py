"""`python -m sagemaker_local`: an image under the platform's contract, on this machine."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from sagemaker_local import jobs
from sagemaker_local.engine import Engine
from sagemaker_local.errors import InvalidInput, LocalError
from sagemaker_local.hosting import endpoint
from sagemaker_local.layout import extract_model
from sagemaker_local.transform import Plan, Strategy
from sagemaker_local.transform import transform as run_transform

app = typer.Typer(
    name="sagemaker_local",
    help="Runs an image as SageMaker does. CONTAINER_ENGINE names the engine's command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Image = Annotated[str, typer.Argument(help="Image to run.")]
Model = Annotated[Path, typer.Option(help="Bundle folder, or a model.tar.gz.")]
Env = Annotated[list[str], typer.Option("--env", help="NAME=VALUE. Repeatable.")]
Isolated = Annotated[bool, typer.Option("--isolated", help="Network isolation.")]


@app.command(
    help="""Serve a model until Ctrl-C.

Example:  python -m sagemaker_local serve rag-inference --model ./bundle
"""
)
def serve(image: Image, model: Model, env: Env = [], isolated: Isolated = False) -> None:  # noqa: B006
    with tempfile.TemporaryDirectory() as work:
        folder = _model(model, Path(work))
        with endpoint(
            Engine.find(), image, folder, environment=_pairs(env), isolated=isolated
        ) as served:
            print(f"/ping is 200 after {served.wait():.1f} s: {served.url or 'isolated'}")
            try:
                signal.sigwait({signal.SIGINT, signal.SIGTERM})
            finally:
                began = time.monotonic()
                code = served.stop()
                print(f"exit code {code}, {time.monotonic() - began:.1f} s after SIGTERM")


@app.command(
    help="""Send one request to a model.

Example:  python -m sagemaker_local invoke rag-inference '{"query": "reset"}' --model ./bundle
"""
)
def invoke(
    image: Image,
    body: Annotated[str, typer.Argument(help="JSON.")],
    model: Model,
    env: Env = [],  # noqa: B006
    isolated: Isolated = False,
) -> None:
    with tempfile.TemporaryDirectory() as work:
        folder = _model(model, Path(work))
        with endpoint(
            Engine.find(), image, folder, environment=_pairs(env), isolated=isolated
        ) as served:
            served.wait()
            print(served.invoke(body.encode()).body.decode())


@app.command(
    help="""Answer every line of a file, in order.

Example:  python -m sagemaker_local transform rag-inference in.jsonl out.jsonl --model ./bundle
"""
)
def transform(
    image: Image,
    source: Annotated[Path, typer.Argument(help="File with one record a line.")],
    target: Annotated[Path, typer.Argument(help="File for one result a line.")],
    model: Model,
    strategy: Annotated[str | None, typer.Option(help="MULTI_RECORD or SINGLE_RECORD.")] = None,
    max_payload_mb: Annotated[
        int | None, typer.Option(help="0: one chunked request (default: the container's).")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at once.")] = None,
    content_type: Annotated[str, typer.Option()] = "application/jsonlines",
    env: Env = [],  # noqa: B006
) -> None:
    chosen: Strategy | None = None
    if strategy is not None:
        if strategy not in ("MULTI_RECORD", "SINGLE_RECORD"):
            raise InvalidInput(f"--strategy {strategy} is not MULTI_RECORD or SINGLE_RECORD")
        chosen = "MULTI_RECORD" if strategy == "MULTI_RECORD" else "SINGLE_RECORD"
    batch = {"SAGEMAKER_BATCH": "true"} | _pairs(env)
    with tempfile.TemporaryDirectory() as work:
        folder = _model(model, Path(work))
        with endpoint(Engine.find(), image, folder, environment=batch) as served:
            served.wait()
            plan = Plan.ask(
                served, strategy=chosen, max_payload_mb=max_payload_mb, concurrency=concurrency
            )
            count = run_transform(served, source, target, plan, content_type=content_type)
    print(f"{count} records answered into {target}")


@app.command(
    help="""Run a training job, and pack its model.tar.gz.

Example:  python -m sagemaker_local train rag-indexer --channel documents=./documents --work ./job
"""
)
def train(
    image: Image,
    work: Annotated[Path, typer.Option(help="Folder for model, output and checkpoints.")],
    channel: Annotated[list[str], typer.Option(help="NAME=FOLDER. Repeatable.")],
    hyperparameter: Annotated[list[str], typer.Option("-p", help="NAME=VALUE. Repeatable.")] = [],  # noqa: B006
    env: Env = [],  # noqa: B006
) -> None:
    channels = {name: Path(folder) for name, folder in _pairs(channel).items()}
    with jobs.training(
        Engine.find(), image, work, hyperparameters=_pairs(hyperparameter), channels=[channels],
        environment=_pairs(env),
    ) as hosts:  # fmt: skip
        ended = hosts[0].end()
    print(ended.log, file=sys.stderr)
    if ended.exit_code:
        print(f"the job failed: {ended.reason}", file=sys.stderr)
        raise typer.Exit(1)
    archive = work / "model.tar.gz"
    with tempfile.TemporaryDirectory() as merged:
        problems = jobs.model_archive(hosts, archive, Path(merged))
    if problems:
        raise InvalidInput(f"the model holds links or clashing names: {', '.join(problems)}")
    print(archive)


@app.command(
    help="""Run a processing job; what follows -- is its arguments.

Example:  python -m sagemaker_local process rag-indexer --work ./job --input documents=./docs \\
            --output bundle -- process
"""
)
def process(
    image: Image,
    work: Annotated[Path, typer.Option(help="Folder for the outputs.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments.")] = None,
    inputs: Annotated[list[str], typer.Option("--input", help="NAME=FOLDER.")] = [],  # noqa: B006
    outputs: Annotated[list[str], typer.Option("--output", help="NAME.")] = [],  # noqa: B006
    env: Env = [],  # noqa: B006
) -> None:
    folders = {name: Path(folder) for name, folder in _pairs(inputs).items()}
    ended, found = jobs.process(
        Engine.find(), image, work, arguments=arguments or [], inputs=folders, outputs=outputs,
        environment=_pairs(env),
    )  # fmt: skip
    print(ended.log, file=sys.stderr)
    if ended.exit_code:
        print(f"the job failed: {ended.reason or f'exit code {ended.exit_code}'}", file=sys.stderr)
        raise typer.Exit(1)
    print(json.dumps({name: str(found.output(name)) for name in outputs}))


def _pairs(given: list[str]) -> dict[str, str]:
    for pair in given:
        if "=" not in pair:
            raise InvalidInput(f"{pair!r} is not NAME=VALUE")
    return dict(pair.split("=", 1) for pair in given)


def _model(given: Path, work: Path) -> Path:
    if given.is_dir():
        return given
    extract_model(given, work / "model")
    return work / "model"


def main() -> None:
    """Runs the command; an error that has a name is one line on standard error."""
    try:
        app()
    except LocalError as error:
        print(f"sagemaker_local: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
