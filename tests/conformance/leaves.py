"""Our own vectors of leaves and roots (format 2), put together here field by field and without the project's code.

    python -m tests.conformance leaves FILE            judge a file as below
    python -m tests.conformance leaves --write FOLDER  make leaves.json anew

messages   [{name, stream_id, partition, timestamp_ms, sequence_number, publisher_id, content, canonical, bytes, leaf}]
windows    [{name, kind, number, messages: [canonical], entries: [{stream_id, partition, root, count, signed_bytes,
           canonical_bytes, flags, bytes, leaf}], entry_root, set_root, rest, bytes, leaf, outcome}]
bundles    [{name, config_digest, number, previous_root, first_ms, last_ms, header_bytes, header_leaf, leaves,
           tree_root, bytes, root}]

``bytes`` are a leaf's without the 0x00 that is hashed before them; byte strings as hex. The contract's tests read the
same file. Published bytes never change; a change of format is a new kind and a new file beside this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.builders import a_key, a_message, a_stream_id
from tests.conformance.canonical import canonical_cases
from tests.rfc9162 import leaf_hash, tree_hash
from tests.vector_file import AGREED, DIFFERED, USAGE, read_vectors
from validator.protocol.codec.manifest import bundle_leaves, bundle_root
from validator.protocol.codec.message import make_record, record_from_canonical
from validator.protocol.codec.outcome import (
    decode_outcome,
    encode_outcome,
    encode_rest,
    entries_root,
    outcome_digest,
    set_root,
)
from validator.protocol.errors import MalformedInput
from validator.protocol.leaves import entry_leaf, header_leaf
from validator.protocol.merkle import compute_root
from validator.protocol.model import (
    Address,
    BrokerShare,
    BundleHeader,
    Digest,
    Equivocation,
    Flag,
    InstanceId,
    InstanceKind,
    Outcome,
    PartitionEntry,
    Record,
    Root,
)

START_MS = 1_700_000_000_000
WINDOW_SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 17)


def main(arguments: list[str]) -> int:
    if len(arguments) == 2 and arguments[0] == "--write":
        text = json.dumps(make_leaves(), indent=1, ensure_ascii=False) + "\n"
        (Path(arguments[1]) / "leaves.json").write_text(text)
        return AGREED
    vectors = read_vectors(arguments, "leaves FILE | --write FOLDER")
    if vectors is None:
        return USAGE
    count = sum(len(vectors[kind]) for kind in ("messages", "windows", "bundles"))
    differing = set()
    for name, difference in judge_leaves(vectors):
        differing.add(name)
        print(f"{name}: {difference}")
    print(f"{count - len(differing)} of {count} agree")
    return DIFFERED if differing or not count else AGREED


# --- judging --------------------------------------------------------------------------------------


def judge_leaves(vectors: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for vector in vectors["messages"]:
        try:
            record = record_from_canonical(bytes.fromhex(vector["canonical"]))
        except MalformedInput as refusal:
            yield vector["name"], f"refused: {refusal}"
            continue
        if record.leaf.hex() != vector["leaf"]:
            yield vector["name"], "leaf differs"
        if _message_vector(vector["name"], record) != vector:
            yield vector["name"], "fields or bytes differ"
    for window in vectors["windows"]:
        yield from ((window["name"], difference) for difference in _judge_window(window))
    for bundle in vectors["bundles"]:
        yield from ((bundle["name"], difference) for difference in _judge_bundle(bundle))


def _judge_window(window: dict[str, Any]) -> Iterator[str]:
    data = bytes.fromhex(window["outcome"])
    outcome = decode_outcome(data)
    if encode_outcome(outcome) != data:
        yield "canonical bytes differ"
    if encode_rest(outcome).hex() != window["rest"]:
        yield "rest differs"
    records = [record_from_canonical(bytes.fromhex(item)) for item in window["messages"]]
    if sorted(records, key=lambda record: record.order) != records:
        yield "messages are not in canonical order"
    for entry, vector in zip(outcome.entries, window["entries"], strict=True):
        members = [r.leaf for r in records if r.message.stream_part == entry.stream_part]
        if compute_root(members) != entry.root or len(members) != entry.count:
            yield f"messages of {entry.stream_part} do not give the entry"
        if entry_leaf(entry, entry.flags).hex() != vector["leaf"]:
            yield f"leaf of {entry.stream_part} differs"
    if entries_root(outcome.entries).hex() != window["entry_root"]:
        yield "entry root differs"
    if set_root(outcome.entries).hex() != window["set_root"]:
        yield "set root differs"
    if outcome_digest(outcome).hex() != window["leaf"]:
        yield "leaf differs"
    if _window_vector(window["name"], outcome, records) != window:
        yield "fields or bytes differ"


def _judge_bundle(bundle: dict[str, Any]) -> Iterator[str]:
    header = BundleHeader(
        Digest(bytes.fromhex(bundle["config_digest"])),
        bundle["number"],
        Root(bytes.fromhex(bundle["previous_root"])),
        bundle["first_ms"],
        bundle["last_ms"],
    )
    _, *windows, late = (Digest(bytes.fromhex(leaf)) for leaf in bundle["leaves"])
    if header_leaf(header).hex() != bundle["header_leaf"]:
        yield "header's leaf differs"
    if [leaf.hex() for leaf in bundle_leaves(header, windows, late)] != bundle["leaves"]:
        yield "leaves differ"
    if bundle_root(header, windows, late).hex() != bundle["root"]:
        yield "root differs"
    if _bundle_vector(bundle["name"], header, windows, late) != bundle:
        yield "fields or bytes differ"


# --- making ---------------------------------------------------------------------------------------


def make_leaves() -> dict[str, Any]:
    windows = [_plain_window(size) for size in WINDOW_SIZES] + [_mixed_window(), _late_set()]
    header = BundleHeader(Digest(b"\x0c" * 32), 4, Root(b"\x11" * 32), START_MS, START_MS + 600_000)
    digests = [Digest(bytes.fromhex(window["leaf"])) for window in windows]
    return {
        "messages": [_message_vector(name, make_record(message)) for name, message in canonical_cases().items()],
        "windows": windows,
        "bundles": [
            _bundle_vector(f"{count} windows and a late set", header, digests[:count], digests[-1])
            for count in (1, 2, 3, 6, len(digests) - 1)
        ],
    }


def _plain_window(size: int) -> dict[str, Any]:
    records = _records(size)
    number = START_MS + 60_000 * size
    return _window(f"{size} messages in one partition", InstanceId(InstanceKind.WINDOW, number), records, [])


def _mixed_window() -> dict[str, Any]:
    records = sorted([*_records(3), *_records(2, partition=1), *_records(1, number=2)], key=lambda r: r.order)
    empty = [(a_stream_id(), 2), ("zeta.eth/empty", 0)]
    instance = InstanceId(InstanceKind.WINDOW, START_MS)
    return _window("five partitions, two of them empty, every flag, evidence", instance, records, empty, rich=True)


def _late_set() -> dict[str, Any]:
    return _window("a late set", InstanceId(InstanceKind.LATE, 4), _records(2, partition=99), [])


def _records(count: int, *, partition: int = 0, number: int = 1) -> list[Record]:
    return [
        make_record(
            a_message(
                a_key(number),
                stream_id=a_stream_id(number),
                partition=partition,
                timestamp_ms=START_MS + i,
                content=b'{"i":%d}' % i,
            )
        )
        for i in range(count)
    ]


def _window(
    name: str, instance: InstanceId, records: list[Record], empty: list[tuple[str, int]], *, rich: bool = False
) -> dict[str, Any]:
    parts: dict[tuple[str, int], list[Record]] = {part: [] for part in empty}
    for record in records:
        parts.setdefault(record.message.stream_part, []).append(record)
    entries = []
    for position, (part, members) in enumerate(
        sorted(parts.items(), key=lambda item: (item[0][0].encode(), item[0][1]))
    ):
        root = Root(tree_hash([record.leaf for record in members]))
        signed = sum(record.signed_bytes for record in members)
        size = sum(len(record.canonical) for record in members)
        flags = Flag((1 << position) % 16) if rich else Flag(0)
        entries.append(PartitionEntry(*part, root, len(members), signed, size, flags))
    outcome = Outcome(
        instance,
        7,
        Digest(b"\x07" * 32),
        tuple(entries),
        entries_root(entries),
        (1 << 70) if rich else 0,
        (BrokerShare(Address(b"\x01" * 20), 600, 0), BrokerShare(Address(b"\x02" * 20), 0, 600)) if rich else (),
        (Digest(b"\x03" * 32), Digest(b"\x04" * 32)),
        (Equivocation(a_stream_id(), 0, Digest(b"\x05" * 32), Digest(b"\x06" * 32)),) if rich else (),
        9 if rich else 0,
    )
    return _window_vector(name, outcome, records)


# --- the format, written out ----------------------------------------------------------------------


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _number(value: int, width: int = 8) -> bytes:
    return value.to_bytes(width, "big")


def _message_vector(name: str, record: Record) -> dict[str, Any]:
    m = record.message
    leaf = (
        b"logstore2message"
        + _hash(m.stream_id.encode())
        + _number(m.partition, 4)
        + _number(m.timestamp_ms)
        + _number(m.sequence_number, 4)
        + _hash(m.publisher_id)
        + _hash(m.content)
        + _hash(record.canonical)
    )
    return {
        "name": name,
        "stream_id": m.stream_id,
        "partition": m.partition,
        "timestamp_ms": m.timestamp_ms,
        "sequence_number": m.sequence_number,
        "publisher_id": m.publisher_id.hex(),
        "content": m.content.hex(),
        "canonical": record.canonical.hex(),
        "bytes": leaf.hex(),
        "leaf": leaf_hash(leaf).hex(),
    }


def _entry_bytes(entry: PartitionEntry, flags: int) -> bytes:
    return (
        b"logstore2entry\0\0"
        + _hash(entry.stream_id.encode())
        + _number(entry.partition, 4)
        + entry.root
        + _number(entry.count)
        + _number(entry.signed_bytes)
        + _number(entry.canonical_bytes)
        + _number(flags, 1)
    )


def _window_vector(name: str, outcome: Outcome, records: Sequence[Record]) -> dict[str, Any]:
    leaves = [leaf_hash(_entry_bytes(entry, int(entry.flags))) for entry in outcome.entries]
    root, rest = tree_hash(leaves), encode_rest(outcome)
    leaf = (
        b"logstore2window\0"
        + _number(int(outcome.instance.kind), 1)
        + _number(outcome.instance.number)
        + root
        + _number(len(leaves))
        + _hash(rest)
    )
    return {
        "name": name,
        "kind": int(outcome.instance.kind),
        "number": outcome.instance.number,
        "messages": [record.canonical.hex() for record in records],
        "entries": [
            {
                "stream_id": entry.stream_id,
                "partition": entry.partition,
                "root": entry.root.hex(),
                "count": entry.count,
                "signed_bytes": entry.signed_bytes,
                "canonical_bytes": entry.canonical_bytes,
                "flags": int(entry.flags),
                "bytes": _entry_bytes(entry, int(entry.flags)).hex(),
                "leaf": entry_hash.hex(),
            }
            for entry, entry_hash in zip(outcome.entries, leaves, strict=True)
        ],
        "entry_root": root.hex(),
        "set_root": tree_hash([leaf_hash(_entry_bytes(e, 0)) for e in outcome.entries if e.count]).hex(),
        "rest": rest.hex(),
        "bytes": leaf.hex(),
        "leaf": leaf_hash(leaf).hex(),
        "outcome": encode_outcome(outcome).hex(),
    }


def _bundle_vector(name: str, header: BundleHeader, windows: Sequence[Digest], late: Digest) -> dict[str, Any]:
    first = (
        b"logstore2header\0"
        + header.config_digest
        + _number(header.number)
        + header.previous_root
        + _number(header.first_ms)
        + _number(header.last_ms)
    )
    leaves = [leaf_hash(first), *windows, late]
    root = tree_hash(leaves)
    leaf = b"logstore2bundle\0" + _number(len(leaves)) + root
    return {
        "name": name,
        "config_digest": header.config_digest.hex(),
        "number": header.number,
        "previous_root": header.previous_root.hex(),
        "first_ms": header.first_ms,
        "last_ms": header.last_ms,
        "header_bytes": first.hex(),
        "header_leaf": leaves[0].hex(),
        "leaves": [item.hex() for item in leaves],
        "tree_root": root.hex(),
        "bytes": leaf.hex(),
        "root": leaf_hash(leaf).hex(),
    }
