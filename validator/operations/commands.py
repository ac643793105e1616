"""The operator's commands, a thin shell: ``check``, ``evidence list``, ``votes export``, ``votes import``; keys and the
node's place in the network have modules of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from validator.operations import node_commands, watching_commands
from validator.operations.key_commands import keys
from validator.operations.opened import log_errors_only, opened_node
from validator.protocol.errors import ConfigError
from validator.quantities import show_count

evidence = typer.Typer(help="Double votes that were noticed.", no_args_is_help=True)
votes = typer.Typer(help="Take all that the voting key has signed to another database.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the operator's commands to the program's."""
    app.command(epilog="Example: logstore-validator init --network https://example.org/network.toml")(init)
    app.command()(check)
    app.add_typer(evidence, name="evidence")
    app.add_typer(votes, name="votes")
    app.add_typer(keys, name="keys")
    node_commands.register(app)
    watching_commands.register(app)


def init(
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            metavar="URL|FILE",
            help="Begin here: the network's file, copied to network.toml; missing keys and .env are made.",
        ),
    ] = None,
    rpc: Annotated[
        list[str] | None, typer.Option("--rpc", metavar="URL", help="A chain node for .env; several times.")
    ] = None,
    gateway: Annotated[
        list[str] | None, typer.Option("--gateway", metavar="URL", help="An Arweave gateway for .env; several times.")
    ] = None,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored", help="The database is a restored backup or replaces a lost one: vote only after a while."
        ),
    ] = False,
) -> None:
    """Create or migrate this validator's database, and tie it to the voting key; with --network from nothing. Safe to
    repeat: no file is ever written over."""
    from validator import log as logs
    from validator.operations.begin import begin
    from validator.operations.initialise import compare_with_contract, initialise
    from validator.settings import ENV_FILE, given_values, load_settings

    if network is None:
        if (rpc or gateway) or ("LOGSTORE_NETWORK_FILE" not in given_values() and not Path(ENV_FILE).exists()):
            raise ConfigError(
                "LOGSTORE_NETWORK_FILE: not set, and no .env is here; begin with "
                "logstore-validator init --network URL|FILE",
                field="--network",
            )
    else:
        for made in begin(network, rpc or (), gateway or ()):
            typer.echo(f"{made.word:<5} {made.path:<22}{made.text}".rstrip())
        if "LOGSTORE_RPC_URLS" not in given_values() or "LOGSTORE_GATEWAY_URLS" not in given_values():
            typer.echo(f"next  fill in LOGSTORE_RPC_URLS and LOGSTORE_GATEWAY_URLS in {ENV_FILE}, then the same again")
            return
    settings = load_settings()
    logs.configure(settings.log_level, "json" if network is None else "console")
    if network is not None:
        typer.echo(f"ok    {compare_with_contract(settings)}")
    initialise(settings, restored=restored)
    if network is not None:
        typer.echo("next  logstore-validator check --join")


def check(
    join: Annotated[
        bool, typer.Option("--join", help="What is missing before a seat, and the command that mends each.")
    ] = False,
) -> int:
    """Look at everything this validator depends on: one line each, ok, warn or fail. Status 1 if anything fails."""
    from validator.operations.check import run_checks
    from validator.operations.check_join import run_join_checks
    from validator.operations.findings import Level

    log_errors_only()
    failed = 0
    for finding in run_join_checks() if join else run_checks():
        failed += finding.level is Level.FAIL
        typer.echo(f"{finding.level:<5}{finding.name:<20}{_one_line(finding.text)}")
    return 1 if failed else 0


@evidence.command("list")
def list_all(
    as_json: Annotated[bool, typer.Option("--json", help="As data, with the signed statements in hex.")] = False,
) -> None:
    """List all evidence, newest first."""
    from validator.operations.evidence import describe_evidence, evidence_data, list_evidence

    with opened_node() as node:
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

    with opened_node() as node:
        count = export_votes(node, file)
    typer.echo(f"{show_count(count, 'statement')} in {file}; this database is retired, stop its processes")


@votes.command("import")
def import_all(file: Annotated[Path, typer.Argument(help="What votes export wrote.")]) -> None:
    """Take the votes of a retired database into this one; refused where this one knows more."""
    from validator.operations.votes import import_votes

    with opened_node() as node:
        imported = import_votes(node, file)
    typer.echo(f"{show_count(imported.statements, 'statement')}, {imported.new} of them new")


def _one_line(text: str) -> str:
    from validator.log import spell_controls, trim_urls

    return spell_controls(" ".join(trim_urls(text).split()))
