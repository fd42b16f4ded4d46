"""`rag-indexer train | process | metrics`: builds under a platform's contracts for training and
processing jobs. Both are `rag-indexer build` with options from other places.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer.commands.build import command, flags
from rag.errors import ConfigurationError, RagError

if TYPE_CHECKING:
    from indexer.sagemaker import Layout

TRAIN_HELP = """Build a bundle as a SageMaker training job; its model.tar.gz is directly servable.

Documents come from the channel 'documents' (or 'training', 'train', or the only one; the
hyperparameter 'channel' names another), in File or FastFile mode. A channel 'encoder' may hold
the model. Hyperparameters are the options of rag-indexer build, such as chunk_size; 'publish_to'
publishes the bundle at a root as well. The bundle is written to model/, the reason of a failure
to output/failure, metrics to standard output (see rag-indexer metrics). With several hosts the
first one builds; shares of a sharded channel are handed over to it.

Example:  rag-indexer train --root ./opt-ml
"""
PROCESS_HELP = """Build a bundle as a SageMaker processing job.

Takes every option of rag-indexer build. --source defaults to the job's input 'documents' (or the
first one, or processing/input), --output to its output 'bundle' (or the first one, or
processing/output), which gets the sealed bundle itself; --output s3://… --layout root publishes.
The reason of a failure is written to output/message.

Example:  rag-indexer process --root ./opt-ml --chunk-size 200
"""
METRICS_HELP = """Print the metrics of a job with the regular expressions that read them, as JSON.

The output is the MetricDefinitions of CreateTrainingJob.

Example:  rag-indexer metrics > metric-definitions.json
"""
OPT_ML = Path("/opt/ml")
LAST_CALL_S = 100
"""Seconds after SIGTERM when the process ends whatever it does; the platform kills at 120."""

UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
"""What a wrong command line raises: Typer brings it along, and exports only this subclass."""

RootFolder = Annotated[Path, typer.Option(help="Folder that stands for /opt/ml.")]


def train(root: RootFolder = OPT_ML) -> None:
    from indexer.sagemaker import Layout

    layout = Layout(root)
    with _reporting(layout.write_failure), tempfile.TemporaryDirectory(prefix="rag-train-") as work:
        _train(layout, Path(work))


def process(context: typer.Context, root: RootFolder = OPT_ML) -> None:
    from indexer.sagemaker import Layout

    layout = Layout(root)
    with _reporting(layout.write_message):
        inputs, outputs = layout.processing()
        folder = root / "processing"
        defaults = {
            "--source": _first(inputs, "documents", folder / "input"),
            "--output": _first(outputs, "bundle", folder / "output"),
            "--layout": "bundle",
        }
        arguments = list(context.args)
        given = {argument.partition("=")[0] for argument in arguments}
        for name, value in defaults.items():
            if name not in given:
                arguments += [name, str(value)]
        _print_metrics(_build(arguments))


def metrics() -> None:
    from indexer.metric_lines import definitions

    print(json.dumps(definitions(), indent=2))


def _train(layout: Layout, work: Path) -> None:
    from indexer import gathering
    from indexer.progress import make_progress
    from indexer.publish import publish
    from indexer.sagemaker import ENCODER, as_arguments, documents_channel, take

    wanted = layout.hyperparameters()
    channels = layout.channels()
    channel = documents_channel(channels, take(wanted, "channel"))
    publish_to = take(wanted, "publish_to")
    own = ("source", "output", "layout", "as_json", "gate")
    arguments = as_arguments(wanted, flags(*own))
    if ENCODER in channels and "encoder" not in wanted:
        arguments += ["--encoder", str(channels[ENCODER].folder)]
    host, hosts = layout.hosts()
    leader, *others = hosts
    progress = make_progress()
    if host != leader:
        progress.note("another host builds", host=host, leader=leader)
        if channel.sharded:
            gathering.hand_over(channel.folder, host, progress)
        return
    source = channel.folder
    if channel.sharded and others:
        source = work / "documents"
        gathering.gather(channel.folder, others, source, progress)
    arguments += ["--source", str(source), "--output", str(layout.model), "--layout", "bundle"]
    if layout.checkpoints.is_dir() and not {"checkpoint_dir", "checkpoint-dir"} & set(wanted):
        arguments += ["--checkpoint-dir", str(layout.checkpoints)]
    report = _build(arguments)
    if publish_to is not None:
        publish(layout.model, publish_to, progress)
    _print_metrics(report)


def _build(arguments: list[str]) -> dict[str, Any]:
    """Runs `rag-indexer build` with these arguments; returns what it reports."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        command().main([*arguments, "--json"], "rag-indexer build", standalone_mode=False)
    text = said.getvalue()
    print(text, end="")
    return dict(json.loads(text.splitlines()[-1]))


def _print_metrics(report: dict[str, Any]) -> None:
    from indexer.metric_lines import lines

    seconds = {f"seconds:{stage}": s for stage, s in report["seconds"].items()}
    total = sum(report["seconds"].values())
    values = {
        "documents": report["documents"],
        "chunks": report["chunks"],
        "skipped": len(report["skipped"]),
        "embedded": report["embedded"],
        "bytes": report["bytes"],
        "seconds:total": total,
        "chunks_per_second": report["chunks"] / max(total, 1e-3),
        **seconds,
    }
    print("\n".join(lines(values)), flush=True)


@contextlib.contextmanager
def _reporting(write: Callable[[str], None]) -> Iterator[None]:
    """Whatever fails is written down for the platform, cause first, and ends with exit code 1."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except (RagError, UsageError) as error:
        text = str(error) if isinstance(error, RagError) else error.format_message()
        write(text)
        print(f"rag-indexer: {text}", file=sys.stderr)
        raise typer.Exit(1) from None
    except Exception as error:
        write(f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}")
        raise


def _terminated(number: int, frame: FrameType | None) -> None:
    """Ends the process as soon as it can, and by force before the platform would."""
    timer = threading.Timer(LAST_CALL_S, os._exit, (128 + number,))
    timer.daemon = True
    timer.start()
    raise ConfigurationError("the job was stopped by SIGTERM; run it again")


def _first(places: dict[str, Path], name: str, otherwise: Path) -> Path:
    return places.get(name) or next(iter(places.values()), otherwise)
