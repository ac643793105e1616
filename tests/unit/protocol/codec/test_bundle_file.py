"""Bundle files: what is written is read back, and every other file is refused by name."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.builders import (
    GENESIS_MS,
    a_key,
    a_message,
    a_p256_message,
    a_record,
    a_stream_id,
    an_ml_dsa_message,
    some_records,
)
from tests.bundle_builder import CONTEXT, MEMBERS, WINDOW_MS, a_manifest, an_outcome, certify, rows_of, with_certificate
from tests.bundle_reader import read_records
from tests.hostile_bundle import DICTIONARY_PAGE, MIN_VALUE, STATISTICS, take_apart
from validator.protocol.codec.bundle import bundle_tags
from validator.protocol.codec.bundle_columns import SCHEMA
from validator.protocol.codec.bundle_file import read_manifest, verify_bundle_file, write_bundle
from validator.protocol.codec.bundle_front import MANIFEST_KEY, pack_manifest
from validator.protocol.codec.manifest import encode_manifest, manifest_root
from validator.protocol.codec.manifest_rules import check_same_manifest
from validator.protocol.codec.message import make_record
from validator.protocol.codec.publisher_text import format_publisher
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import EncryptionType, InstanceId, InstanceKind, Manifest, MessageRef, NewGroupKey, Record

LATE = a_record(timestamp_ms=GENESIS_MS + 1_500, sequence_number=9)


def some_windows() -> list[list[Record]]:
    """Two windows of two streams and two partitions, with every field in use."""
    windows = []
    for window in range(2):
        start = GENESIS_MS + window * WINDOW_MS
        records = [
            a_record(
                stream_id=a_stream_id(stream), partition=part, timestamp_ms=start + 10 * i, content=b'{"i":%d}' % i
            )
            for stream in (1, 2)
            for part in (0, 3)
            for i in range(5)
        ]
        windows.append(sorted(records, key=lambda r: r.order))
    encrypted = a_message(
        timestamp_ms=GENESIS_MS + 3_000,
        prev=MessageRef(GENESIS_MS + 2_000, 2),
        sequence_number=3,
        encryption_type=EncryptionType.AES,
        group_key_id="key-1",
        new_group_key=NewGroupKey("key-2", b"\x01\x02"),
        content=b"\x00\xff\x10",
    )
    others = [encrypted, a_p256_message(timestamp_ms=GENESIS_MS), an_ml_dsa_message(timestamp_ms=GENESIS_MS + 1)]
    windows[0] = sorted([*windows[0], *map(make_record, others)], key=lambda r: r.order)
    return windows


@pytest.fixture(scope="module")
def windows() -> list[list[Record]]:
    return some_windows()


@pytest.fixture(scope="module")
def manifest(windows: list[list[Record]]) -> Manifest:
    return a_manifest(windows, [LATE])


@pytest.fixture
def path(tmp_path: Path, windows: list[list[Record]], manifest: Manifest) -> Path:
    write_bundle(tmp_path / "bundle.parquet", manifest, rows_of(manifest, windows, [LATE]))
    return tmp_path / "bundle.parquet"


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(MalformedInput) as caught:
        call()
    return str(caught.value)


def test_a_file_gives_back_every_record_with_the_instance_it_belongs_to(
    path: Path, windows: list[list[Record]], manifest: Manifest
) -> None:
    expected = [
        (InstanceId(InstanceKind.WINDOW, GENESIS_MS + i * WINDOW_MS), r) for i, w in enumerate(windows) for r in w
    ]
    expected.append((InstanceId(InstanceKind.LATE, 0), LATE))
    expected.sort(key=lambda item: item[1].order)
    assert list(read_records(path, manifest)) == expected


def test_a_written_file_verifies_and_says_what_it_is(
    tmp_path: Path, windows: list[list[Record]], manifest: Manifest
) -> None:
    written = write_bundle(tmp_path / "b", manifest, rows_of(manifest, windows, [LATE]))
    bundle = verify_bundle_file(tmp_path / "b", manifest)
    assert (bundle.root, bundle.rows, bundle.manifest) == (manifest_root(manifest), 44, manifest)
    data = (tmp_path / "b").read_bytes()
    assert (written.size, written.rows, written.sha256) == (len(data), 44, hashlib.sha256(data).digest())
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_the_manifest_is_read_without_any_row(path: Path, manifest: Manifest) -> None:
    assert read_manifest(path) == manifest


def test_an_empty_bundle_is_a_small_file(tmp_path: Path) -> None:
    manifest = a_manifest([[], [], [], []])
    written = write_bundle(tmp_path / "b", manifest, [])
    assert verify_bundle_file(tmp_path / "b").rows == 0
    assert written.size < len(encode_manifest(manifest)) * 4 / 3 + 1_000


def test_any_reader_of_parquet_sees_plain_columns(path: Path) -> None:
    table = pq.read_table(path)
    assert table.schema.names == SCHEMA.names
    assert table.column("timestamp").type == pa.timestamp("ms", tz="UTC")
    assert table.filter(pa.compute.field("late")).column("sequence_number").to_pylist() == [9]


def test_analysts_compare_publishers_as_text_and_ask_for_fields_of_contents(
    path: Path, windows: list[list[Record]]
) -> None:
    """DuckDB and pyarrow, on the file as it is: one content that is no JSON spoils nothing."""
    publishers = {format_publisher(r.message.publisher_id) for r in windows[0]}
    asked = duckdb.connect()
    asked.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
    asked.execute(f"create view messages as select * from read_parquet('{path}')")
    own = format_publisher(LATE.message.publisher_id)
    (counts,) = asked.execute(
        """select count(*) filter (content->>'$.i' = '3'), count(content_bytes), count(*) filter (publisher_id = ?)
           from messages""",
        [own],
    ).fetchall()
    assert counts == (8, 1, 42)
    table = pq.read_table(path)
    assert sorted(set(table.column("publisher_id").to_pylist())) == sorted(publishers)
    assert table.column("content_bytes").drop_null().to_pylist() == [b"\x00\xff\x10"]
    assert table.column("content").null_count == 1


def test_records_that_do_not_give_the_manifests_roots_are_never_written(
    tmp_path: Path, windows: list[list[Record]], manifest: Manifest
) -> None:
    for wrong in (
        [windows[0][1:], windows[1]],
        [windows[1], windows[0]],
        [windows[0], windows[1][:-1]],
        [[*windows[0], LATE], windows[1]],
    ):
        with pytest.raises(InvariantError):
            write_bundle(tmp_path / "b", manifest, rows_of(manifest, wrong, [LATE]))
    assert not list(tmp_path.iterdir())


def test_tags_are_exactly_the_nine_in_their_order(manifest: Manifest) -> None:
    header = replace(manifest.header, number=12)
    root = manifest_root(manifest)
    assert bundle_tags(header, root, CONTEXT, GENESIS_MS + 8_000) == (
        ("App-Name", "LogStore"),
        ("App-Version", "3"),
        ("Content-Type", "application/vnd.apache.parquet"),
        ("Network", "31337:0x" + "05" * 20),
        ("Bundle-Number", "12"),
        ("Window-From", str(GENESIS_MS)),
        ("Window-To", str(GENESIS_MS + 8_000)),
        ("Bundle-Root", root.hex()),
        ("Prev-Bundle-Root", "00" * 32),
    )


# --- files of strangers ---------------------------------------------------------------------------


def rewrite(
    path: Path, change: Callable[[Any], Any] = lambda t: t, keys: dict[bytes, bytes] | None = None, **options: Any
) -> None:
    """Write the file's table again, changed, the way another program might."""
    table = change(pq.read_table(path))
    if keys is None:
        keys = {MANIFEST_KEY: pq.ParquetFile(path).metadata.metadata[MANIFEST_KEY]}
    values: dict[str, Any] = {"compression": "zstd", "store_schema": False, "write_statistics": False, **options}
    schema = pa.schema([pa.field(f.name, f.type, nullable=f.nullable) for f in table.schema])
    with pq.ParquetWriter(path, schema, **values) as writer:
        writer.write_table(table.cast(schema))
        writer.add_key_value_metadata(keys)


