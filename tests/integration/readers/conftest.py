"""A bundle's file that has every kind of content, of key and of optional field, and what its rows are.

A value is what it means: times in milliseconds, bytes as hex, a content as the JSON it is, since some readers parse it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.builders import GENESIS_MS, a_key, a_p256_message, a_record, a_stream_id, an_ml_dsa_message
from tests.bundle_builder import a_manifest, rows_of
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.json_text import is_json
from validator.protocol.codec.message import make_record
from validator.protocol.codec.publisher_text import format_publisher
from validator.protocol.model import ContentType, EncryptionType, Message, MessageRef, NewGroupKey, Record

Values = dict[str, Any]
STREAM = a_stream_id(1, "readers")
CONTENTS = (
    b'{"value":1.5,"unit":"\xc2\xb0C","nested":{"list":[1,null,true]}}',
    b"[1,2]",
    b'"text"',
    b"null",
    b"no json at all",
    b"",
    b'{"quote":"\\"","tab":"\\t"}',
)


def some_records() -> list[Record]:
    """Every kind of content, of key, of optional field; and enough of them for more than one page."""
    many = [a_record(a_key(1 + n % 3), **common(n), content=CONTENTS[n % len(CONTENTS)]) for n in range(60)]
    chained = a_record(a_key(1), **common(70), prev=MessageRef(GENESIS_MS + 69, 4))
    encrypted = a_record(
        a_key(1),
        **common(71),
        content=b"\x00secret",
        encryption_type=EncryptionType.AES,
        group_key_id="key-1",
        new_group_key=NewGroupKey("key-2", b"\x01\xff"),
    )
    binary: Values = {"content": b"\xff\x00\xfe", "content_type": ContentType.BINARY}
    others = [make_record(a_p256_message(**common(72), **binary)), make_record(an_ml_dsa_message(**common(73)))]
    return [*many, chained, encrypted, *others]


def common(number: int) -> dict[str, Any]:
    return {
        "stream_id": STREAM,
        "partition": number % 2,
        "timestamp_ms": GENESIS_MS + number,
        "sequence_number": number,
        "msg_chain_id": f"chain-{number % 3}",
    }


def values_of(message: Message, late: bool) -> Values:
    m, key = message, message.new_group_key
    text = m.content.decode() if is_json(m.content) else None
    return {
        "stream_id": m.stream_id,
        "partition": m.partition,
        "timestamp": m.timestamp_ms,
        "sequence_number": m.sequence_number,
        "publisher_id": format_publisher(m.publisher_id),
        "msg_chain_id": m.msg_chain_id,
        "prev_timestamp": None if m.prev is None else m.prev.timestamp_ms,
        "prev_sequence_number": None if m.prev is None else m.prev.sequence_number,
        "message_type": int(m.message_type),
        "content_type": int(m.content_type),
        "encryption_type": int(m.encryption_type),
        "group_key_id": m.group_key_id,
        "new_group_key_id": None if key is None else key.id,
        "new_group_key": None if key is None else key.data.hex(),
        "content": None if text is None else json.loads(text),
        "content_bytes": None if text is not None else m.content.hex(),
        "signature_type": int(m.signature_type),
        "signature": m.signature.hex(),
        "late": late,
    }


@dataclass(frozen=True, slots=True)
class ReadBundle:
    """A file, and what its rows are."""

    path: Path
    rows: list[Values]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ReadBundle:
    records = some_records()
    windows: tuple[list[Record], ...] = (records[3:], [])
    late = records[:3]
    manifest = a_manifest(windows, late)
    path = tmp_path_factory.mktemp("readers") / "bundle-0.parquet"
    rows = rows_of(manifest, windows, late)
    write_bundle(path, manifest, rows)
    return ReadBundle(path, [values_of(record.message, instance.kind.name == "LATE") for instance, record in rows])
