"""What JSON-RPC answers are made of: quantities and bytes, read strictly."""

from __future__ import annotations

import re
from typing import Any

from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address

MAX_NUMBER = 2**63 - 1
"""What a signed column of 64 bits holds."""
_QUANTITY = re.compile("0x[0-9a-fA-F]{1,64}")


def parse_quantity(value: Any, what: str = "quantity") -> int:
    """ "0x1f" → 31, up to 256 bits. Raises MalformedInput."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise MalformedInput(what, "not a hex quantity")


def parse_number(value: Any, what: str = "number", most: int = MAX_NUMBER) -> int:
    """A quantity that counts something (blocks, gas, nonces, seconds) and so fits wherever such are kept.

    A source may say any 256 bits; what is beyond ``most`` is refused here, before it meets a column or an object.

    Raises:
        MalformedInput: no quantity, or more than ``most``.
    """
    number = parse_quantity(value, what)
    if number > most:
        raise MalformedInput(what, f"{number:#x} is more than {most:#x}")
    return number


def parse_bytes(value: Any, what: str = "data", size: int | None = None) -> bytes:
    """ "0x…" → bytes, of exactly ``size`` if given. Raises MalformedInput."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            raise MalformedInput(what, "not hex data") from None
        if 2 * len(data) != len(value) - 2:
            raise MalformedInput(what, "space between hex digits")
        if size is None or len(data) == size:
            return data
    raise MalformedInput(what, f"not hex data of {size} bytes" if size is not None else "not hex data")


def parse_first_word(value: Any) -> bytes:
    """The first 32 bytes that a call returned. Raises MalformedInput."""
    return parse_bytes(value, "eth_call")[:32]


def parse_has_code(value: Any) -> bool:
    """Whether ``eth_getCode`` found some. Raises MalformedInput."""
    return bool(parse_bytes(value, "code"))


def parse_logs(value: Any, contract: Address, at_most: int) -> list[dict[str, Any]]:
    """The logs of one contract that an ``eth_getLogs`` answered, as they are on the chain. Raises MalformedInput."""
    if not isinstance(value, list) or len(value) > at_most:
        raise MalformedInput("logs", f"not a list of at most {at_most}")
    for log in value:
        if not isinstance(log, dict) or log.get("removed") is True:
            raise MalformedInput("logs", "not a log of the chain as it is")
        if parse_bytes(log.get("address"), "log.address", 20) != contract:
            raise MalformedInput("logs", "a log of another contract")
    return value
