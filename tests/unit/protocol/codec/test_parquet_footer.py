"""Footers of strangers: whatever a bundle's file does not have is refused before any library sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import some_records
from tests.bundle_builder import a_manifest, rows_of
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.bundle_front import MANIFEST_KEY
from validator.protocol.codec.bundle_schema import COLUMNS
from validator.protocol.codec.parquet_footer import parse_footer
from validator.protocol.errors import MalformedInput


@pytest.fixture(scope="module")
def footer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The footer of a bundle of three messages."""
    records = some_records(3)
    manifest = a_manifest([records])
    path: Path = tmp_path_factory.mktemp("footer") / "bundle"
    write_bundle(path, manifest, rows_of(manifest, [records]))
    data = path.read_bytes()
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


def test_a_bundles_own_footer_is_read(footer: bytes) -> None:
    found = parse_footer(footer)
    assert (found.rows, tuple(c.name for c in found.columns), [key for key, _ in found.keys]) == (
        3,
        COLUMNS,
        [MANIFEST_KEY],
    )
    assert [chunk.name for chunk in found.groups[0].chunks] == list(COLUMNS)
    statistics = found.groups[0].chunks[1].statistics
    assert statistics is not None
    assert (statistics["min_value"], statistics["null_count"]) == (bytes(4), 0)


def swap(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: b"", "footer: cut short"),
        (lambda d: d[:-1], "footer: cut short"),
        (lambda d: d + b"\0", "footer: 1 trailing bytes"),
        (lambda d: b"\x15\x0e" + d[2:], "footer.version: unknown"),
        (lambda d: b"\x15\x84\x00" + d[2:], "footer: an integer that is not minimal"),
        (lambda d: b"\x15" + b"\xff" * 9 + b"\x01" + d[2:], "footer: an integer of more than 32 bits"),
        (lambda d: b"\x15" + b"\xff" * 11 + d[2:], "footer: an integer of more than 64 bits"),
        (lambda d: b"\x16" + d[1:], "footer.version: not of type i32"),
        (lambda d: d[:2] + b"\x05\x02" + d[2:], "footer: fields out of order, or one twice"),
        (lambda d: d[:2] + b"\x19\xfc\xff\xff\x7f" + d[3:], "footer.schema: too many items"),
        (lambda d: d[:-1] + b"\x1c\x00\x00", "footer: has encryption, which a bundle does not have"),
        (lambda d: d[:-1] + b"\x55\x00\x00", "footer: has a field 12, which a bundle does not have"),
        (swap(b"\x06schema", b"\x86schema"), "footer"),
        (swap(b"\x09stream_id", b"\x09\xfftream_id"), "schema: a name that is not UTF-8"),
    ],
)
def test_anything_else_is_refused_by_name(footer: bytes, change: Callable[[bytes], bytes], named: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        parse_footer(change(footer))
    assert named in str(caught.value)


def test_every_prefix_of_a_footer_is_refused(footer: bytes) -> None:
    for size in range(0, len(footer), 7):
        with pytest.raises(MalformedInput):
            parse_footer(footer[:size])
