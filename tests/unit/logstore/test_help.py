"""Each command's help ends with an example, and the example's words are right."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from logstore import cli
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


def groups(command: Any, path: str = PROGRAM) -> Iterator[tuple[str, Any]]:
    if getattr(command, "commands", None) is not None:
        yield path, command
        for name, each in command.commands.items():
            yield from groups(each, f"{path} {name}")


@pytest.mark.parametrize(("path", "group"), list(groups(typer.main.get_command(app))))
def test_a_list_of_commands_says_all_of_each_on_a_line(path: str, group: Any) -> None:
    context = group.make_context(path, [], resilient_parsing=True, terminal_width=80)
    listed = group.get_help(context).partition("Commands:")[2].strip().splitlines()
    assert len(listed) == len(group.commands)
    assert not [line for line in listed if line.endswith("...")]


def test_help_has_a_short_option_where_no_word_may_begin_with_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["query"], ["stream", "create"]):
        assert cli.main([*words, "-h"]) == 0
        short = capsys.readouterr().out
        assert cli.main([*words, "--help"]) == 0
        assert capsys.readouterr().out == short


@pytest.mark.parametrize("words", [["prove", "0xnobody/nothing", "-1h"], ["publish", "0xnobody/nothing", "-1h"]])
def test_a_word_with_a_dash_is_no_call_for_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--network", "nowhere.toml"]) != 0
    assert "Usage:" not in capsys.readouterr().out
