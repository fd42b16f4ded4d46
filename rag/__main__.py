"""`rag`: the commands that answer from a bundle."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from rag import logs, settings
from rag.errors import RagError

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What the parser raises for a command line that it does not understand."""

app = typer.Typer(
    name="rag",
    help="Answers questions from sealed bundles, each sentence with its sources.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SERVE_HELP = """Answer /ping and /invocations over HTTP until SIGTERM.

Every option is a RAG_* environment variable too; an option given here wins.

Example:  rag serve --bundle ./bundle
"""


@app.callback()
def _root() -> None:
    """Keeps the commands named even if there is only one."""


@app.command(help=SERVE_HELP)
def serve(
    bundle: Annotated[
        str | None, typer.Option(help="Bundle folder, or the root a build wrote to; may be s3://.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    given: dict[str, Any] = {"bundle": bundle, "host": host, "port": port, "log_level": log_level}
    chosen = settings.load(**{name: value for name, value in given.items() if value is not None})
    logs.configure(chosen.log_level)
    from rag.service.app import serve as run

    raise typer.Exit(run(chosen))


def main() -> None:
    """Runs the command; an error that has a name is one line on standard error."""
    # The tokenizer's threads and the encoder's would fight over the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = app(standalone_mode=False)
    except RagError as error:
        print(f"rag: {error}", file=sys.stderr)
        sys.exit(1)
    except UsageError as error:
        tell = getattr(error, "format_message", error.__str__)
        print(f"rag: {tell()}", file=sys.stderr)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
