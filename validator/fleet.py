"""``logstore-validator worker``, ``beat`` and ``flower``: what runs beside ``serve``; a thin shell over ``tasks``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tasks import programs
from tasks.programs import Queue
from validator import log as logs
from validator.protocol.errors import ConfigError
from validator.quantities import show_count
from validator.settings import load_settings, read_password_file

log = logs.get_logger("fleet")

MAX_CHILDREN = 256
LOGIN = "FLOWER_BASIC_AUTH"


def register(app: typer.Typer) -> None:
    """Add these commands to the program's."""
    app.command(epilog="Example: logstore-validator worker collect --children 4")(worker)
    app.command()(beat)
    app.command(epilog="Example: logstore-validator drain --wait 60")(drain)
    app.command(epilog="Example: FLOWER_BASIC_AUTH=operator:password logstore-validator flower")(flower)


def worker(
    queues: Annotated[
        list[Queue] | None, typer.Argument(metavar="[QUEUE]...", help="Which queues; all, if none.")
    ] = None,
    children: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_CHILDREN, help="Tasks at once; default: one per core, 8 threads for round."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="How it is called in Flower; default: after its queues.")] = None,
) -> int:
    """Perform tasks: collect (pulls, heavy), round (agreement), bundle (Arweave), report (Polygon). As many workers of
    a queue as you like, on as many machines, over one database and one Redis."""
    _configure_log()
    return programs.run(programs.worker_words(queues or (), children, name))


def beat() -> int:
    """Look every few seconds for what is due. It keeps no file; a second one only makes ticks come twice."""
    _configure_log()
    return programs.run(programs.beat_words())


def drain(
    queues: Annotated[list[Queue] | None, typer.Argument(metavar="[QUEUE]...", help="Which; default: all.")] = None,
    wait: Annotated[int, typer.Option(min=0, max=3_600, help="Seconds to wait for tasks in hand.")] = 60,
    undo: Annotated[bool, typer.Option("--undo", help="Take up work again.")] = False,
) -> int:
    """Have all workers of these queues finish what they have in hand and take up nothing more, before an upgrade.
    Status 1 if something is still in hand. Messages stay in Redis, rows in the database."""
    logs.configure("ERROR", "console")
    chosen = [queue.value for queue in queues or list(Queue)]
    if undo:
        typer.echo(f"{_say_who(programs.fill(chosen))} up {', '.join(chosen)} again")
        return 0
    drained = programs.drain(chosen, wait)
    busy = f", {show_count(drained.in_hand, 'task')} still in hand" if drained.in_hand else ", nothing is in hand"
    typer.echo(f"{_say_who(drained.workers)} up no more of {', '.join(chosen)}{busy}")
    return 1 if drained.in_hand else 0


def _say_who(workers: int) -> str:
    return f"{show_count(workers, 'worker')} {'takes' if workers == 1 else 'take'}"


def flower(
    address: Annotated[str, typer.Option(help="Never a public one: its /metrics asks for no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5555,
    database: Annotated[
        Path | None, typer.Option("--db", metavar="FILE", help="Keep what it has seen over a restart.")
    ] = None,
) -> int:
    """Show workers and tasks. Its login, name:password, is in FLOWER_BASIC_AUTH, or FLOWER_BASIC_AUTH_FILE names it."""
    user, _, password = (login := _read_login()).partition(":")
    if not user or not password:
        raise ConfigError(f"{LOGIN}: not set as name:password; whoever opens Flower can stop workers", field=LOGIN)
    os.environ[LOGIN] = login
    _configure_log()
    log.info("flower.started", address=address, port=port)
    return programs.run(programs.flower_words(address, port, None if database is None else str(database)))


def _read_login() -> str:
    path = os.environ.get(f"{LOGIN}_FILE", "")
    return read_password_file(Path(path), f"{LOGIN}_FILE") if path else os.environ.get(LOGIN, "")


def _configure_log() -> None:
    """Before anything of Celery's is imported, which says things of its own."""
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