def set_value(name: str, row: int, value: Any) -> Callable[[Any], Any]:
    def change(table: Any) -> Any:
        column = table.column(name).to_pylist()
        column[row] = value
        field = table.schema.field(name)
        return table.set_column(table.schema.get_field_index(name), field, pa.array(column, type=field.type))

    return change


def map_column(name: str, change: Callable[[str], str]) -> Callable[[Any], Any]:
    def mapped(table: Any) -> Any:
        field = table.schema.field(name)
        values = [change(value) for value in table.column(name).to_pylist()]
        return table.set_column(table.schema.get_field_index(name), field, pa.array(values, type=field.type))

    return mapped


def as_type(name: str, kind: Any) -> Callable[[Any], Any]:
    def cast(table: Any) -> Any:
        at = table.schema.get_field_index(name)
        field = pa.field(name, kind, nullable=table.schema.field(name).nullable)
        column = table.column(name)
        storage = column.cast(pa.string()) if isinstance(column.type, pa.BaseExtensionType) else column
        return table.set_column(at, field, storage.cast(kind))

    return cast


def both(*changes: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda table: reduce(lambda changed, change: change(changed), changes, table)


def test_a_plain_rewrite_by_another_program_is_still_the_bundle(path: Path, manifest: Manifest) -> None:
    rewrite(path, write_statistics=["stream_id", "partition", "timestamp"])
    assert verify_bundle_file(path, manifest).rows == 44


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.slice(1), "rows: 43 where the outcomes have 44"),
        (lambda t: pa.concat_tables([t, t.slice(43)]), "rows: 45"),
        (lambda t: pa.concat_tables([t.slice(1, 1), t.slice(0, 1), t.slice(2)]), "not in canonical order"),
        (lambda t: pa.concat_tables([t.slice(0, 43), t.slice(42, 1)]), "not in canonical order"),
        (set_value("content", 3, '{"i":77}'), "rows give another root"),
        (set_value("content", 3, "text"), "column content: holds what is no JSON, whose column is content_bytes"),
        (set_value("content", 3, None), "column content: null, and content_bytes too"),
        (set_value("content_bytes", 3, b"text"), "column content_bytes: not null beside a content"),
        (
            both(set_value("content", 3, None), set_value("content_bytes", 3, b'{"i":3}')),
            "column content_bytes: holds JSON, whose column is content",
        ),
        (map_column("publisher_id", str.upper), "publisher_id: not 0x or key: and lower-case hex"),
        (map_column("publisher_id", lambda p: p.replace("0x", "")), "publisher_id: not 0x or key: and lower-case hex"),
        (map_column("publisher_id", lambda p: p.replace("0x", "key:")), "publisher_id: not 0x or key:"),
        (as_type("content", pa.string()), "schema.content: another type than a bundle has"),
        (as_type("stream_id", pa.binary()), "schema.stream_id: does not say what its values are"),
        (as_type("timestamp", pa.timestamp("us", tz="UTC")), "has a field 2, which a bundle does not have"),
        (as_type("timestamp", pa.timestamp("ms")), "schema.timestamp: another type than a bundle has"),
        (as_type("late", pa.uint8()), "schema.late: another type than a bundle has"),
        (set_value("signature", 3, bytes(65)), "rows give another root"),
        (set_value("late", 0, True), "has more rows than its outcome says"),
        (set_value("message_type", 0, 9), "column type: 9 is not a valid MessageType"),
        (set_value("partition", 43, 200), "partition: 200 is not 0..99"),
        (set_value("prev_timestamp", 0, 5), "column prev_timestamp: null without prev_sequence_number"),
        (lambda t: t.append_column("extra", pa.array([1] * 44)), "schema: not exactly the columns"),
        (lambda t: t.drop_columns(["late"]), "schema: not exactly the columns"),
        (lambda t: t.select([*t.schema.names[1:], t.schema.names[0]]), "schema: not exactly the columns"),
    ],
)
def test_other_rows_and_columns_are_refused(path: Path, change: Callable[[Any], Any], named: str) -> None:
    rewrite(path, change)
    assert named in refusal(lambda: verify_bundle_file(path))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"write_page_index": True}, "has an index, which a bundle does not have"),
        ({"write_statistics": True}, "has statistics"),
        ({"sorting_columns": [pq.SortingColumn(0)]}, "has a declared order, which a bundle does not have"),
        ({"compression": "snappy"}, "not compressed with zstd"),
        ({"bloom_filter_options": {"stream_id": True}}, "has a bloom filter, which a bundle does not have"),
        ({"store_schema": True}, "metadata: keys other than logstore.manifest"),
    ],
)
def test_indexes_statistics_and_orders_that_the_format_does_not_name_are_refused(
    path: Path, options: dict[str, Any], named: str
) -> None:
    rewrite(path, **options)
    assert named in refusal(lambda: verify_bundle_file(path))


