"""One account at the network's contracts, for who acts from a command line: calls told with their cost, then sent.

Each command is a short list of ``Call``s, one transaction each. They are told, with what they cost, before anything is
sent; then sent one after the other, the next when the one before is mined. What is asked of the contracts is their
ABI and no more: rules and waits are theirs, and so are the names of their refusals.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from validator.net.chain.abi import interface
from validator.net.chain.reader import ChainReader
from validator.net.chain.sender import ChainSender
from validator.net.chain.transaction import parse_raw
from validator.ports.chain import PreparedTransaction, SendRefusal, TransactionState
from validator.protocol.errors import ConfigError, RemoteFault, TransientError
from validator.protocol.model import Address
from validator.protocol.parameters import Network

ETHER = 10**18
MINED_S = 180.0
LOOK_S = 0.2
MAX_TOKENS = (1 << 96) - 1
"""More than a balance of the contracts can be."""
UNITS = {"lsan": ETHER, "base": 1}
_AMOUNT = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,18}))?\s*([a-z]+)", re.IGNORECASE | re.ASCII)
HINTS = {
    "InsufficientBalance": "in base units: what there is, and what was asked for",
    "IsMember": "the node sits in the committee; it can leave once an epoch's last report without it is accepted",
    "NotRegistered": "no such node; a node registers itself by join",
    "AmountTooSmall": "the stake's shares are worth more than this amount; delegate more",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One transaction: what it does, for people, and the contract's function. ``follows``: it can only be simulated
    once the call before it is mined."""

    text: str
    contract: str
    function: str
    arguments: tuple[Any, ...]
    follows: bool = False
    wei: int = 0
    """Coins that go with it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call may cost at most."""

    gas: int
    wei: int


class Account:
    """One account at the network's contracts."""

    def __init__(self, network: Network, reader: ChainReader, sender: ChainSender) -> None:
        self.network = network
        self.address = sender.address
        self._reader = reader
        self._sender = sender

    def close(self) -> None:
        self._reader.close()
        self._sender.close()

    def address_of(self, contract: str) -> Address:
        return self._reader.address_of(contract)

    def read(self, contract: str, function: str, *arguments: Any) -> tuple[Any, ...]:
        """The values of a view at the newest block."""
        return self._reader.fetch_view(contract, function, arguments)

    def fetch_pol(self) -> int:
        return self._sender.fetch_balance()

    def fetch_tokens(self) -> int:
        tokens: int = self.read("Token", "balanceOf", hex_of(self.address))[0]
        return tokens

    def prepare(self, call: Call) -> tuple[PreparedTransaction, Cost]:
        """Simulated, priced and signed. Raises RemoteFault: the contract's refusal, or more coins than there are."""
        if call.wei and (pol := self.fetch_pol()) < call.wei:  # no node would even estimate its gas
            raise RemoteFault(
                f"0x{self.address.hex()} holds {show_pol(pol)}, {show_pol(call.wei)} and gas are needed",
                reason=SendRefusal.FUNDS,
            )
        data = interface(call.contract).function(call.function).encode(call.arguments)
        prepared = self._sender.prepare_call(self.address_of(call.contract), data, value=call.wei)
        transaction = parse_raw(prepared.raw)
        return prepared, Cost(transaction.gas, transaction.gas * transaction.max_fee + call.wei)

    def carry_out(self, prepared: PreparedTransaction) -> tuple[int, int]:
        """Send, and wait until it is mined: block and gas.

        Raises:
            RemoteFault: refused, or mined and reverted.
            TransientError: not mined in time; it may be yet.
        """
        self._sender.send(prepared)
        until = time.monotonic() + MINED_S
        while time.monotonic() < until:
            fate = self._sender.fetch_fate([prepared])
            if fate.state == TransactionState.MINED:
                if not fate.success:
                    raise RemoteFault(f"the transaction 0x{prepared.hash.hex()} was mined and reverted", revert="mined")
                return fate.block_number, fate.gas_used
            time.sleep(LOOK_S)
        raise TransientError(f"0x{prepared.hash.hex()} is not mined after {MINED_S:.0f} s; it may be yet: look it up")


