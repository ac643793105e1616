"""The quick way through plain arrays gives what the general way gives, or leaves the line to it."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests import paths
from tests.builders import GENESIS_MS, a_key, a_message, a_stream_id
from validator.protocol.codec.legacy_array import read_legacy_array, write_legacy_array
from validator.protocol.codec.limits import MAX_CONTENT_BYTES
from validator.protocol.codec.message import record_of_read
from validator.protocol.codec.plain_arrays import read_plain
from validator.protocol.codec.secp256k1 import HALF_ORDER
from validator.protocol.codec.signatures import publish_message
from validator.protocol.errors import MalformedInput
from validator.protocol.model import EncryptionType, MessageRef, Record, StreamPart

PART: StreamPart = (a_stream_id(), 0)
FROM_MS, UNTIL_MS, LIMIT = 0, 1 << 53, 1 << 21
_FILE = (paths.VECTORS / "streamr.jsonl").read_text().split("\n")
VECTORS = [
    vector for vector in map(json.loads, filter(None, _FILE)) if vector["format"] == "legacy-json" and vector["decoded"]
]
ORDER = 2 * HALF_ORDER + 1


def read_generally(line: bytes) -> Record | None:
    try:
        return record_of_read(read_legacy_array(line))
    except MalformedInput:
        return None


def assert_same(lines: list[bytes], part: StreamPart = PART) -> list[int]:
    """Numbers of the lines that are plain: each equals its record."""
    plain = read_plain(part, lines, FROM_MS, UNTIL_MS, LIMIT)
    for at, number in enumerate(plain.numbers):
        record = read_generally(lines[number])
        assert record is not None
        message, chain = record.message, plain.chains[at]
        assert chain.stream_part == message.stream_part == part
        assert chain.publisher_id == message.publisher_id
        assert chain.msg_chain_id == message.msg_chain_id.encode()
        assert plain.timestamps_ms[at] == message.timestamp_ms
        assert plain.sequence_numbers[at] == message.sequence_number
        assert plain.canonical[at] == record.canonical
        assert plain.leaves[at] == record.leaf
        assert plain.digests[at] == record.signed_digest
        assert plain.signed_sizes[at] == record.signed_bytes
        assert plain.signatures[at] == message.signature
        assert max(len(record.canonical), record.signed_bytes) < len(lines[number])
    return list(plain.numbers)


def an_array(**changes: Any) -> list[Any]:
    """A signed array with elements replaced: names of the id by name, others by their place."""
    array: list[Any] = json.loads(write_legacy_array(a_message(stream_id=PART[0], prev=MessageRef(GENESIS_MS - 5, 3))))
    names = ["stream_id", "partition", "timestamp", "sequence_number", "publisher_id", "msg_chain_id"]
    others = ["prev", "message_type", "content_type", "encryption", "key_id", "content", "new_key", "kind", "signature"]
    for name, value in changes.items():
        if name in names:
            array[1][names.index(name)] = value
        elif name == "version":
            array[0] = value
        else:
            array[2 + others.index(name)] = value
    return array


def as_line(array: Any) -> bytes:
    return json.dumps(array, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


SIGNATURE = an_array()[10]
HIGH_S = "0x" + SIGNATURE[2:66] + f"{ORDER - int(SIGNATURE[66:130], 16):064x}" + "1b"
ODD: dict[str, list[Any]] = {
    "version": [31, 33, 32.0, True, "32"],
    "stream_id": ["", "x", "/x", PART[0].upper(), PART[0] + "é", "sandbox/x"],
    "partition": [1, 99, 100, -1, 0.0, "0"],
    "timestamp": [0, (1 << 32) - 1, 1 << 32, (1 << 53) - 1, 1 << 53, 1 << 70, -1, 1.5],
    "sequence_number": [1, 255, 256, 257, 1023, 1024, 65_535, 65_536, (1 << 31) - 1, 1 << 31, -1],
    "publisher_id": ["", "0x", "0x" + "AB" * 20, "0X" + "ab" * 20, "ab" * 20, "0x" + "g0" * 20],
    "msg_chain_id": ["", "é" * 128, "é" * 129, "x" * 256, "x" * 257, 'a"b\\'],
    "prev": [None, [0, 0], [GENESIS_MS, 0], [GENESIS_MS + 1, 0], [1 << 32, 1 << 31], [1 << 32, 5], [-1, 0], [1], []],
    "message_type": [28, 29, 30, 0],
    "content_type": [1],
    "encryption": [1, 2, 3],
    "key_id": ["", "k", "k" * 300],
    "content": ["", "\ufeff", "\ufeffx", "é", "00ff", "00FF", "0", "x" * 23, "x" * 4095, "x" * 4096, "x" * 70_000],
    "new_key": ['["k","00"]', '["k", "00"]', "x"],
    "kind": [0, 1, 3],
    "signature": [
        None,
        "",
        "0x",
        SIGNATURE[2:],
        "0X" + SIGNATURE[2:],
        SIGNATURE.upper(),
        SIGNATURE[:-2] + "1d",
        SIGNATURE[:-1],
        SIGNATURE + "00",
        "0x" + "é" * 130,
        "0x" + "0" * 130,
        HIGH_S,
    ],
}


def test_every_odd_element_is_read_the_same_or_left() -> None:
    lines = [as_line(an_array(**{name: value})) for name, values in ODD.items() for value in values]
    assert 0 < len(assert_same(lines)) < len(lines)


@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in ODD.items()}))
def test_odd_elements_together_are_read_the_same_or_left(changes: dict[str, Any]) -> None:
    assert_same([as_line(an_array(**changes))])


@given(
    st.text(max_size=40, alphabet=st.characters(exclude_categories=["Cs"])),
    st.text(min_size=1, max_size=400, alphabet=st.characters(exclude_categories=["Cs"])),
    st.integers(1 << 32, (1 << 53) - 1),
    st.integers(0, (1 << 31) - 1),
    st.one_of(st.none(), st.tuples(st.integers(1 << 32, (1 << 53) - 1), st.integers(0, (1 << 31) - 1))),
)
def test_any_text_is_plain_and_read_the_same(
    chain: str, content: str, timestamp_ms: int, sequence_number: int, prev: tuple[int, int] | None
) -> None:
    line = as_line(
        an_array(
            msg_chain_id=chain, content=content, timestamp=timestamp_ms, sequence_number=sequence_number, prev=prev
        )
    )
    refused = prev is not None and prev >= (timestamp_ms, sequence_number)
    refused |= content.startswith("\ufeff") or len(chain.encode()) > 256
    assert assert_same([line]) == ([] if refused else [0])


@given(st.binary(min_size=1, max_size=300), st.text(max_size=30, alphabet="abc-é"))
def test_ciphertext_in_lower_case_hex_is_plain(ciphertext: bytes, key_id: str) -> None:
    message = publish_message(
        a_key(1),
        stream_id=PART[0],
        timestamp_ms=GENESIS_MS,
        content=ciphertext,
        encryption_type=EncryptionType.AES,
        group_key_id=key_id,
    )
    assert assert_same([write_legacy_array(message)]) == [0]


@given(st.integers(0, 2**32), st.integers(0, 5))
def test_mutated_bytes_are_read_the_same_or_left(seed: int, flips: int) -> None:
    rng = random.Random(seed)
    lines = [(vector["serialized"].encode(), vector["decoded"]) for vector in VECTORS]
    for whole, decoded in [*lines, (as_line(an_array()), {"streamId": PART[0], "streamPartition": 0})]:
        line = bytearray(whole)
        for _ in range(flips):
            line[rng.randrange(len(line))] = rng.choice(b'0123456789abcdefxX[],"\\ -.\x00\xff')
        assert_same([bytes(line)], (decoded["streamId"], decoded["streamPartition"]))


def test_a_good_part_of_the_vectors_is_plain() -> None:
    plain = [
        vector["id"]
        for vector in VECTORS
        if assert_same([vector["serialized"].encode()], (vector["decoded"]["streamId"], 0))
    ]
    assert len(plain) >= 20


def test_what_is_outside_is_left_to_the_general_way() -> None:
    line = as_line(an_array())
    other = (PART[0], 1)
    for part, from_ms, until_ms, limit, plain in (
        (PART, GENESIS_MS, GENESIS_MS + 1, len(line), True),
        (other, GENESIS_MS, GENESIS_MS + 1, len(line), False),
        (PART, GENESIS_MS + 1, GENESIS_MS + 2, len(line), False),
        (PART, GENESIS_MS - 1, GENESIS_MS, len(line), False),
        (PART, GENESIS_MS, GENESIS_MS + 1, len(line) - 1, False),
    ):
        for lines in ([line], [line, b"[]"]):  # alone it is seen with its columns, beside another by itself
            assert list(read_plain(part, lines, from_ms, until_ms, limit).numbers) == ([0] if plain else [])


def test_one_line_that_is_not_plain_leaves_the_others_plain() -> None:
    lines = [as_line(an_array(timestamp=GENESIS_MS + n)) for n in range(9)]
    for odd in (
        b"",
        b"x",
        as_line(an_array(kind=1)),
        as_line(an_array(signature=HIGH_S)),
        as_line(an_array(partition=1)),
    ):
        for place in (0, 4, 9):
            mixed = [*lines[:place], odd, *lines[place:]]
            assert assert_same(mixed) == [n for n in range(10) if n != place]


def test_a_line_longer_than_any_content_is_left() -> None:
    rest = len(as_line(an_array(content="")))
    longest, longer = (as_line(an_array(content="x" * (MAX_CONTENT_BYTES - rest + more))) for more in (0, 1))
    assert assert_same([longest, longer]) == [0]