def test_statistics_that_differ_from_the_rows_are_refused_wherever_they_stand(path: Path) -> None:
    """The footer's smallest stream id is changed in place, then that of the page too."""
    first = min(a_stream_id(1), a_stream_id(2)).encode()
    data = path.read_bytes()
    parts = take_apart(data)
    statistics = parts.column("stream_id").find((STATISTICS,))
    statistics.put((MIN_VALUE,), b"0x0" + first[3:])
    path.write_bytes(parts.join())
    assert "column stream_id page: its min_value is not its column's" in refusal(lambda: verify_bundle_file(path))
    page, behind = parts.body.rindex(first, 0, parts.column("partition").find((DICTIONARY_PAGE,))), len(first)
    parts.body = parts.body[:page] + b"0x0" + first[3:] + parts.body[page + behind :]
    path.write_bytes(parts.join())
    assert "column stream_id: its min_value differs from the rows" in refusal(lambda: verify_bundle_file(path))


@pytest.mark.parametrize(
    "keys", [{}, {b"other": b"x"}, {MANIFEST_KEY: b"AAAA", b"other": b"x"}], ids=["none", "other", "one more"]
)
def test_other_keys_than_the_manifest_are_refused(path: Path, keys: dict[bytes, bytes]) -> None:
    rewrite(path, keys=keys)
    assert "metadata: keys other than logstore.manifest" in refusal(lambda: read_manifest(path))