def bring(account: Account, call: Call, amount: int) -> list[Call]:
    """One call where the contract may draw so much already, else the allowance before it."""
    manager = account.address_of(call.contract)
    allowed: int = account.read("Token", "allowance", hex_of(account.address), hex_of(manager))[0]
    if allowed >= amount:
        return [call]
    text = f"allow {call.contract} 0x{manager.hex()} to draw {show_tokens(amount)}"
    return [
        Call(text, "Token", "approve", (hex_of(manager), amount)),
        replace(call, follows=True),
    ]


def parse_amount(text: str, option: str = "AMOUNT") -> int:
    """Base units of "100LSAN", "0.5 LSAN" or "5base": the unit is always said. Raises ConfigError."""
    found = _AMOUNT.fullmatch(text.strip())
    unit = UNITS.get(found[3].lower()) if found is not None else None
    if found is None or unit is None or (found[2] and unit == 1):
        raise ConfigError(f"{option}: {text!r} is no amount; write 100LSAN, 0.5LSAN, or base units such as 5base")
    amount = int(found[1]) * unit + int((found[2] or "").ljust(18, "0") or 0) * (unit > 1)
    if not 0 < amount <= MAX_TOKENS:
        raise ConfigError(f"{option}: {text!r} is nothing, or more than there can be")
    return amount


def parse_address(text: str, option: str) -> Address:
    """Raises ConfigError."""
    if not re.fullmatch("0x[0-9a-fA-F]{40}", text, re.ASCII):
        raise ConfigError(f"{option}: {text!r} is no address: 0x and 40 hex digits", field=option)
    return Address(bytes.fromhex(text[2:]))


def show_tokens(amount: int) -> str:
    return f"{_decimal(amount)} LSAN"


def show_pol(wei: int) -> str:
    return f"{_decimal(wei, 6)} POL"


def explain(fault: RemoteFault) -> str:
    """A refusal by its name, and what it means where that helps."""
    name = str(fault.fields.get("revert", "")).partition("(")[0]
    return f"{fault}; {HINTS[name]}" if name in HINTS else str(fault)


def is_refusal(fault: RemoteFault) -> bool:
    """Whether the contract said no, or the account cannot pay, and no node is at fault."""
    return "revert" in fault.fields or fault.fields.get("reason") in (SendRefusal.FUNDS, "gas")


def _decimal(amount: int, digits: int = 18) -> str:
    """Rounded up, so that a cost is never shown as less."""
    scale = 10 ** (18 - digits)
    rounded = -(-amount // scale) * scale
    text = f"{Decimal(rounded).scaleb(-18):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def hex_of(address: bytes) -> str:
    return "0x" + address.hex()


Tell = Callable[[str, str], None]
"""Hears a word and a line."""


def run(account: Account, calls: Sequence[Call], tell: Tell, confirm: Callable[[], bool], *, dry_run: bool) -> bool:
    """Tell what will be done and what it costs, ask, and do it; whether it was done.

    Raises:
        RemoteFault: the contract's refusal; nothing of that call was sent, or it reverted.
        TransientError, UnknownOutcome: sources do not answer, or it is not mined in time.
    """
    pol = account.fetch_pol()
    tell("network", f"{account.network.name}, chain {account.network.chain_id}")
    tell("account", f"0x{account.address.hex()}, {show_pol(pol)}, {show_tokens(account.fetch_tokens())}")
    most = 0
    for call in calls:
        tell("will", f"{call.text}\n{call.contract}.{call.function} at 0x{account.address_of(call.contract).hex()}")
        if call.follows:
            tell("", "its cost is known once the call before it is mined")
            continue
        _, cost = account.prepare(call)
        most += cost.wei
        tell("", f"{cost.gas:,} gas, at most {show_pol(cost.wei)}")
    if pol < most:
        raise ConfigError(f"0x{account.address.hex()} holds {show_pol(pol)}, up to {show_pol(most)} are needed")
    if dry_run:
        tell("dry run", "nothing was sent")
        return False
    if not confirm():
        tell("stopped", "nothing was sent")
        return False
    for call in calls:
        prepared, _ = account.prepare(call)
        tell("sent", f"0x{prepared.hash.hex()}")
        block, gas = account.carry_out(prepared)
        tell("mined", f"block {block}, {gas:,} gas")
    return True
