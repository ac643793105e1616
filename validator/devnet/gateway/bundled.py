"""ANS-104 data items inside mined transactions, and inside one another, as gateways unbundle them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from validator.devnet.gateway.ans104 import DataItem, decode_bundle
from validator.devnet.gateway.weave import Entry, Weave
from validator.protocol.errors import MalformedInput

MARKS = {(b"Bundle-Format", b"binary"), (b"Bundle-Version", b"2.0.0")}
MAX_BUNDLE_BYTES = 64 * 1024 * 1024
"""Larger ones are not looked into: they are read whole."""
MAX_DEPTH = 4
"""Bundles inside bundles; what lies deeper stays packed."""


@dataclass(frozen=True, slots=True)
class Child:
    """One item, what it is in, its number in the transaction, and a file with its data."""

    item: DataItem
    parent: bytes
    number: int
    path: Path


class Bundled:
    """What is inside transactions that say they are bundles; opened once, and only found while they are readable."""

    def __init__(self, weave: Weave) -> None:
        self.weave = weave
        self._opened: dict[bytes, tuple[Child, ...]] = {}

    def children(self, entry: Entry) -> tuple[Child, ...]:
        """The items of a transaction; none where it is no bundle, is not readable, or holds anything unsound."""
        if not set(entry.tx.tags) >= MARKS or entry.tx.data_size > MAX_BUNDLE_BYTES:
            return ()
        found = self.weave.find_readable(entry.tx.id)
        if found is None:
            return ()
        if entry.tx.id not in self._opened:
            self._opened[entry.tx.id] = self._open(entry.tx.id, found[1].read(0, found[1].size))
        return self._opened[entry.tx.id]

    def _open(self, transaction_id: bytes, raw: bytes) -> tuple[Child, ...]:
        found = {item.id: (parent, item) for parent, item in reversed(list(_unpack(transaction_id, raw, 1)))}
        children = tuple(
            Child(item, parent, number, self.weave.folder / f"item-{item.id.hex()}")
            for number, (parent, item) in enumerate(reversed(found.values()), 1)
        )
        for child in children:
            child.path.write_bytes(child.item.data)
        return children

    def find(self, item_id: bytes) -> Child | None:
        """The item of this id, in whichever transaction it is."""
        for entry in self.weave.entries.values():
            for child in self.children(entry):
                if child.item.id == item_id:
                    return child
        return None


def _unpack(parent: bytes, raw: bytes, depth: int) -> Iterator[tuple[bytes, DataItem]]:
    """Each item with what it is in; those of an unsound bundle stay packed."""
    try:
        items = decode_bundle(raw)
    except MalformedInput:
        return
    for item in items:
        yield parent, item
        if depth < MAX_DEPTH and set(item.tags) >= MARKS:
            yield from _unpack(item.id, item.data, depth + 1)
