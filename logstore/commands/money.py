"""logstore mint, stake, withdraw, balance: tokens, and what reading and storing are paid from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logstore.commands.options import (
    JsonOption,
    KeyOption,
    NetworkOption,
    RpcOption,
    StreamArgument,
    connected,
    make_output,
)

if TYPE_CHECKING:
    from logstore.output import Output
    from validator.net.chain.account import Account, Call

AmountArgument = Annotated[str, typer.Argument(metavar="AMOUNT", help="With its unit: 100LSAN, 0.5LSAN, 5base.")]
StreamOption = Annotated[
    str | None, typer.Option("--stream", metavar="STREAM", help="Of a stream's storing; default: of reading.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before anything is sent.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what it would do and cost, and end there.")]


@dataclass(frozen=True, slots=True)
class Acting:
    """Options of a command that sends transactions."""

    network: str | None
    rpc: list[str] | None
    key: Path | None
    yes: bool
    dry_run: bool
    output: Output

    def perform(self, plan: Callable[[Account], list[Call]], **told: Any) -> None:
        """Tell, ask, send; a document or a line at the end. Raises as ``money.perform``."""
        from logstore.money import explained
        from validator.net.chain.account import run
        from validator.protocol.errors import RemoteFault

        lines: list[tuple[str, str]] = []

        def tell(word: str, text: str) -> None:
            lines.append((word, text))
            for number, line in enumerate(text.split("\n")):
                self.output.note(f"{word if not number else '':<10}{line}")

        def confirm() -> bool:
            return self.yes or typer.confirm("go on?", err=True)

        with connected(self.network, self.rpc, None, None, self.output, self.key) as store:
            try:
                done = run(store.account, plan(store.account), tell, confirm, dry_run=self.dry_run)
            except RemoteFault as fault:
                raise explained(fault) from fault
        sent = [text for word, text in lines if word == "sent"]
        values = {"done": done, "transactions": sent, "will": [text for word, text in lines if word == "will"], **told}
        self.output.document(values, lambda out: out.line("done" if done else "nothing was sent"))


def mint(
    amount: AmountArgument,
    key: KeyOption = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Buy tokens for the chain's own coin, where they are sold.

    Example: logstore mint 10LSAN
    """
    from logstore import money

    acting = Acting(network, rpc, key, yes, dry_run, make_output(as_json))
    units = money.units_of(amount)
    acting.perform(lambda account: money.mint(account, units))


def stake(
    amount: AmountArgument,
    stream: StreamOption = None,
    consumer: Annotated[
        str | None, typer.Option("--for", metavar="ADDRESS", help="Whose reading; default: the key's own.")
    ] = None,
    key: KeyOption = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Pay for reading, or with --stream for the storing of a stream.

    Example: logstore stake 5LSAN --stream 0x…/sensors
    """
    from logstore import money

    acting = Acting(network, rpc, key, yes, dry_run, make_output(as_json))
    units = money.units_of(amount)
    acting.perform(lambda account: money.stake(account, units, stream, consumer))


def withdraw(
    amount: Annotated[
        str | None, typer.Argument(metavar="[AMOUNT]", help="Begin to take it out; without: pay out what has waited.")
    ] = None,
    stream: StreamOption = None,
    key: KeyOption = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take tokens back out of a balance: first an amount, later, once its wait is over, the command without one.

    Example: logstore withdraw 2LSAN
    """
    from logstore import money

    acting = Acting(network, rpc, key, yes, dry_run, make_output(as_json))
    units = None if amount is None else money.units_of(amount)
    acting.perform(lambda account: money.withdraw(account, units, stream))


def balance(
    key: KeyOption = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the key's account has: coins, tokens, and what its reading is paid from.

    Example: logstore balance --key my.key
    """
    from logstore.money import describe_balance
    from validator.net.chain.account import show_pol, show_tokens

    output = make_output(as_json)
    with connected(network, rpc, None, None, output, key) as store:
        held = store.balance()
    pairs = [
        ("account", held.address),
        ("coins", show_pol(held.coins)),
        ("tokens", show_tokens(held.tokens)),
        ("reading", show_tokens(held.reading)),
        *([("leaving", str(held.leaving))] if held.leaving else []),
    ]
    output.document(describe_balance(held), lambda out: out.pairs(pairs))


app = typer.Typer(help="Streams: register, permit, show.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Streams: register, permit, show."""


@app.command("create", short_help="Register a stream at Streamr's registry.")
def create(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Below the key's address, such as /sensors.")],
    partitions: Annotated[int, typer.Option("--partitions", metavar="N", min=1, max=100, help="1 to 100.")] = 1,
    key: KeyOption = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Register a stream at Streamr's registry; whoever creates it may publish on it.

    It is stored once it has a balance: logstore stake 5LSAN --stream STREAM

    Example: logstore stream create /sensors
    """
    from logstore import money

    acting = Acting(network, rpc, key, yes, dry_run, make_output(as_json))
    acting.perform(lambda account: money.create_stream(account, path, partitions)[1])


@app.command("permit", short_help="Say who may publish and subscribe.")
def permit(
    stream: StreamArgument,
    user: Annotated[str, typer.Argument(metavar="ADDRESS|public", help="Who; public: everybody.")],
    publish: Annotated[bool | None, typer.Option("--publish/--no-publish", help="May publish, or no longer.")] = None,
    subscribe: Annotated[
        bool | None, typer.Option("--subscribe/--no-subscribe", help="May subscribe, or no longer.")
    ] = None,
    key: KeyOption = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say who may publish and subscribe; what is not said stays as it is.

    Example: logstore stream permit 0x…/sensors public --subscribe
    """
    from logstore import money

    acting = Acting(network, rpc, key, yes, dry_run, make_output(as_json))
    acting.perform(lambda account: money.permit(account, stream, user, publish=publish, subscribe=subscribe))


@app.command("show", short_help="Show a stream: partitions, balance, permissions.")
def show(
    stream: StreamArgument,
    key: KeyOption = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a stream: partitions, what pays for its storing, and what the key's account may do.

    Example: logstore stream show 0x…/sensors
    """
    from validator.net.chain.account import show_tokens

    output = make_output(as_json)
    with connected(network, rpc, None, None, output, key) as store:
        info = store.stream(stream)
    may = " and ".join(w for w, can in (("publish", info.may_publish), ("subscribe", info.may_subscribe)) if can)
    pairs = [
        ("stream", info.stream),
        ("partitions", str(info.partitions)),
        ("balance", f"{show_tokens(info.balance)}{'' if info.balance else ': it is not stored'}"),
        ("everybody", "may subscribe" if info.is_public else "may not subscribe"),
        ("this account", f"may {may or 'do neither'}"),
    ]
    values = {**asdict(info), "balance": str(info.balance)}
    output.document(values, lambda out: out.pairs(pairs))
