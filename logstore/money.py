"""Tokens and streams: what is bought, staked, permitted and taken back at the network's contracts.

    mint        buys tokens for the chain's own coin, where they are sold
    stake       pays into the balance that reading is paid from (QueryManager), or a stream's storing (StoreManager)
    withdraw    begins to take out of it; without an amount, pays out what has waited for long enough
    streams     created and permitted at Streamr's own registry

Each is a short list of calls, told with what they cost before anything is sent (``net.chain.account``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logstore.connection import now_ms
from logstore.errors import Denied
from logstore.times import format_time
from validator.net.chain.account import (
    Account,
    Call,
    bring,
    explain,
    hex_of,
    is_refusal,
    parse_address,
    parse_amount,
    show_pol,
    show_tokens,
)
from validator.net.chain.metadata import parse_partitions
from validator.protocol.errors import ConfigError, RemoteFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logstore.store import LogStore

MAX_PARTITIONS = 100
FOREVER = (1 << 256) - 1
"""When a permission ends that does not."""
PUBLIC = "public"
NOBODY = "0x" + "00" * 20
Read = Callable[..., tuple[Any, ...]]
"""The values of a view: contract, function, arguments."""
_PATH = re.compile(r"/[\x21-\x7e]{0,200}")
_OWN = re.compile(r"(0x[0-9a-fA-F]{40})(/[\x21-\x7e]{0,200})")


def open_account(store: LogStore) -> Account:
    """The signer's, at the network's contracts. Raises ConfigError: no key, no node."""
    from logstore.keys import require_signer
    from validator.net.chain.sender import ChainSender

    signer, network = require_signer(store.signer), store.network
    reader = store.reports.chain
    store.reports.head  # noqa: B018  (refuses a chain that is not the network's)
    sender = ChainSender(store.sources.rpc_urls, network.contracts, signer, chain_id=network.chain_id)
    return Account(network, reader, sender)


def units_of(amount: str | int) -> int:
    """Base units of "10LSAN" or of a number of base units. Raises ConfigError."""
    if isinstance(amount, str):
        return parse_amount(amount)
    if amount <= 0:
        raise ConfigError(f"amount: {amount} is nothing", field="amount")
    return amount


# --- what is done -----------------------------------------------------------------------------------


def mint(account: Account, amount: int) -> list[Call]:
    """Raises ConfigError: nothing, or less than that, is sold."""
    price: int = account.read("Token", "price")[0]
    offered: int = account.read("Token", "offered")[0]
    if not price or offered < amount:
        left = f"{show_tokens(offered)} are" if price and offered else "nothing is"
        raise ConfigError(f"{left} for sale on this chain; tokens come from whoever holds them", field="amount")
    text = f"buy {show_tokens(amount)} for {show_pol(amount * price)}"
    return [Call(text, "Token", "mint", (), wei=amount * price)]


def stake(account: Account, amount: int, stream: str | None = None, consumer: str | None = None) -> list[Call]:
    """For a stream's storing, or for reading by ``consumer`` (default: the account's own)."""
    if stream is not None:
        if not account.read("StreamRegistry", "exists", stream)[0]:
            raise ConfigError(f"{stream}: no such stream; logstore stream create makes it", field="stream")
        text = f"bring {show_tokens(amount)} into StoreManager, which pays for storing {stream}"
        return bring(account, Call(text, "StoreManager", "stake", (stream, amount)), amount)
    reader = account.address if consumer is None else parse_address(consumer, "--for")
    text = f"bring {show_tokens(amount)} into QueryManager, which pays for what 0x{reader.hex()} reads"
    return bring(account, Call(text, "QueryManager", "stakeFor", (hex_of(reader), amount)), amount)


def withdraw(account: Account, amount: int | None, stream: str | None = None) -> list[Call]:
    """``amount`` None: pay out what has waited. Raises ConfigError: nothing is waiting."""
    contract, place = ("QueryManager", ()) if stream is None else ("StoreManager", (stream,))
    whose = "of reading" if stream is None else f"of {stream}"
    if amount is not None:
        text = f"take {show_tokens(amount)} out of the balance {whose}; free after the contract's wait"
        return [Call(text, contract, "unstake", (*place, amount))]
    waiting: int = account.read(contract, "exitOf", hex_of(account.address), *place)[0]
    if not waiting:
        raise ConfigError(f"nothing {whose} waits to be paid out; begin with an amount", field="amount")
    text = f"pay {show_tokens(waiting)} {whose} out to 0x{account.address.hex()}, if the wait is over"
    return [Call(text, contract, "withdraw", place)]


def create_stream(account: Account, name: str, partitions: int = 1) -> tuple[str, list[Call]]:
    """Its id, and what makes it; ``name``: a path such as /sensors, below the account's address.

    Raises:
        ConfigError: no such path, another's address, or the stream is there.
    """
    own = hex_of(account.address)
    found = _OWN.fullmatch(name)
    if found is not None and found[1].lower() != own:
        raise ConfigError(f"{name}: a stream of another account than 0x{account.address.hex()}", field="stream")
    path = found[2] if found is not None else name
    if _PATH.fullmatch(path) is None:
        raise ConfigError(
            f"{name!r}: no path of a stream: a slash and printable ASCII, such as /sensors", field="stream"
        )
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise ConfigError(f"partitions: {partitions} is none of 1 to {MAX_PARTITIONS}", field="partitions")
    stream = own + path
    if account.read("StreamRegistry", "exists", stream)[0]:
        raise ConfigError(f"{stream}: is there already", field="stream")
    metadata = json.dumps({"partitions": partitions}, separators=(",", ":"))
    text = f"create the stream {stream}, {partitions} partition{'s' if partitions > 1 else ''}"
    return stream, [Call(text, "StreamRegistry", "createStream", (path, metadata))]


def permit(account: Account, stream: str, user: str, *, publish: bool | None, subscribe: bool | None) -> list[Call]:
    """Let ``user`` (an address, or "public") publish and subscribe, or no longer; None: as it is.

    Raises:
        ConfigError: no such stream, no address, or nothing to change.
    """
    if publish is None and subscribe is None:
        raise ConfigError("permit: say what: publish, subscribe, or both", field="permit")
    if not account.read("StreamRegistry", "exists", stream)[0]:
        raise ConfigError(f"{stream}: no such stream", field="stream")
    raw = b"" if user == PUBLIC else parse_address(user, "permit")
    held = _fetch_permission(account.read, stream, raw)
    ends = tuple(
        old if said is None else FOREVER if said else 0 for said, old in ((publish, held[2]), (subscribe, held[3]))
    )
    may = " and ".join(word for word, end in zip(("publish", "subscribe"), ends, strict=True) if end) or "do nothing"
    text = f"let {'everybody' if user == PUBLIC else user} {may} on {stream}"
    if user == PUBLIC:
        return [Call(text, "StreamRegistry", "setPublicPermission", (stream, *ends))]
    permission = (held[0], held[1], *ends, held[4])
    return [Call(text, "StreamRegistry", "setPermissionsForUserIds", (stream, [raw], [permission]))]


def _fetch_permission(read: Read, stream: str, user: bytes) -> tuple[bool, bool, int, int, bool]:
    """Edit, delete, end of publish, end of subscribe, grant; of everybody where ``user`` is empty."""
    if user:
        found = read("StreamRegistry", "getDirectPermissionsForUserId", stream, user)[0]
    else:
        key = read("StreamRegistry", "getAddressKey", stream, NOBODY)[0]
        found = read("StreamRegistry", "streamIdToPermissions", stream, key)
    return (bool(found[0]), bool(found[1]), int(found[2]), int(found[3]), bool(found[4]))


# --- what there is ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leaving:
    """What is on its way out: free once ``epoch`` is over, or from ``time_s`` on (Unix seconds)."""

    amount: int
    epoch: int
    time_s: int

    def __str__(self) -> str:
        return f"{show_tokens(self.amount)}, free after epoch {self.epoch} or from {format_time(self.time_s * 1_000)}"


@dataclass(frozen=True, slots=True)
class Balance:
    """Of one account: coins in wei, everything else in base units. ``reading``: QueryManager's."""

    address: str
    coins: int
    tokens: int
    reading: int
    leaving: Leaving | None


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream as registry and StoreManager have it. ``balance``: pays for its storing; ``may_*``: the account's."""

    stream: str
    partitions: int
    balance: int
    is_public: bool
    may_publish: bool
    may_subscribe: bool


