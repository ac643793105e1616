"""The operator's commands, a thin shell: ``check``, ``evidence list``, ``votes export``, ``votes import``; keys and the
node's place in the network have modules of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from validator.operations import node_commands
from validator.operations.key_commands import keys

if TYPE_CHECKING:
    from validator.wiring import Node

evidence = typer.Typer(help="Double votes that were noticed.", no_args_is_help=True)
votes = typer.Typer(help="Take all that the voting key has signed to another database.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the operator's commands to the program's."""
    app.command()(check)
    app.add_typer(evidence, name="evidence")
    app.add_typer(votes, name="votes")
    app.add_typer(keys, name="keys")
    node_commands.register(app)


def check() -> int:
    """Look at everything this validator depends on: one line each, ok, warn or fail. Status 1 if anything fails."""
    from validator.operations.check import run_checks
    from validator.operations.findings import Level

    _log_errors_only()
    failed = 0
    for finding in run_checks():
        failed += finding.level is Level.FAIL
        typer.echo(f"{finding.level:<5}{finding.name:<20}{_one_line(finding.text)}")
    return 1 if failed else 0


@evidence.command("list")
def list_all(
    as_json: Annotated[bool, typer.Option("--json", help="As data, with the signed statements in hex.")] = False,
) -> None:
    """List all evidence, newest first."""
    from validator.operations.evidence import describe_evidence, evidence_data, list_evidence

    with _opened_node() as node:
        found = list_evidence(node.database)
    if as_json:
        typer.echo(json.dumps(evidence_data(found), indent=1))
        return
    for line in describe_evidence(found):
        typer.echo(line)
    if not found:
        typer.echo("none")


@votes.command("export")
def export_all(file: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Write all own votes into a file and retire this database: it never votes again."""
    from validator.operations.votes import export_votes

    with _opened_node() as node:
        count = export_votes(node, file)
    typer.echo(f"{count} statements in {file}; this database is retired, stop its processes")


@votes.command("import")
def import_all(file: Annotated[Path, typer.Argument(help="What votes export wrote.")]) -> None:
    """Take the votes of a retired database into this one; refused where this one knows more."""
    from validator.operations.votes import import_votes

    with _opened_node() as node:
        imported = import_votes(node, file)
    typer.echo(f"{imported.statements} statements, {imported.new} of them new")


@contextmanager
def _opened_node() -> Iterator[Node]:
    """A node for one command, closed after it."""
    from validator.settings import load_settings
    from validator.wiring import Node, NoTasks

    _log_errors_only()
    node = Node(load_settings(), NoTasks())
    try:
        yield node
    finally:
        node.close()


def _log_errors_only() -> None:
    """What a command has to say it prints itself."""
    from validator import log as logs

    logs.configure("ERROR", "console")


def _one_line(text: str) -> str:
    from validator.log import spell_controls, trim_urls

    return spell_controls(" ".join(trim_urls(text).split()))
