"""What the independent check reads of the chain may have been written by anybody."""

from __future__ import annotations

from typing import Any

from eth_abi.abi import encode

from tests.verifier.chain import Chain
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address

REGISTRY, STORES = Address(b"\x01" * 20), Address(b"\x02" * 20)


class Logs:
    """A node that has these logs."""

    def __init__(self, logs: list[dict[str, Any]]) -> None:
        self.logs = logs

    def ask(self, method: str, *_params: Any) -> Any:
        assert method == "eth_getLogs"
        return self.logs


def a_log(address: Address, signature: str, kinds: list[str], values: list[Any], index: int) -> dict[str, Any]:
    return {
        "address": "0x" + address.hex(),
        "topics": ["0x" + keccak256(signature.encode()).hex()],
        "data": "0x" + encode(kinds, values).hex(),
        "blockNumber": "0x1",
        "logIndex": hex(index),
        "transactionHash": "0x" + "11" * 32,
    }


def test_texts_of_strangers_that_are_no_utf8_hide_no_event() -> None:
    logs = [
        a_log(REGISTRY, "StreamUpdated(string,string)", ["bytes", "bytes"], [b"\xff/x", b"\x00\xfe"], 0),
        a_log(STORES, "StoreUpdated(string,bool,uint256)", ["bytes", "bool", "uint256"], [b"\xff/x", True, 5], 1),
        a_log(STORES, "StoreUpdated(string,bool,uint256)", ["bytes", "bool", "uint256"], [b"a\x00/x", True, 6], 2),
    ]
    chain = Chain(Logs(logs), {"stream_registry": REGISTRY, "store_manager": STORES}, 0)
    found = [(e.values["store"], e.values["amount"]) for e in chain.events_of("store_manager", "StoreUpdated")]
    assert found == [("\udcff/x", 5), ("a\x00/x", 6)]
    assert len(chain.events_of("stream_registry", "StreamUpdated")) == 1