def fetch_balance(account: Account) -> Balance:
    own = hex_of(account.address)
    leaving = Leaving(*account.read("QueryManager", "exitOf", own))
    reading: int = account.read("QueryManager", "balanceOf", own)[0]
    return Balance(own, account.fetch_pol(), account.fetch_tokens(), reading, leaving if leaving.amount else None)


def fetch_stream(store: LogStore, stream: str) -> StreamInfo:
    """Raises ConfigError: there is none of this id."""

    def read(contract: str, function: str, *arguments: Any) -> tuple[Any, ...]:
        return store.reports.chain.fetch_view(contract, function, arguments)

    if not read("StreamRegistry", "exists", stream)[0]:
        raise ConfigError(f"{stream}: no such stream", field="stream")
    now_s = now_ms() // 1_000
    everybody = _fetch_permission(read, stream, b"")
    own = everybody if store.signer is None else _fetch_permission(read, stream, store.signer.address)
    return StreamInfo(
        stream,
        parse_partitions(read("StreamRegistry", "getStreamMetadata", stream)[0]),
        read("StoreManager", "stores", stream)[0] if read("StoreManager", "exists", stream)[0] else 0,
        everybody[3] > now_s,
        max(own[2], everybody[2]) > now_s,
        max(own[3], everybody[3]) > now_s,
    )


