"""`rag-indexer`: the commands that make, check and publish bundles; each is a file of
indexer/commands/.
"""

from __future__ import annotations

import logging
import os
import sys

import typer

from indexer.commands import audit, build, platform, report, vectors, verify, versions
from indexer.stopping import EXIT_CODE
from rag.errors import BuildStopped, RagError

app = typer.Typer(
    name="rag-indexer",
    help="Turns documents into sealed bundles that `rag serve` answers from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(help=build.HELP, context_settings=build.CONTEXT)(build.build)
app.command(help=verify.HELP)(verify.verify)
app.command(help=report.HELP)(report.report)
app.command(help=versions.VERSIONS_HELP)(versions.versions)
app.command(help=versions.PUBLISH_HELP)(versions.publish)
app.command(help=versions.ROLLBACK_HELP)(versions.rollback)
app.command(help=versions.PRUNE_HELP)(versions.prune)
app.command(help=versions.PIN_HELP)(versions.pin)
app.command(help=vectors.HELP)(vectors.prune_vectors)
app.command(help=audit.FSCK_HELP)(audit.fsck)
app.command(help=audit.EXPLAIN_HELP)(audit.explain)
app.command(help=audit.DIFF_HELP)(audit.diff)
app.command(help=platform.TRAIN_HELP)(platform.train)
app.command(
    help=platform.PROCESS_HELP,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(platform.process)
app.command(help=platform.METRICS_HELP)(platform.metrics)


def main() -> None:
    """Runs the command; an error that has a name is one line on standard error and exit code 1."""
    # The tokenizer's threads and the encoder's would fight over the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("sentence_transformers", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        build.check_variables(os.environ)
        code = app(standalone_mode=False)
    except BuildStopped as stopped:
        print(f"rag-indexer: {stopped}", file=sys.stderr)
        sys.exit(EXIT_CODE)
    except RagError as error:
        print(f"rag-indexer: {error}", file=sys.stderr)
        sys.exit(1)
    except platform.UsageError as error:
        tell = getattr(error, "format_message", error.__str__)
        print(f"rag-indexer: {tell()}", file=sys.stderr)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
