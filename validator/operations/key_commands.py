"""``logstore-validator keys new|show|import``, a thin shell over ``operations.keys``."""

from __future__ import annotations

import getpass
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from validator.operations.keys import AskPassword, ShownKey

keys = typer.Typer(help="Make, show and take in the keys of a node.", no_args_is_help=True)


Purpose = StrEnum("Purpose", ["VOTING", "GAS", "QUERY", "STAKE", "WALLET"])
"""The five keys (``keys.PURPOSES``), as words."""


Folder = Annotated[
    Path, typer.Option("--folder", metavar="DIR", help="Where the files are; made where it is not there.")
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="File with the keystores' password; made, with a random one, where there is none. Without: you are asked.",
    ),
]
InTheOpen = Annotated[bool, typer.Option("--in-the-open", help="As hex, without a password: for development networks.")]


@keys.command(epilog="Example: logstore-validator keys new --folder secrets --password-file secrets/password")
def new(
    purposes: Annotated[list[Purpose] | None, typer.Argument(help="Which; without: all five.")] = None,
    folder: Folder = Path("secrets"),
    password_file: PasswordFile = None,
    in_the_open: InTheOpen = False,
) -> None:
    """Make keys: keystores of the four Ethereum keys, and the Arweave wallet. No file is ever replaced."""
    from validator.operations.keys import PURPOSES, make_keys

    password = _new_password(password_file, in_the_open=in_the_open)
    chosen = [purpose.value for purpose in purposes or Purpose]
    for made in make_keys(folder, chosen, password):
        typer.echo(f"{_line(made)}\n    {PURPOSES[made.purpose]}")
    _say_what_is_at_stake(in_the_open=in_the_open)


@keys.command(epilog="Example: logstore-validator keys show secrets/voting.json secrets/wallet.json")
def show(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Key files; without: the keys that the settings name.")
    ] = None,
) -> None:
    """Show addresses, never a key. What a keystore says of its address only its password proves."""
    from validator.operations.keys import show_files, show_settings
    from validator.settings import load_settings

    found: Iterable[ShownKey] = show_files(files) if files else show_settings(load_settings())
    for key in found:
        typer.echo(_line(key))


@keys.command("import", epilog="Example: logstore-validator keys import gas old-gas-key.hex --folder secrets")
def import_(
    purpose: Annotated[Purpose, typer.Argument(help="What the key is to be here.")],
    source: Annotated[Path, typer.Argument(help="File with it: hex, a keystore, or an Arweave JWK.")],
    folder: Folder = Path("secrets"),
    password_file: PasswordFile = None,
    source_password_file: Annotated[
        Path | None,
        typer.Option("--source-password-file", metavar="FILE", help="Password of the file that is taken in."),
    ] = None,
    in_the_open: InTheOpen = False,
) -> None:
    """Take a key that you have into a keystore of this node. The file that it comes from stays: remove it yourself."""
    from validator.operations.keys import import_key

    old = partial(_read_password, source_password_file, f"Password of {source}: ")
    password = _new_password(password_file, in_the_open=in_the_open)
    typer.echo(_line(import_key(folder, purpose.value, source, old, password)))
    _say_what_is_at_stake(in_the_open=in_the_open)


def _line(key: ShownKey) -> str:
    return f"{key.purpose:<8}{key.address:<44}{key.kind:<15}{key.where}"


def _say_what_is_at_stake(*, in_the_open: bool) -> None:
    if in_the_open:
        typer.echo("keys in the open are for development networks: whoever reads the files has the keys", err=True)


def _new_password(file: Path | None, *, in_the_open: bool) -> AskPassword | None:
    """Where the password of new keystores comes from; None: there is to be none."""
    from validator.operations.keys import ensure_password_file
    from validator.protocol.errors import ConfigError

    if in_the_open:
        if file is not None:
            raise ConfigError("--password-file: not with --in-the-open", field="--password-file")
        return None
    if file is None:
        return _ask_twice
    if ensure_password_file(file):
        typer.echo(f"password {file}\n    a random one; keep a copy elsewhere: without it the keys are lost")
    return partial(_read_password, file, "")


def _read_password(file: Path | None, prompt: str) -> str:
    """The first line of the file, else what is typed."""
    from validator.settings import read_password_file

    return _ask(prompt) if file is None else read_password_file(file, str(file))


def _ask_twice() -> str:
    from validator.operations.keys import FEWEST_CHARACTERS
    from validator.protocol.errors import ConfigError

    password = _ask("Password for the new keys: ")
    if len(password) < FEWEST_CHARACTERS:
        raise ConfigError(f"the password has less than {FEWEST_CHARACTERS} characters")
    if _ask("Once more: ") != password:
        raise ConfigError("the two passwords differ")
    return password


def _ask(prompt: str) -> str:
    from validator.protocol.errors import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError("a password is needed and there is no terminal to ask at; use --password-file")
    return getpass.getpass(prompt)