def pack(manifest: bytes) -> bytes:
    return pack_manifest(manifest)


@pytest.mark.parametrize(
    ("packed", "named"),
    [
        (b"****", "not base64"),
        (b"AAAA", "not zstd"),
        (base64.b64encode(base64.b64decode(pack(b"x")) + b"junk"), "bytes behind the frame"),
        (base64.b64encode(base64.b64decode(pack(b"x" * 500))[:-1]), "cut short"),
        (pack(bytes((16 << 20) + 1)), "more than 16777216 bytes"),
        (pack(b"\x00"), "manifest/1: not an object of this kind"),
    ],
)
def test_a_manifest_that_is_none_is_refused(path: Path, packed: bytes, named: str) -> None:
    rewrite(path, keys={MANIFEST_KEY: packed})
    assert named in refusal(lambda: read_manifest(path))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda d: b"", "bundle: not a Parquet file"),
        (lambda d: d[:-1], "bundle: cut short"),
        (lambda d: b"X" + d[1:], "bundle: not a Parquet file"),
        (lambda d: d[:-8] + (17 << 20).to_bytes(4, "little") + d[-4:], "footer: 17825792 bytes exceed"),
        (lambda d: d[:-8] + (100).to_bytes(4, "little") + d[-4:], "footer"),
        (
            lambda d: (
                d[: -8 - int.from_bytes(d[-8:-4], "little")] + b"hidden" + d[-8 - int.from_bytes(d[-8:-4], "little") :]
            ),
            "bytes between columns and footer",
        ),
    ],
)
def test_a_damaged_file_is_refused(path: Path, damage: Callable[[bytes], bytes], named: str) -> None:
    path.write_bytes(damage(path.read_bytes()))
    assert named in refusal(lambda: verify_bundle_file(path))


