"""A node's place in the network, from the command line: register, stake, delegate, and back.

Each command is a short list of ``Call``s (``net.chain.account``), which are told with their cost before they are sent.
"""

from __future__ import annotations

import json
import re

from validator.net.chain.account import MAX_TOKENS, Account, Call, bring, hex_of, show_tokens
from validator.net.chain.metadata import MAX_NODE_METADATA, parse_node_metadata, parse_node_wallet
from validator.protocol.errors import ConfigError, RemoteFault
from validator.protocol.model import Address

ALL = "all"
_AVAILABLE = re.compile(r"InsufficientBalance\((\d+), \d+\)")


def join(account: Account, *, validator: str | None, http: str | None, arweave: str | None) -> list[Call]:
    """Register the account as a node, or change what its metadata says; what is not named stays."""
    text = account.read("NodeManager", "nodes", hex_of(account.address))[1]
    metadata = merge_metadata(text, {"validator": validator, "http": http, "arweave": arweave})
    word = "change the metadata of the node" if text else "register the node"
    return [Call(f"{word} 0x{account.address.hex()}: {metadata}", "NodeManager", "upsertNode", (metadata,))]


def leave(account: Account) -> list[Call]:
    text = f"take the node 0x{account.address.hex()} off the list, with what it has delegated to itself"
    return [Call(text, "NodeManager", "leave", ())]


def stake(account: Account, amount: int) -> list[Call]:
    """Bring tokens into NodeManager; it must be allowed to draw them."""
    text = f"bring {show_tokens(amount)} into NodeManager, delegated to nobody yet"
    return bring(account, Call(text, "NodeManager", "stake", (amount,)), amount)


def deposit(account: Account, amount: int, consumer: Address) -> list[Call]:
    """Bring tokens into QueryManager for a query key, which needs neither tokens nor gas; it must be allowed too."""
    text = f"bring {show_tokens(amount)} into QueryManager for 0x{consumer.hex()}"
    return bring(account, Call(text, "QueryManager", "stakeFor", (hex_of(consumer), amount)), amount)


def delegate(account: Account, amount: int | None, node: Address) -> list[Call]:
    """``amount`` None: all that lies in NodeManager undelegated."""
    units = amount if amount is not None else _fetch_free(account, "delegate", hex_of(node))
    return [
        Call(
            f"delegate {show_tokens(units)} to the node 0x{node.hex()}",
            "NodeManager",
            "delegate",
            (units, hex_of(node)),
        )
    ]


def undelegate(account: Account, amount: int | None, node: Address) -> list[Call]:
    """``amount`` None: all that the account has delegated to the node."""
    units = amount
    if units is None:
        units = account.read("NodeManager", "delegatesOf", hex_of(account.address), hex_of(node))[0]
        if not units:
            raise ConfigError(f"this account has delegated nothing to the node 0x{node.hex()}")
    text = f"take {show_tokens(units)} back from the node 0x{node.hex()}; free after the contract's wait"
    return [Call(text, "NodeManager", "undelegate", (units, hex_of(node)))]


def withdraw(account: Account, amount: int | None) -> list[Call]:
    """``amount`` None: all that is free."""
    units = amount if amount is not None else _fetch_free(account, "withdraw")
    return [Call(f"pay {show_tokens(units)} out to 0x{account.address.hex()}", "NodeManager", "withdraw", (units,))]


def _fetch_free(account: Account, function: str, *more: str) -> int:
    """What the contract would let the account use now: it names the amount when it refuses a larger one."""
    try:
        account.prepare(Call("", "NodeManager", function, (MAX_TOKENS, *more)))
    except RemoteFault as fault:
        found = _AVAILABLE.fullmatch(str(fault.fields.get("revert", "")))
        if found is None:
            raise
        free = int(found[1])
        if free == 0:
            raise ConfigError("nothing of this account is free in NodeManager") from None
        return free
    return MAX_TOKENS


def merge_metadata(held: bytes, changes: dict[str, str | None]) -> str:
    """What stands on chain with these members set. Raises ConfigError: no network could read it."""
    try:
        known = json.loads(held) if held else {}
    except ValueError:
        known = {}
    members = known if isinstance(known, dict) else {}
    members |= {name: value for name, value in changes.items() if value is not None}
    text = json.dumps(members, separators=(",", ":"))
    raw = text.encode()
    if len(raw) > MAX_NODE_METADATA:
        raise ConfigError(f"metadata of {len(raw)} bytes; at most {MAX_NODE_METADATA} are read")
    read = dict(zip(("http", "validator"), parse_node_metadata(raw), strict=True))
    wallet = parse_node_wallet(raw)
    for name, option in (("validator", "--url"), ("http", "--broker-url")):
        if changes.get(name) is not None and read[name] is None:
            raise ConfigError(f"{option}: no URL of a node: http or https, at most 256 characters", field=option)
    if changes.get("arweave") is not None and wallet is None:
        raise ConfigError("--arweave: no address of a wallet: 43 characters of base64url", field="--arweave")
    if not members:
        raise ConfigError("name at least one of --url, --broker-url and --arweave")
    return text