# --- doing it ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction: what it does, its hash, block and gas; only told, it has no hash, and the most that it may cost
    in wei, or None where that is known only once the one before it is mined."""

    text: str
    hash: str = ""
    block: int | None = None
    gas: int | None = None
    most_wei: int | None = None


def perform(account: Account, calls: Sequence[Call], *, dry_run: bool = False) -> list[Step]:
    """Send the calls one after the other, each once the one before is mined; or only tell what they would cost.

    Raises:
        Denied: the contract's refusal, in its words; of that call nothing was sent, or it reverted.
        TransientError, UnknownOutcome: nodes do not answer, or it is not mined in time.
    """
    steps = []
    for call in calls:
        try:
            if dry_run and call.follows:
                steps.append(Step(call.text))
                continue
            prepared, cost = account.prepare(call)
            if dry_run:
                steps.append(Step(call.text, gas=cost.gas, most_wei=cost.wei))
                continue
            block, gas = account.carry_out(prepared)
        except RemoteFault as fault:
            raise explained(fault, f"{call.text}: ") from fault
        steps.append(Step(call.text, f"0x{prepared.hash.hex()}", block, gas))
    return steps


def explained(fault: RemoteFault, prefix: str = "") -> RemoteFault:
    """The same in words; as Denied where it is the contract's or the account's refusal, and not a node's fault."""
    return (Denied if is_refusal(fault) else RemoteFault)(prefix + explain(fault), **fault.fields)


def describe_balance(balance: Balance) -> dict[str, Any]:
    """As JSON values; amounts as decimal texts of base units."""
    leaving = balance.leaving
    return {
        "address": balance.address,
        "coins_wei": str(balance.coins),
        "tokens": str(balance.tokens),
        "reading": str(balance.reading),
        "leaving": None
        if leaving is None
        else {"amount": str(leaving.amount), "epoch": leaving.epoch, "time_s": leaving.time_s},
    }