def sealed_groups(path: Path, counts: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Rows of each group and the streams that it holds, of a bundle with so many messages of 40 kB in each stream."""
    streams = sorted(a_stream_id(1 + n) for n in range(len(counts)))
    records = [
        a_record(stream_id=stream, timestamp_ms=GENESIS_MS + i, content=b'"%b"' % (b"x" * 40_000))
        for stream, count in zip(streams, counts, strict=True)
        for i in range(count)
    ]
    manifest = a_manifest([records])
    write_bundle(path, manifest, rows_of(manifest, [records]))
    assert verify_bundle_file(path, manifest).rows == sum(counts)
    parquet = pq.ParquetFile(path)
    groups = [parquet.read_row_group(n, columns=["stream_id"]).column(0) for n in range(parquet.num_row_groups)]
    return [(len(group), [streams.index(stream) for stream in group.unique().to_pylist()]) for group in groups]


def test_a_large_partition_has_row_groups_of_its_own(tmp_path: Path) -> None:
    """Who asks for some seconds of one stream fetches one group, since its times are those of that stream."""
    groups = sealed_groups(tmp_path / "bundle", [2, 50, 3, 80])
    assert groups == [(2, [0]), (25, [1]), (25, [1]), (3, [2]), (20, [3]), (20, [3]), (20, [3]), (20, [3])]


def test_small_partitions_share_row_groups_and_none_is_cut(tmp_path: Path) -> None:
    assert sealed_groups(tmp_path / "bundle", [10, 10, 10, 5]) == [(20, [0, 1]), (15, [2, 3])]


def test_a_row_group_of_more_bytes_than_one_may_have_is_refused(tmp_path: Path) -> None:
    records = [a_record(timestamp_ms=GENESIS_MS + i, content=b"[%b%d]" % (b" " * 1_000_000, i)) for i in range(10)]
    manifest = a_manifest([records])
    path = tmp_path / "bundle"
    write_bundle(path, manifest, rows_of(manifest, [records]))
    assert verify_bundle_file(path).rows == 10
    rewrite(path)
    assert "row group 0 column content: more bytes than a row group has" in refusal(lambda: verify_bundle_file(path))


def test_a_dictionary_whose_value_repeats_in_every_row_is_refused_before_it_is_read_out(tmp_path: Path) -> None:
    """Its footer promises 32 kB, the rows are 26 MB. A longer value is refused in the dictionary itself."""
    records = some_records(800)
    manifest = a_manifest([records])
    path = tmp_path / "bundle"
    write_bundle(path, manifest, rows_of(manifest, [records]))
    for size, named in (
        (32_000, "row group 0: more bytes than a row group has"),
        (60_000, "row group 0 column content: a dictionary with a value of 60000 bytes"),
    ):
        text = '"' + "x" * (size - 2) + '"'
        rewrite(path, map_column("content", lambda _, text=text: text))  # type: ignore[misc]
        assert named in refusal(lambda: verify_bundle_file(path))


def test_a_footer_full_of_bytes_that_nobody_asked_for_is_refused(path: Path) -> None:
    """Padding inside the footer: thrift readers skip what follows the last field."""
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    padded = data[:-8] + bytes(32 << 10) + (length + (32 << 10)).to_bytes(4, "little") + b"PAR1"
    path.write_bytes(padded)
    assert "footer: " in refusal(lambda: verify_bundle_file(path))


# --- manifests of strangers -----------------------------------------------------------------------


def wrong_manifests(m: Manifest) -> dict[str, Manifest]:
    digest = m.header.config_digest
    first = m.windows[0].outcome
    forged = certify(first, digest)
    stranger = a_key(200)
    signatures = forged.certificate.signatures
    return {
        "header.config_digest": replace(m, header=replace(m.header, config_digest=type(digest)(bytes(32)))),
        "header.last_ms": replace(m, header=replace(m.header, last_ms=m.header.last_ms + WINDOW_MS)),
        "outcome window": replace(m, windows=(m.windows[0], m.windows[0])),
        "manifest.codec_versions": replace(m, codec_versions=(1,)),
        "2 signers where 3 are needed": with_certificate(m, 0, certify(first, digest, MEMBERS[:2])),
        "is not in the committee": with_certificate(m, 0, certify(first, digest, (*MEMBERS[:2], stranger))),
        "not of the named signer": with_certificate(
            m, 0, replace(forged, certificate=replace(forged.certificate, round=1))
        ),
        "another outcome": with_certificate(
            m, 0, replace(forged, certificate=certify(an_outcome(first.instance, []), digest).certificate)
        ),
        "another config digest": with_certificate(m, 0, certify(first, type(digest)(b"\x01" * 32))),
        "a certificate is of precommits": with_certificate(
            m, 0, replace(forged, certificate=replace(forged.certificate, kind=type(forged.certificate.kind)(3)))
        ),
        "certificate window": with_certificate(
            m,
            0,
            replace(
                forged,
                certificate=replace(
                    forged.certificate, signatures=((signatures[0][0], signatures[1][1]), *signatures[1:])
                ),
            ),
        ),
    }


@pytest.mark.parametrize("named", list(wrong_manifests(a_manifest([[], []]))))
def test_a_manifest_with_anything_wrong_in_it_is_refused(path: Path, manifest: Manifest, named: str) -> None:
    wrong = wrong_manifests(manifest)[named]
    if named == "outcome window":  # counts stay the same, so that the check of windows is reached
        wrong = replace(
            manifest, windows=manifest.windows, header=replace(manifest.header, first_ms=1, last_ms=1 + WINDOW_MS)
        )
    rewrite(path, keys={MANIFEST_KEY: pack(encode_manifest(wrong))})
    assert named in refusal(lambda: verify_bundle_file(path))


def test_a_sound_manifest_that_is_not_the_agreed_one_is_refused(path: Path, manifest: Manifest) -> None:
    other = replace(manifest, header=replace(manifest.header, number=1))
    assert "manifest.header: not the one that is agreed" in refusal(lambda: verify_bundle_file(path, other))


def test_a_certificate_of_other_signers_is_the_same_manifest(manifest: Manifest) -> None:
    window = manifest.windows[0].outcome
    other = with_certificate(manifest, 0, certify(window, manifest.header.config_digest, MEMBERS[1:], deciding_round=2))
    assert encode_manifest(other) != encode_manifest(manifest)
    check_same_manifest(other, manifest)
