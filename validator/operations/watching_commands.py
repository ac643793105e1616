"""``status``, ``window show|diff``, ``replay`` and ``report-issue``: what an operator asks of a validator that runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from validator.protocol.errors import ConfigError
from validator.protocol.model import Address

window = typer.Typer(help="One window: how it stands, and what two validators saw of it.", no_args_is_help=True)

START = Annotated[int, typer.Argument(min=0, metavar="START", help="Its start in Unix ms, as the status page shows.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the program's."""
    app.command(epilog="Exit status: 0 healthy, 1 degraded, 2 not taking part. Example: status --since 1h")(status)
    app.add_typer(window, name="window")
    app.command(epilog="Example: logstore-validator replay bundle.verify 7")(replay)
    app.command("report-issue")(report_issue)


def status(
    since: Annotated[
        str | None, typer.Option(metavar="SPAN|TIME", help="How it took part since then: 1h, 7d, 2026-11-30T12:00.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As data: /status.json of the server.")] = False,
) -> int:
    """Say in one look how this validator is, and why."""
    from validator.operations import watching
    from validator.settings import load_settings

    settings = load_settings()
    since_ms = None if since is None else watching.parse_since(since, time.time_ns() // 1_000_000)
    told = watching.ask_status(settings)
    if as_json:
        data = told.data or {"verdict": {"level": told.level, "text": told.text, "reasons": []}}
        typer.echo(json.dumps(data, indent=1))
        return told.status
    for line in watching.describe_status(told):
        typer.echo(line)
    if since_ms is not None and told.data is not None:
        seen = watching.ask(settings, f"/participation.json?since_ms={since_ms}")
        typer.echo(watching.describe_participation(seen, watching.show_ms(since_ms)))
    return told.status


@window.command()
def show(start_ms: START) -> None:
    """How a window stands: state, round, votes heard, certificate, and what it waits for."""
    from validator.operations import watching
    from validator.settings import load_settings

    told = watching.ask_status(load_settings(), limit=10_000)
    if told.data is None:
        raise ConfigError(told.text, field="START")
    for line in watching.describe_window(told, start_ms):
        typer.echo(line)


@window.command()
def diff(
    start_ms: START, member: Annotated[str, typer.Argument(help="Address of another member, 0x and 40 hex digits.")]
) -> None:
    """Message by message, what only we and what only another member saw of a window; the member is asked."""
    from validator.operations import watching
    from validator.operations.opened import opened_node

    with opened_node() as node:
        for line in watching.compare_window(node, start_ms, _parse_address(member)):
            typer.echo(line)


def replay(
    task: Annotated[str, typer.Argument(help="A task, such as bundle.verify.")],
    key: Annotated[str, typer.Argument(help="What it is about: a window's start, a bundle's number, an instance.")],
) -> None:
    """Have a task done again at beat's next tick. Every task is safe to run twice."""
    from validator.operations.opened import opened_node
    from validator.ports.queue import Task
    from validator.steps.pipeline import PIPELINE

    known = [one.value for one, stage in PIPELINE.items() if stage.has_row]
    if task not in known:
        raise ConfigError(f"{task!r} is no task that can be due; there are {', '.join(sorted(known))}", field="TASK")
    with opened_node() as node:
        node.require_identity()
        node.store.due.schedule(Task(task), key, node.clock.now_ms())
    typer.echo(f"{task} {key} is due now; Flower shows how it ends")


def report_issue(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new one, such as issue.tar.gz.")],
) -> None:
    """Write what helps others to help: versions, names of settings, check, status. No secret, nothing is sent."""
    from validator.operations.issue import write_archive
    from validator.settings import load_settings

    names = write_archive(load_settings(), file)
    typer.echo(f"{file}: {', '.join(names)}; look through it before you give it away")


def _parse_address(text: str) -> Address:
    digits = text.removeprefix("0x")
    try:
        if len(digits) != 40:
            raise ValueError(digits)
        return Address(bytes.fromhex(digits))
    except ValueError:
        raise ConfigError(f"{text!r} is no address: 0x and 40 hex digits", field="MEMBER") from None
