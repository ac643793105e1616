"""What a broker holds: every distinct record, in order, whatever it claims."""

from __future__ import annotations

import json
from random import Random

import pytest

from tests.builders import a_key, a_message
from tests.fakes.message_cache import MessageCache, Range, tag_of
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.received import PROTOBUF
from validator.protocol.errors import MalformedInput

PART = ("s.eth/a", 0)
ALL = Range(0, 10_000)


def line(ms: int, sequence: int = 0, publisher: str = "0xaa", chain: str = "c", more: str = "x") -> bytes:
    return json.dumps([32, [PART[0], PART[1], ms, sequence, publisher, chain], None, more]).encode()


def held(cache: MessageCache, wanted: Range = ALL) -> list[bytes]:
    return [record[5] for record in cache.select(PART, wanted)]


def test_answers_are_sorted_by_time_sequence_publisher_and_chain() -> None:
    lines = [
        line(1),
        line(1, 1),
        line(2, 0, "0xaa", "b"),
        line(2, 0, "0xaa", "c"),
        line(2, 0, "0xbb", "a"),
        line(2, 3),
        line(9),
        line(10),
    ]
    cache = MessageCache()
    for item in Random(1).sample(lines, len(lines)):
        cache.add(item)
    assert held(cache) == lines


def test_a_forged_copy_neither_replaces_nor_hides_the_true_one() -> None:
    cache = MessageCache()
    copies = [line(5, more="true"), line(5, more="forged"), line(5, more="another")]
    assert [cache.add(copy)[1] for copy in copies] == [True, True, True]
    assert [cache.add(copy)[1] for copy in copies] == [False, False, False]
    assert sorted(held(cache)) == sorted(copies)
    assert cache.count() == 3


def test_both_ends_of_a_range_are_inside_it() -> None:
    cache = MessageCache()
    lines = [line(ms, sequence) for ms in range(1, 5) for sequence in range(3)]
    for item in lines:
        cache.add(item)
    assert held(cache, Range(2, 3)) == lines[3:9]
    assert held(cache, Range(2, 3, from_sequence=1, to_sequence=1)) == lines[4:8]
    assert held(cache, Range(4, 4)) == lines[9:]
    assert held(cache, Range(5, 4)) == []


def test_a_publisher_and_a_chain_can_be_asked_for() -> None:
    cache = MessageCache()
    lines = [line(1, 0, "0xAA", "c"), line(2, 0, "0xbb", "c"), line(3, 0, "0xaa", "d")]
    for item in lines:
        cache.add(item)
    assert held(cache, Range(0, 9, publisher_id="0xaa")) == [lines[0], lines[2]]
    assert held(cache, Range(0, 9, publisher_id="0xaa", msg_chain_id="d")) == [lines[2]]


def test_the_entity_tag_of_a_range_changes_with_each_arrival_inside_it_and_no_other() -> None:
    cache = MessageCache()

    def tag() -> str:
        return tag_of("boot", cache.select(PART, Range(10, 20)))

    seen = [tag()]
    for item, inside in [(line(10), True), (line(9), False), (line(20), True), (line(21), False), (line(10), False)]:
        cache.add(item)
        assert (tag() != seen[-1]) is inside
        seen.append(tag())
    assert tag_of("boot", []) != tag_of("other boot", [])


@pytest.mark.parametrize(
    "bad", [b"", b"{}", b"[32]", b"[32,[]]", b'["32",["a",0,1,0,"p","c"]]', b'[32,["a",0,1.5,0,"p","c"]]', b"[32,[\xff"]
)
def test_a_line_that_cannot_be_placed_is_refused(bad: bytes) -> None:
    cache = MessageCache()
    with pytest.raises(MalformedInput):
        cache.add(bad)
    assert cache.count() == 0


def test_a_lone_surrogate_is_no_reason_to_refuse_a_line() -> None:
    cache = MessageCache()
    odd = line(7).replace(b'"x"', b'"\\ud800"')
    assert cache.add(odd)[1]
    assert held(cache) == [odd]


def test_the_last_records_come_oldest_first() -> None:
    cache = MessageCache()
    for ms in (3, 1, 2):
        cache.add(line(ms))
    assert [record[0] for record in cache.last(PART, 2)] == [2, 3]
    assert cache.last(PART, 0) == ()
    assert cache.last(("other", 1), 5) == ()


def test_frames_are_placed_by_their_message_id() -> None:
    cache = MessageCache(PROTOBUF)
    bodies = [write_protobuf(a_message(a_key(1), timestamp_ms=ms, stream_id=PART[0])) for ms in (9, 3, 5)]
    assert [cache.add(body)[1] for body in bodies] == [True] * 3
    assert held(cache) == [bodies[1], bodies[2], bodies[0]]
    with pytest.raises(MalformedInput):
        cache.add(line(1))
