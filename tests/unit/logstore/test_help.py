"""Each command's help ends with an example, and the example's words are right."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from logstore.cli import PROGRAM, app


def commands(command: Any, path: str = PROGRAM) -> Iterator[tuple[str, Any]]:
    """Those that do something, by their words."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, each in inner.items():
        yield from commands(each, f"{path} {name}")


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS)
def test_a_commands_help_has_an_example_that_parses(path: str) -> None:
    command = COMMANDS[path]
    found = re.search(r"Example: (.*)", inspect.cleandoc(command.help or ""), re.DOTALL)
    assert found is not None, "no example"
    words = shlex.split(found[1].split("\n\n")[0])
    shown = [word for word in path.split() if word != "bundle" or words[1] == "bundle"]
    assert words[: len(shown)] == shown
    context = command.make_context(path, words[len(shown) :])
    assert context.params
