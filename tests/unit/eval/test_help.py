"""Every command says what it does, with an example that parses."""

from __future__ import annotations

import shlex

import pytest
import typer

from eval.__main__ import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_has_an_example_that_parses(name: str) -> None:
    text = COMMANDS[name].help
    example = text[text.index("Example:") :].removeprefix("Example:").split("\n\n")[0]
    program, command, *arguments = shlex.split(example)
    assert (program, command) == ("rag-eval", name)
    COMMANDS[name].make_context(name, arguments)
    assert all(p.help for p in COMMANDS[name].params if p.name != "help")


def test_the_commands_are_these() -> None:
    assert {"retrieval", "compare", "gate", "report", "golden", "answers", "synth", "tune"} <= set(
        COMMANDS
    )
