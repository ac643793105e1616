"""Leaves have the widths that their table says, and every field of every level is in its leaf."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from tests import paths
from tests.rfc9162 import leaf_hash
from validator.protocol.leaves import (
    bundle_leaf,
    entry_leaf,
    hash_message,
    hash_publisher,
    hash_stream_id,
    header_leaf,
    message_leaf,
    window_leaf,
)
from validator.protocol.model import (
    BundleHeader,
    Digest,
    Flag,
    InstanceId,
    InstanceKind,
    PartitionEntry,
    Root,
)

VECTORS = json.loads((paths.VECTORS / "leaves.json").read_text())
LEVELS = {
    "message": ([v["bytes"] for v in VECTORS["messages"]], 160),
    "entry": ([e["bytes"] for w in VECTORS["windows"] for e in w["entries"]], 109),
    "window": ([w["bytes"] for w in VECTORS["windows"]], 97),
    "header": ([b["header_bytes"] for b in VECTORS["bundles"]], 104),
    "bundle": ([b["bytes"] for b in VECTORS["bundles"]], 56),
}


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_has_one_width_and_a_label_of_its_own(level: str) -> None:
    leaves, width = LEVELS[level]
    assert {len(bytes.fromhex(leaf)) for leaf in leaves} == {width}
    label = b"logstore2" + level.encode()
    assert {bytes.fromhex(leaf)[:16] for leaf in leaves} == {label.ljust(16, b"\0")}


def test_a_message_whose_place_alone_is_shown_has_the_same_leaf() -> None:
    for vector in VECTORS["messages"]:
        publisher, content, canonical = (
            bytes.fromhex(vector[name]) for name in ("publisher_id", "content", "canonical")
        )
        place = vector["partition"], vector["timestamp_ms"], vector["sequence_number"]
        leaf = message_leaf(vector["stream_id"], *place, publisher, content, canonical)
        packed = bytes.fromhex(vector["bytes"])
        hashes = hash_publisher(publisher), packed[96:128], packed[128:]
        assert leaf == hash_message(hash_stream_id(vector["stream_id"]), *place, *hashes) == leaf_hash(packed)


def another(value: Any) -> Any:
    match value:
        case Flag():
            return value ^ Flag.VARIANTS
        case InstanceId():
            return InstanceId(InstanceKind.LATE, value.number)
        case int():
            return value + 1
        case str():
            return value + "x"
        case bytes():
            return value[:-1] + bytes([value[-1] ^ 1])
    raise TypeError(type(value).__name__)


def test_every_field_is_in_its_leaf() -> None:
    message = ["a.eth/a", 1, 2, 3, b"\4" * 20, b"5", b"6"]
    assert_all_differ(message_leaf, message)
    entry = PartitionEntry("a.eth/a", 1, Root(b"\2" * 32), 3, 4, 5, Flag.FULL)
    values = [getattr(entry, field.name) for field in fields(entry)]
    assert_all_differ(lambda *v: entry_leaf(PartitionEntry(*v), v[-1]), values)
    window: list[Any] = [InstanceId(InstanceKind.WINDOW, 1), Root(b"\2" * 32), 3, Digest(b"\4" * 32)]
    assert_all_differ(window_leaf, window)
    assert window_leaf(InstanceId(InstanceKind.WINDOW, 2), *window[1:]) != window_leaf(*window)
    header = BundleHeader(Digest(b"\1" * 32), 2, Root(b"\3" * 32), 4, 5)
    values = [getattr(header, field.name) for field in fields(header)]
    assert_all_differ(lambda *v: header_leaf(BundleHeader(*v)), values)
    assert_all_differ(bundle_leaf, [1, Root(b"\2" * 32)])


def assert_all_differ(leaf: Any, values: list[Any]) -> None:
    found = {leaf(*values)}
    for at, value in enumerate(values):
        found.add(leaf(*values[:at], another(value), *values[at + 1 :]))
    assert len(found) == len(values) + 1
