"""Any records, however they fall into windows and the late set, come back from the file; any damage is noticed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import GENESIS_MS, a_key, a_record, a_stream_id
from tests.bundle_builder import WINDOW_MS, a_manifest, rows_of
from tests.bundle_reader import read_records
from validator.protocol.codec.bundle_file import verify_bundle_file, write_bundle
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Manifest, MessageRef, Record

EARLIEST_MS = GENESIS_MS - 3 * WINDOW_MS


@st.composite
def records(draw: st.DrawFn) -> Record:
    timestamp = draw(st.integers(EARLIEST_MS, GENESIS_MS + 2 * WINDOW_MS - 1))
    prev = draw(st.none() | st.builds(MessageRef, st.integers(0, EARLIEST_MS - 1), st.integers(0, 2**31 - 1)))
    return a_record(
        a_key(draw(st.integers(1, 3))),
        stream_id=a_stream_id(draw(st.integers(1, 2)), draw(st.sampled_from(["a", "b/ü"]))),
        partition=draw(st.integers(0, 99)),
        timestamp_ms=timestamp,
        sequence_number=draw(st.integers(0, 2**31 - 1)),
        prev=prev,
        msg_chain_id=draw(st.text(max_size=20)),
        content=draw(st.text(max_size=40)).lstrip("\ufeff").encode() or b"{}",  # type 0 carries no byte order mark
    )


Bundle = tuple[list[list[Record]], list[Record]]


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    """Two windows and a late set; a message before the first window can only be late."""
    windows: list[list[Record]] = [[], []]
    late = []
    for record in draw(st.lists(records(), max_size=12, unique_by=lambda r: r.order)):
        index = (record.message.timestamp_ms - GENESIS_MS) // WINDOW_MS
        if index < 0 or draw(st.booleans()):
            late.append(record)
        else:
            windows[index].append(record)
    return windows, late


def write(folder: str, bundle: Bundle) -> tuple[Path, Manifest]:
    windows, late = bundle
    manifest = a_manifest(windows, late)
    path = Path(folder) / "bundle"
    write_bundle(path, manifest, rows_of(manifest, windows, late))
    return path, manifest


@given(bundle=bundles())
def test_whatever_is_written_is_read_back_and_verifies(bundle: Bundle) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, manifest = write(folder, bundle)
        assert list(read_records(path, manifest)) == rows_of(manifest, *bundle)
        assert verify_bundle_file(path, manifest).rows == sum(map(len, (*bundle[0], bundle[1])))


@given(bundle=bundles(), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_file_with_a_flipped_bit_is_refused_or_still_says_the_same(bundle: Bundle, place: float, bit: int) -> None:
    """Some bits of a header mean nothing to a reader; none may change a record."""
    with tempfile.TemporaryDirectory() as folder:
        path, manifest = write(folder, bundle)
        data = bytearray(path.read_bytes())
        data[int(place * len(data))] ^= 1 << bit
        path.write_bytes(data)
        try:
            verified = verify_bundle_file(path, manifest)
        except (MalformedInput, MemoryError):
            return
        assert list(read_records(path, verified.manifest)) == rows_of(manifest, *bundle)
