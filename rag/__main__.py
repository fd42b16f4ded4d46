"""`rag`: the commands that answer from a bundle."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from rag import logs, settings
from rag.errors import ConfigurationError, InvalidFilter, RagError
from rag.models.threads import limit_pools

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
    """What all commands begin with."""
    limit_pools()


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


SEARCH_HELP = """Show the passages that both legs find for QUERY, with ranks and scores.

Example:  rag search "how is a container stopped" --bundle ./bundle --top-k 3
"""

ASK_HELP = """Answer QUESTION from the indexed documents, each sentence with its sources.

Example:  rag ask "How long may a container take to stop?" --bundle ./bundle
"""

KEY_HELP = """Make an API key called NAME: the key, then its entry for the key file.

Example:  rag key team-a --filter '{"tenant": "a"}'
"""

Bundle = Annotated[
    str | None, typer.Option(help="Bundle or root to open for this (default: RAG_BUNDLE).")
]
Url = Annotated[str | None, typer.Option(help="A running service to ask instead.")]
TopK = Annotated[int, typer.Option(help="How many passages.")]
Where = Annotated[
    str | None, typer.Option("--filter", help="""JSON filter, e.g. '{"lang": {"$eq": "ko"}}'.""")
]
Legs = Annotated[str, typer.Option(help="hybrid, dense or sparse.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the reply as one JSON object.")]


@app.command(help=SEARCH_HELP)
def search(
    query: Annotated[str, typer.Argument(help="What to search for.")],
    bundle: Bundle = None,
    url: Url = None,
    top_k: TopK = 5,
    where: Where = None,
    legs: Legs = "hybrid",
    as_json: AsJson = False,
) -> None:
    request = {"query": query, "mode": "retrieve", "top_k": top_k, "legs": legs}
    _show(request, where, bundle, url, as_json=as_json)


@app.command(help=ASK_HELP)
def ask(
    question: Annotated[str, typer.Argument(help="What to answer.")],
    bundle: Bundle = None,
    url: Url = None,
    top_k: TopK = 5,
    where: Where = None,
    legs: Legs = "hybrid",
    as_json: AsJson = False,
) -> None:
    request = {"query": question, "mode": "answer", "top_k": top_k, "legs": legs}
    _show(request, where, bundle, url, as_json=as_json)


@app.command(help=KEY_HELP)
def key(
    name: Annotated[str, typer.Argument(help="What logs call the key.")],
    where: Annotated[
        str | None, typer.Option("--filter", help="JSON filter that all its searches keep.")
    ] = None,
    bundle: Annotated[
        list[str] | None, typer.Option(help="A bundle that it may ask; again for more.")
    ] = None,
    manage: Annotated[bool, typer.Option(help="It may load and unload bundles.")] = False,
) -> None:
    from rag.service.access import new_key

    secret, entry = new_key(name, _read_filter(where), bundle, manage=manage)
    print(secret)
    print(json.dumps(entry, ensure_ascii=False))


ROLLBACK_HELP = """Make an earlier version of a root current; services that follow it swap to it.

Example:  rag rollback s3://bucket/index
"""


@app.command(help=ROLLBACK_HELP)
def rollback(
    bundle: Annotated[str | None, typer.Argument(help="The root (default: RAG_BUNDLE).")] = None,
    to: Annotated[str | None, typer.Option(help="Version id (default: the one before).")] = None,
) -> None:
    from indexer.publish import rollback as roll_back

    root = bundle or settings.load().bundle
    before, now = roll_back(root, to)
    print(f"{root}: version {now} is current, before it was {before}")


def _read_filter(where: str | None) -> dict[str, Any] | None:
    try:
        return None if where is None else json.loads(where)
    except ValueError as error:
        raise InvalidFilter(f"--filter is not JSON: {error}") from None


def _show(
    request: dict[str, Any],
    where: str | None,
    bundle: str | None,
    url: str | None,
    *,
    as_json: bool,
) -> None:
    """Sends one request to where the options say, and prints its reply."""
    if bundle is not None and url is not None:
        raise ConfigurationError("--bundle and --url are both given; choose one")
    if where is not None:
        request["filter"] = _read_filter(where)
    from rag.service import asking

    if url is not None:
        reply = asking.ask_service(url, request)
    else:
        logs.configure("ERROR")
        chosen = settings.load(**({} if bundle is None else {"bundle": bundle}))
        reply = asking.ask_bundle(chosen, request)
    if as_json:
        print(json.dumps(reply, ensure_ascii=False))
        return
    from rich.console import Console

    from rag.terminal import show_reply

    show_reply(Console(highlight=False), reply)


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
