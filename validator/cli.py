"""The command line, a thin shell: parse, call, translate errors into one line and an exit status.

    logstore-validator --version what this copy is: version, commit, protocol and bundle versions
    logstore-validator devnet    a whole network on this machine
    logstore-validator init      from an empty folder to settings, keys and a database; create or migrate the database
    logstore-validator serve     both listeners and the head watcher
    logstore-validator worker    perform tasks, of all queues or of those that are named; beat and flower go with it
    logstore-validator broker    cache streams and answer queries: a role of its own
    logstore-validator status    how it is, and why; beside it window, replay, drain and report-issue
    logstore-validator check     whether everything this validator depends on is as it must be
    logstore-validator evidence  double votes that were noticed
    logstore-validator keys      make, show and take in the keys of a node
    logstore-validator join      register a node, or change its metadata; leave takes it off the list
    logstore-validator stake     bring tokens to the network; delegate, undelegate, withdraw and deposit move them
    logstore-validator votes     take all that the voting key has signed to another database

Status 0: done; 1: the run did not verify; 2: a wrong option, setting or environment; 130: Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError, UsageError

from validator import fleet
from validator.devnet.plan import ALL_CHAOS, ChaosKind, LyingKind, Options, parse_chaos
from validator.devnet.summary import describe_fields
from validator.operations import commands
from validator.protocol.errors import ConfigError, ValidatorError
from validator.version import describe_version

STARTED_MS = time.time_ns() // 1_000_000
PROGRAM = "logstore-validator"
_DEFAULTS = Options()

app = typer.Typer(
    name=PROGRAM,
    help="Validator of the Log Store Network: agrees on what each time window holds, archives it, settles.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

commands.register(app)
fleet.register(app)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(describe_version(PROGRAM))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show version, commit, and the protocol and bundle versions that are spoken.",
        ),
    ] = False,
) -> None:
    """Options of the program itself; each ends it."""


_DEVNET_EPILOG = f"""\b
Fields of the summary that --json writes:
{describe_fields()}

\b
Exit status: 0 verified, 1 not verified or stuck, 2 a wrong option or environment, 130 after Ctrl-C.
"""


@app.command(epilog=_DEVNET_EPILOG)
def devnet(
    validators: Annotated[int, typer.Option(help="How many validators; 1 to 3 bear no fault.")] = _DEFAULTS.validators,
    brokers: Annotated[int, typer.Option(help="How many brokers.")] = _DEFAULTS.brokers,
    consumers: Annotated[int, typer.Option(help="How many consumers that read and pay.")] = _DEFAULTS.consumers,
    windows: Annotated[
        int, typer.Option(help="Windows before the closing bundle; with --keep, of each epoch.")
    ] = _DEFAULTS.windows,
    window_seconds: Annotated[
        float, typer.Option(help="Length of a window in seconds, at least 2.")
    ] = _DEFAULTS.window_seconds,
    rate: Annotated[float, typer.Option(help="Messages a second, all publishers together.")] = _DEFAULTS.rate,
    loss: Annotated[float, typer.Option(help="Share of deliveries that get lost, below 1.")] = _DEFAULTS.loss,
    seed: Annotated[int, typer.Option(help="Seed of keys, contents and faults.")] = _DEFAULTS.seed,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the summary as data; its fields are below.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New or empty folder for the run; default: a new one in ./devnet-data."),
    ] = None,
    flower: Annotated[
        str, typer.Option(metavar="first|all|none", help="For which operators Flower runs.")
    ] = _DEFAULTS.flower,
    keep: Annotated[
        bool, typer.Option("--keep", help="Go on until Ctrl-C, for trying it out; nothing is checked at the end.")
    ] = False,
    tour: Annotated[bool, typer.Option("--tour", help="With --keep: then take a newcomer through it.")] = False,
    kill_one: Annotated[
        bool, typer.Option("--kill-one", help="Kill one validator in the middle of a bundle and start it again.")
    ] = False,
    network: Annotated[
        str,
        typer.Option(
            metavar="auto|real|simulated",
            help="What carries messages: Streamr's own nodes, or a hub; auto: the nodes where Node.js is there.",
        ),
    ] = _DEFAULTS.network,
    lying_broker: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(LyingKind),
            help="The last broker lies in this way, to consumers and other brokers: the summary says who caught it.",
        ),
    ] = None,
    chaos: Annotated[
        str | None,
        typer.Option(
            metavar="KIND,…",
            help="What is to go wrong while windows flow, one after the other: "
            f"{', '.join(ChaosKind)}, or {ALL_CHAOS}. The summary says how long each took to recover from.",
        ),
    ] = None,
) -> int:
    """Run a whole network on this machine, on loopback, and check independently what it did."""
    from validator.devnet.conductor import run_devnet

    options = Options(
        validators=validators,
        brokers=brokers,
        consumers=consumers,
        windows=windows,
        window_seconds=window_seconds,
        rate=rate,
        loss=loss,
        seed=seed,
        json_file=json_file,
        data=data,
        flower=flower,
        keep=keep,
        tour=tour,
        kill_one=kill_one,
        network=network,
        lying_broker=lying_broker,
        chaos=parse_chaos(chaos),
    )
    return run_devnet(options, _started_ms())


@app.command()
def broker(
    role: Annotated[
        str | None,
        typer.Option(metavar="all|ingest|serve", help="Part of the work, where processes share folder or database."),
    ] = None,
) -> None:
    """Run a broker: cache the network's streams and answer queries. Settings begin with LOGSTORE_BROKER_."""
    from validator import log as logs
    from validator.broker.config import load_broker_settings
    from validator.broker.run import run_broker

    settings = load_broker_settings(**({} if role is None else {"role": role}))
    logs.configure(settings.log_level, settings.log_format)
    run_broker(settings)


@app.command()
def serve() -> None:
    """Run both listeners and the head watcher; tasks are left to the workers."""
    from validator import log as logs
    from validator.settings import load_settings

    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    from validator.wiring import share_metrics

    share_metrics(settings)  # before anything that counts is imported
    from tasks.celery import CeleryTasks
    from validator.server.run import serve as run_server

    run_server(settings, CeleryTasks())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; exit status. Every expected failure is one line on standard error."""
    try:
        status = app(list(arguments) if arguments is not None else None, prog_name=PROGRAM, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return 2
    except ClickException as error:
        return _refuse(f"{' '.join(error.format_message().split())} See {_command_of(error)} --help.")
    except ConfigError as error:
        return _refuse(str(error))
    except ValidatorError as error:
        _say(f"{type(error).__name__}: {error}")
        return 1
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _refuse(text: str) -> int:
    _say(text)
    return 2


def _command_of(error: ClickException) -> str:
    """The command whose help says what is right: the subcommand that was called, where it came so far."""
    context = error.ctx if isinstance(error, UsageError) else None
    return PROGRAM if context is None else context.command_path


def _say(text: str) -> None:
    sys.stderr.write(f"{PROGRAM}: {' '.join(text.split())}\n")
    sys.stderr.flush()


def _started_ms() -> int:
    """When the command line began: set-up says so, otherwise our own start."""
    text = os.environ.get("LOGSTORE_STARTED_MS", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else STARTED_MS


if __name__ == "__main__":
    sys.exit(main())
