"""What an export writes column by column is what row by row would be, over several bundles that overlap."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa
import pyarrow.ipc
import pytest

from logstore import merging
from logstore.export import FIELDS, FORMATS, export_messages
from logstore.merging import merge
from logstore.rows import BEGIN, Place
from logstore.selection import BundleFile
from logstore.times import format_time
from tests.builders import GENESIS_MS, a_key, a_message, a_record, a_stream_id
from tests.bundle_builder import a_manifest, rows_of
from validator.net.chain.bundles import AcceptedBundle
from validator.protocol.codec.bundle_columns import make_table
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.message import make_record
from validator.protocol.codec.publisher_text import format_publisher
from validator.protocol.model import ContentType, EncryptionType, Record, Root, SignatureType, StorageId

CONTENTS = (
    b'{"a":"\xc3\xa4\\n\\u0001"}',
    b"=1+1",
    b"\xff\x00",
    b"",
    b'"quoted, \\" and\\r\\nlines"',
    b"@x\x7f\xe2\x80\xa8",
)


def some(numbers: range) -> list[Record]:
    """Of two streams, contents of all sorts; a hundredth of a second between them."""
    records = [
        make_record(
            a_message(
                a_key(1 + n % 2),
                stream_id=a_stream_id(1, f"s/{n % 2}"),
                timestamp_ms=GENESIS_MS + 10 * n,
                sequence_number=n,
                content=CONTENTS[n % len(CONTENTS)],
                content_type=ContentType.BINARY,
                encryption_type=EncryptionType.AES if n % 5 == 0 else EncryptionType.NONE,
                group_key_id="key" if n % 5 == 0 else None,
                signature_type=SignatureType.ECDSA_SECP256K1_EVM,
            )
        )
        for n in numbers
    ]
    return sorted(records, key=lambda record: record.order)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[BundleFile, list[Record]]]:
    """Three: the second lies between rows of the first."""
    folder = tmp_path_factory.mktemp("bundles")
    found = []
    for number, numbers in enumerate((range(0, 100, 2), range(1, 60, 3), range(100, 130))):
        records = some(numbers)
        manifest = a_manifest([records])
        path = folder / str(number)
        write_bundle(path, manifest, rows_of(manifest, [records]))
        bundle = AcceptedBundle(number, Root(bytes(32)), StorageId(bytes(32)), 0, 1, 1, is_final=True)
        found.append((BundleFile(bundle, path), records))
    return found


def export(form: str, bundles: list[tuple[BundleFile, list[Record]]], to_ms: int = GENESIS_MS * 2) -> bytes:
    out = io.BytesIO()
    count = export_messages(form, [file for file, _ in bundles], (None, None), None, to_ms, out)
    assert count == len(expected(bundles, to_ms))
    return out.getvalue()


def expected(bundles: list[tuple[BundleFile, list[Record]]], to_ms: int = GENESIS_MS * 2) -> list[tuple[Record, int]]:
    pairs = [(record, file.bundle.number) for file, records in bundles for record in records]
    return sorted(
        (pair for pair in pairs if pair[0].message.timestamp_ms < to_ms), key=lambda pair: (pair[0].order[:6], pair[1])
    )


def fields(record: Record, bundle: int) -> dict[str, Any]:
    m = record.message
    try:
        text: str | None = m.content.decode()
    except UnicodeDecodeError:
        text = None
    values = (
        m.stream_id,
        m.partition,
        format_time(m.timestamp_ms),
        m.timestamp_ms,
        m.sequence_number,
        format_publisher(m.publisher_id),
        m.msg_chain_id,
        text,
        m.content.hex() if text is None else None,
        int(m.encryption_type),
        m.group_key_id,
        int(m.signature_type),
        f"0x{m.signature.hex()}",
        False,
        bundle,
    )
    return dict(zip(FIELDS, values, strict=True))


@pytest.mark.parametrize("to_ms", [GENESIS_MS * 2, GENESIS_MS + 432, GENESIS_MS])
def test_lines_are_those_that_a_writer_of_json_makes(
    bundles: list[tuple[BundleFile, list[Record]]], to_ms: int
) -> None:
    lines = [json.dumps(fields(*pair), ensure_ascii=False) + "\n" for pair in expected(bundles, to_ms)]
    assert export("ndjson", bundles, to_ms).decode() == "".join(lines)


def test_cells_are_those_fields_and_none_that_a_spreadsheet_would_run(
    bundles: list[tuple[BundleFile, list[Record]]],
) -> None:
    rows = list(csv.reader(io.StringIO(export("csv", bundles).decode(), newline="")))
    assert rows[0] == list(FIELDS)
    for row, pair in zip(rows[1:], expected(bundles), strict=True):
        values = {**fields(*pair), "late": "false"}
        if str(values["content"])[:1] in ("=", "@"):
            values["content"] = f"'{values['content']}"
        assert row == ["" if value is None else str(value) for value in values.values()]


def test_arrow_has_the_same_rows(bundles: list[tuple[BundleFile, list[Record]]]) -> None:
    table = pa.ipc.open_stream(export("arrow", bundles)).read_all()
    for row, pair in zip(table.to_pylist(), expected(bundles), strict=True):
        values = fields(*pair)
        assert row["timestamp"].timestamp() * 1_000 == pytest.approx(values["timestamp_ms"])
        assert row["content_bytes"] == (pair[0].message.content if values["content"] is None else None)
        assert row["signature"] == pair[0].message.signature
        same = set(FIELDS) - {"timestamp", "timestamp_ms", "content_hex", "signature"}
        assert {name: row[name] for name in same} == {name: values[name] for name in same}


def test_raw_is_the_canonical_bytes(bundles: list[tuple[BundleFile, list[Record]]]) -> None:
    assert export("raw", bundles) == b"".join(record.canonical for record, _ in expected(bundles))


def test_nothing_is_nothing_in_every_format() -> None:
    sizes = {form: len(export(form, [])) for form in FORMATS}
    assert sizes["ndjson"] == sizes["raw"] == 0
    assert export("csv", []) == (",".join(FIELDS) + "\r\n").encode()


class Noted:
    """Batches with these rows, each a row group; how often and from where they were read."""

    def __init__(self, *times: list[int]) -> None:
        self.groups = [
            make_table([(False, a_record(timestamp_ms=GENESIS_MS + n)) for n in some]).combine_chunks().to_batches()
            for some in times
        ]
        self.starts: list[Place] = []

    def scan(self, start: Place = BEGIN) -> Iterator[tuple[Place, Any]]:
        self.starts.append(start)
        for group, batches in enumerate(self.groups):
            for number, batch in enumerate(batches):
                if Place(group, number) >= start:
                    yield Place(group, number), batch


def merged(*sources: Noted) -> list[tuple[int, list[int]]]:
    return [
        (number, [time.value - GENESIS_MS for time in batch.column("timestamp")])
        for number, batch in merge(cast(Any, sources))
    ]


def test_stretches_of_one_source_are_passed_on_whole() -> None:
    found = merged(Noted([1, 2, 5], [6, 7]), Noted(), Noted([3, 5, 6], [9]))
    assert found == [(0, [1, 2]), (2, [3]), (0, [5]), (2, [5]), (0, [6]), (2, [6]), (0, [7]), (2, [9])]


def test_few_sources_are_open_at_once_and_each_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [Noted([1, 11], [21, 31]), Noted([2, 12, 13]), Noted([3, 23], [24])]
    all_open = merged(*sources)
    monkeypatch.setattr(merging, "OPEN", 1)
    again = [Noted([1, 11], [21, 31]), Noted([2, 12, 13]), Noted([3, 23], [24])]
    assert merged(*again) == all_open
    assert [time for _, times in all_open for time in times] == [1, 2, 3, 11, 12, 13, 21, 23, 24, 31]
    first, second = Place(0, 0), Place(1, 0)
    assert [source.starts for source in sources] == [[first, first]] * 3  # for its first row, and when it was its turn
    assert again[0].starts == [first, first, first, second, second]
