"""``logstore-validator join|leave|stake|…``, a shell over ``operations.staking`` and ``net.chain.account``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from validator.net.chain.account import Account, Call
    from validator.protocol.model import Address

NetworkFile = Annotated[
    Path | None, typer.Option("--network", metavar="FILE", help="network.toml; default: LOGSTORE_NETWORK_FILE.")
]
RpcUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--rpc", metavar="URL", help="A chain node, several times; default: LOGSTORE_RPC_URLS, else the network file's."
    ),
]
NodeKey = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="The node's voting key; default: LOGSTORE_VOTING_KEY_FILE.")
]
StakeKey = Annotated[
    Path,
    typer.Option("--key", metavar="FILE", help="Key of the account with the stake: a keystore, hex, a remote signer."),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="The keystore's password; default: LOGSTORE_KEY_PASSWORD_FILE, else you are asked.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it costs; send nothing.")]
Amount = Annotated[
    str, typer.Argument(metavar="AMOUNT", help="With its unit: 100LSAN, 0.5LSAN, or base units as 5base.")
]
AmountOrAll = Annotated[str, typer.Argument(metavar="AMOUNT", help="With its unit: 100LSAN, 5base; or all.")]
Node = Annotated[
    str | None, typer.Option("--node", metavar="ADDRESS", help="The node; default: that of LOGSTORE_VOTING_KEY_FILE.")
]


@dataclass(frozen=True, slots=True)
class _Words:
    """What every one of these commands may be told."""

    network: Path | None
    rpc: list[str] | None
    key: Path | None
    password_file: Path | None
    yes: bool
    dry_run: bool


def register(app: typer.Typer) -> None:
    """Add the commands to the program's."""
    example = "Example: logstore-validator {}"
    for command, words in (
        (join, "join --url https://validator.example --arweave <address of the wallet> --dry-run"),
        (leave, "leave"),
        (stake, "stake 1000LSAN --key stake.json"),
        (delegate, "delegate all --node 0x… --key stake.json"),
        (undelegate, "undelegate 10LSAN --node 0x… --key stake.json"),
        (withdraw, "withdraw all --key stake.json"),
        (deposit, "deposit 10LSAN --for 0x… --key stake.json"),
    ):
        app.command(epilog=example.format(words))(command)


def join(
    url: Annotated[
        str | None, typer.Option("--url", help="Where peers reach this validator: its seat depends on it.")
    ] = None,
    broker_url: Annotated[
        str | None, typer.Option("--broker-url", help="Where this node's broker answers, if it has one.")
    ] = None,
    arweave: Annotated[
        str | None, typer.Option("--arweave", help="Address of the wallet that pays for uploads.")
    ] = None,
    network: NetworkFile = None,
    rpc: RpcUrls = None,
    key: NodeKey = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Register this node, or change what its metadata says. Its voting key signs, and pays in POL."""
    from validator.operations import staking

    words = _Words(network, rpc, key, password_file, yes, dry_run)
    _perform(words, lambda account: staking.join(account, validator=url, http=broker_url, arweave=arweave))


def leave(
    network: NetworkFile = None,
    rpc: RpcUrls = None,
    key: NodeKey = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Take this node off the list. Every stake of others must have left before."""
    from validator.operations import staking

    _perform(_Words(network, rpc, key, password_file, yes, dry_run), staking.leave)


def stake(
    amount: Amount,
    key: StakeKey = Path("secrets/stake.json"),
    network: NetworkFile = None,
    rpc: RpcUrls = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Bring tokens of an account into NodeManager; delegate them afterwards. Two transactions: allow, and bring."""
    from validator.net.chain.account import parse_amount
    from validator.operations import staking

    units = parse_amount(amount)
    _perform(_Words(network, rpc, key, password_file, yes, dry_run), lambda account: staking.stake(account, units))


def delegate(
    amount: AmountOrAll,
    node: Node = None,
    key: StakeKey = Path("secrets/stake.json"),
    network: NetworkFile = None,
    rpc: RpcUrls = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Make what an account has in NodeManager the stake of a node."""
    from validator.operations import staking

    units, words = _units(amount), _Words(network, rpc, key, password_file, yes, dry_run)
    _perform(words, lambda account: staking.delegate(account, units, _node(node, words)))


def undelegate(
    amount: AmountOrAll,
    node: Node = None,
    key: StakeKey = Path("secrets/stake.json"),
    network: NetworkFile = None,
    rpc: RpcUrls = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Take a delegation back from a node. It is free after the contract's wait, and then withdrawn."""
    from validator.operations import staking

    units, words = _units(amount), _Words(network, rpc, key, password_file, yes, dry_run)
    _perform(words, lambda account: staking.undelegate(account, units, _node(node, words)))


def withdraw(
    amount: AmountOrAll,
    key: StakeKey = Path("secrets/stake.json"),
    network: NetworkFile = None,
    rpc: RpcUrls = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Pay out what is free of an account."""
    from validator.operations import staking

    units, words = _units(amount), _Words(network, rpc, key, password_file, yes, dry_run)
    _perform(words, lambda account: staking.withdraw(account, units))


def deposit(
    amount: Amount,
    consumer: Annotated[
        str | None,
        typer.Option("--for", metavar="ADDRESS", help="The query key's address; default: of LOGSTORE_QUERY_KEY_FILE."),
    ] = None,
    key: StakeKey = Path("secrets/stake.json"),
    network: NetworkFile = None,
    rpc: RpcUrls = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Give a query key a balance in QueryManager: brokers answer who can pay. Two transactions: allow, and bring."""
    from validator.net.chain.account import parse_address, parse_amount
    from validator.operations import staking
    from validator.operations.account import own_address

    units, words = parse_amount(amount), _Words(network, rpc, key, password_file, yes, dry_run)

    def plan(account: Account) -> list[Call]:
        if consumer is None:
            return staking.deposit(account, units, own_address("query", "--for", words.network, words.rpc or []))
        return staking.deposit(account, units, parse_address(consumer, "--for"))

    _perform(words, plan)


def _perform(words: _Words, plan: Callable[[Account], list[Call]]) -> None:
    from validator.net.chain.account import explain, run
    from validator.protocol.errors import ConfigError, RemoteFault

    def confirm() -> bool:
        if words.yes:
            return True
        if not sys.stdin.isatty():
            raise ConfigError("there is no terminal to ask at; say --yes, or --dry-run", field="--yes")
        return typer.confirm("Do it?")

    with _opened_account(words) as account:
        try:
            run(account, plan(account), _tell, confirm, dry_run=words.dry_run)
        except RemoteFault as fault:
            raise RemoteFault(explain(fault)) from fault


def _tell(word: str, text: str) -> None:
    for line in text.splitlines():
        typer.echo(f"{word:<9} {line}")
        word = ""


@contextmanager
def _opened_account(words: _Words) -> Iterator[Account]:
    """The account at the contracts that the network file names. Raises ConfigError."""
    from validator import log as logs
    from validator.operations.account import open_account

    logs.configure("ERROR", "console")
    account = open_account(words.network, words.rpc or [], words.key, words.password_file)
    try:
        yield account
    finally:
        account.close()


def _units(amount: str) -> int | None:
    from validator.net.chain.account import parse_amount
    from validator.operations import staking

    return None if amount.strip().lower() == staking.ALL else parse_amount(amount)


def _node(text: str | None, words: _Words) -> Address:
    from validator.net.chain.account import parse_address
    from validator.operations.account import own_address

    if text is None:
        return own_address("voting", "--node", words.network, words.rpc or [])
    return parse_address(text, "--node")
