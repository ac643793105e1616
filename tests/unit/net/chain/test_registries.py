"""Events of Streamr's registries as nodes give them, and logs that are none."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode

from validator.net.chain.abi import interface
from validator.net.chain.registries import Change, Registry, RegistryEvent, parse_events, read_partitions
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address

CONTRACT, NODE = Address(b"\xaa" * 20), Address(b"\x01" * 20)
STREAM = "0x" + "cc" * 20 + "/größe"


def a_log(registry: Registry, change: str, types: list[str], values: list[Any], *topics: bytes) -> dict[str, Any]:
    first = interface(registry).events[change]
    return {
        "address": "0x" + CONTRACT.hex(),
        "topics": ["0x" + topic.hex() for topic in (first, *topics)],
        "data": "0x" + encode(types, values).hex(),
    }


NODE_TOPIC = NODE.rjust(32, b"\0")


@pytest.mark.parametrize(
    ("registry", "log", "event"),
    [
        (
            Registry.STREAMS,
            a_log(Registry.STREAMS, "StreamCreated", ["string", "string"], [STREAM, "{}"]),
            RegistryEvent(Change.STREAM_CREATED, STREAM, metadata="{}"),
        ),
        (
            Registry.STREAMS,
            a_log(Registry.STREAMS, "StreamDeleted", ["string"], [STREAM]),
            RegistryEvent(Change.STREAM_DELETED, STREAM),
        ),
        (
            Registry.STORAGE,
            a_log(Registry.STORAGE, "Added", ["string"], [STREAM], NODE_TOPIC),
            RegistryEvent(Change.ADDED, STREAM, NODE),
        ),
        (
            Registry.NODES,
            a_log(Registry.NODES, "NodeUpdated", ["string", "uint256"], ["{}", 77], NODE_TOPIC, bytes(32)),
            RegistryEvent(Change.NODE_UPDATED, node=NODE, metadata="{}", seen_s=77),
        ),
        (
            Registry.NODES,
            a_log(Registry.NODES, "NodeRemoved", [], [], NODE_TOPIC),
            RegistryEvent(Change.NODE_REMOVED, node=NODE),
        ),
    ],
)
def test_events_say_what_the_contracts_said(registry: Registry, log: dict[str, Any], event: RegistryEvent) -> None:
    assert parse_events([log], registry, CONTRACT) == [event]


@pytest.mark.parametrize(
    "changes",
    [{"topics": []}, {"topics": ["0x" + "00" * 32]}, {"data": "0x00"}, {"topics": None}, {"address": "0x" + "bb" * 20}],
)
def test_logs_that_are_none_are_refused(changes: dict[str, Any]) -> None:
    log = a_log(Registry.STORAGE, "Added", ["string"], [STREAM], NODE_TOPIC)
    with pytest.raises(MalformedInput):
        parse_events([{**log, **changes}], Registry.STORAGE, CONTRACT)
    with pytest.raises(MalformedInput, match="no node"):
        parse_events([{**log, "topics": log["topics"][:1]}], Registry.STORAGE, CONTRACT)


@pytest.mark.parametrize(("metadata", "partitions"), [("", 1), ("{}", 1), ('{"partitions":7,"x":[1]}', 7)])
def test_partitions_are_one_unless_the_metadata_says(metadata: str, partitions: int) -> None:
    assert read_partitions(metadata) == partitions


@pytest.mark.parametrize("metadata", ["no", "[]", '{"partitions":0}', '{"partitions":101}', '{"partitions":"3"}'])
def test_metadata_that_says_nonsense_is_refused(metadata: str) -> None:
    with pytest.raises(MalformedInput):
        read_partitions(metadata)
