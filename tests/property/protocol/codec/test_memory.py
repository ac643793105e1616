"""Parsers of strangers' bytes keep nothing: mutated vectors, again and again, and memory stays where it was."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable

import pytest

from tests.builders import a_record
from validator.net.brokers.pages import read_frames, read_lines
from validator.protocol.codec.legacy_array import read_legacy_array, write_legacy_array
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.codec.protobuf import read_protobuf, write_protobuf
from validator.protocol.errors import MalformedInput

RECORD = a_record()
ARRAY = write_legacy_array(RECORD.message)
PROTOBUF = write_protobuf(RECORD.message)
PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "array": (read_legacy_array, ARRAY),
    "protobuf": (read_protobuf, PROTOBUF),
    "canonical": (record_from_canonical, RECORD.canonical),
    "lines": (lambda data: read_lines([data], lambda *_: None), ARRAY + b'\n{"hasNext":false,"type":"metadata"}'),
    "frames": (lambda data: read_frames([data], lambda *_: None), len(PROTOBUF).to_bytes(4, "big") + PROTOBUF),
}


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Some bytes flipped, a stretch doubled or cut."""
    out = bytearray(data)
    for _ in range(rng.randrange(4)):
        out[rng.randrange(len(out))] = rng.randrange(256)
    start, length = rng.randrange(len(out)), rng.randrange(40)
    if rng.random() < 0.3:
        out[start:start] = out[start : start + length]
    elif rng.random() < 0.3:
        del out[start : start + length]
    return bytes(out)


@pytest.mark.parametrize("name", PARSERS)
def test_no_parser_keeps_what_it_was_given(name: str) -> None:
    parse, good = PARSERS[name]
    rng = random.Random(name)

    def round_of_parsing(times: int) -> int:
        read = 0
        for _ in range(times):
            try:
                parse(mutate(rng, good))
                read += 1
            except MalformedInput as error:
                assert error.reason
        return read

    assert 0 < round_of_parsing(5_000) < 5_000  # remembered stream ids, publishers and chains are full from here on
    gc.collect()
    tracemalloc.start()
    try:
        round_of_parsing(1_000)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        round_of_parsing(3_000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 256 << 10
