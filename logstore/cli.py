"""The command line, a thin shell: parse, call, translate errors into one line and an exit status.

    logstore quickstart                              a tour through a network that runs here
    logstore mint | stake | withdraw | balance       tokens, and what reading and storing are paid from
    logstore stream create | permit | show           streams at Streamr's registry
    logstore publish STREAM JSON|-          sign messages, and hand them to brokers
    logstore query STREAM --from --to       messages that brokers hold, proven as far as they are certified
    logstore audit STREAM --from --to       whether a broker left out what a second one holds
    logstore bundle list | show | fetch     bundles that the contract accepted, and their files
    logstore bundle sql QUERY               questions to the messages of a span of time; or logstore sql
    logstore bundle export --format ...     the messages themselves: NDJSON, CSV, Arrow, raw; or logstore export
    logstore verify FILE|ID|NUMBER          a verdict on a bundle, or on a message with its proof
    logstore prove STREAM TIMESTAMP...      messages with their proofs, as small files
    logstore prove STREAM --from --to       all messages of a span, also that there is none, as one file
    logstore network show                   contracts, committee, parameters

Status 0: done, and verified where something was to be verified; 1: refused, with what differs, or denied by a broker or
a contract, in its words; 2: a wrong word, option or file; 3: it could not be fetched, or not be read to its end; 130:
Ctrl-C; 141: who reads our output went away. With --json an error is a document too, with what helps as ``remedy``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError, UsageError
from typer.completion import shell_complete

from logstore.commands import bundle, money, network
from logstore.commands.audit import audit
from logstore.commands.export import export
from logstore.commands.prove import prove
from logstore.commands.publish import publish
from logstore.commands.query import query
from logstore.commands.quickstart import quickstart
from logstore.commands.sql import sql
from logstore.commands.verify import verify
from logstore.errors import USAGE, BudgetSpent, Denied, Error, NotStored, Refused, Usage, remedy_of, status_of
from logstore.verdicts import SCHEME, STORAGE_ID
from validator import __version__

PROGRAM = "logstore"
COMPLETION = "_LOGSTORE_COMPLETE"
"""Set by the functions that --show-completion prints."""
INTERRUPTED, PIPE_CLOSED = 130, 141
_VERDICTS: tuple[tuple[type[Error], str], ...] = (
    (Refused, "refused"),
    (Denied, "denied"),
    (BudgetSpent, "budget spent"),
    (Usage, "usage"),
    (NotStored, "not stored"),
)

app = typer.Typer(
    name=PROGRAM,
    help="Store, query, verify and prove streams of the Log Store Network. New here? Begin with: logstore quickstart",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_WITH_DASHES = {"ignore_unknown_options": True, "help_option_names": ["--help"]}
"""-1 is JSON, and -1h is a time, not -1 and -h."""
app.command("quickstart", short_help="Take a tour: pay, publish, read, audit, prove.")(quickstart)
app.command("publish", context_settings=_WITH_DASHES, short_help="Sign contents and hand them to brokers.")(publish)
app.command("query", short_help="Read a stream's messages from brokers, checked.")(query)
app.command("audit", short_help="Ask a second broker what a first one left out.")(audit)
app.command("prove", context_settings=_WITH_DASHES, short_help="Write messages with their proofs, as files.")(prove)
app.command("verify", short_help="Check a proof, or a bundle whole; ask the contract.")(verify)
for group in (app, bundle.app):
    group.command("sql", short_help="Ask verified bundles with SQL.")(sql)
    group.command("export", short_help="Write the messages of verified bundles.")(export)
app.command("mint", short_help="Buy tokens for the chain's own coin.")(money.mint)
app.command("stake", short_help="Pay for reading, or for a stream's storing.")(money.stake)
app.command("balance", short_help="Show coins, tokens, and what is paid from.")(money.balance)
app.command("withdraw", short_help="Take tokens back out of a balance.")(money.withdraw)
app.add_typer(money.app, name="stream")
app.add_typer(bundle.app, name="bundle")
app.add_typer(network.app, name="network")


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of the program itself; each ends it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; exit status. Every expected failure is one line on standard error."""
    words = [_name_id(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    try:
        return _run(words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return PIPE_CLOSED


def _run(words: list[str]) -> int:
    try:
        status = invoke(words)
        sys.stdout.flush()
        return status
    except NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return USAGE
    except ClickException as error:
        wrong = " ".join(error.format_message().split()).rstrip(".")
        ending = "" if wrong.endswith(("?", "!")) else "."
        return _fail(words, USAGE, "usage", f"{wrong}{ending} See {_command_of(error)} --help.")
    except Error as error:
        return _fail_for(words, error)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(words, USAGE, "usage", f"{error.filename or PROGRAM}: {error.strerror or error}")
    except (KeyboardInterrupt, typer.Abort):
        return _fail(words, INTERRUPTED, "interrupted", "interrupted")


def invoke(words: list[str]) -> int:
    """Run a command and raise what it raises: the framework's own ``main`` would end a closed pipe, and Ctrl-C, with
    statuses and silences of its own.
    """
    command = typer.main.get_command(app)
    asked = os.environ.get(COMPLETION)
    if asked:  # by the shell, with what was typed so far in other variables
        return shell_complete(command, {}, PROGRAM, COMPLETION, asked)
    try:
        with command.make_context(PROGRAM, words) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except SystemExit as ended:  # --show-completion, --install-completion
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def _name_id(word: str) -> str:
    """An Arweave id may begin with a dash; no option of ours is as long as an id."""
    return f"{SCHEME}{word}" if word.startswith("-") and STORAGE_ID.fullmatch(word) else word


def _fail_for(words: Sequence[str], error: Error) -> int:
    verdict = next((verdict for kind, verdict in _VERDICTS if isinstance(error, kind)), "not fetched")
    is_said_by_itself = isinstance(error, Usage | NotStored)
    text = str(error) if is_said_by_itself else f"{verdict}: {error}"
    remedy = remedy_of(error)
    fields = error.fields if isinstance(error, Refused) else {}
    more = {"remedy": remedy} if remedy else {}
    if remedy and not isinstance(error, Refused | NotStored):
        text = f"{text}; {remedy}"
    return _fail(words, status_of(error), verdict, text, **fields, **more)


def _fail(words: Sequence[str], status: int, verdict: str, text: str, **fields: Any) -> int:
    text = " ".join(text.split())
    sys.stderr.write(f"{PROGRAM}: {text}\n")
    sys.stderr.flush()
    if "--json" in words:
        sys.stdout.write(json.dumps({"verdict": verdict, "status": status, "error": text, **fields}) + "\n")
        sys.stdout.flush()
    return status


def _command_of(error: ClickException) -> str:
    """The command whose help says what is right: the subcommand that was called, where it came so far."""
    context = error.ctx if isinstance(error, UsageError) else None
    return PROGRAM if context is None else context.command_path


if __name__ == "__main__":
    sys.exit(main())
