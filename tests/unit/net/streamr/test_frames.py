"""Frames cut anywhere are the same frames; what is too long or cut short is refused before it is read."""

from __future__ import annotations

import pytest

from validator.net.streamr.frames import (
    MAX_FRAME_BYTES,
    PARTS_PER_FRAME,
    FrameReader,
    Kind,
    Refused,
    State,
    read_count,
    read_message,
    read_part,
    read_parts,
    read_state,
    write_count,
    write_frame,
    write_message,
    write_parts,
    write_state,
)
from validator.ports.bus import Delivered
from validator.protocol.errors import MalformedInput

PART = ("0x00/größe", 7)


@pytest.mark.parametrize("size", [1, 3, 5, 1000])
def test_frames_are_the_same_however_their_bytes_arrive(size: int) -> None:
    stream = write_message(Kind.MESSAGE, PART, b"data" * 30) + write_frame(Kind.INFO) + write_count(1 << 40)
    reader = FrameReader()
    frames: list[tuple[int, bytes]] = []
    for at in range(0, len(stream), size):
        frames += reader.feed(stream[at : at + size])
    assert [kind for kind, _ in frames] == [Kind.MESSAGE, Kind.INFO, Kind.DROPPED]
    assert read_message(frames[0][1]) == Delivered(PART, b"data" * 30)
    assert read_count(frames[2][1]) == 1 << 40


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1, (1 << 32) - 1])
def test_a_length_out_of_bounds_is_refused_at_its_four_bytes(length: int) -> None:
    with pytest.raises(MalformedInput, match="frame"):
        list(FrameReader().feed(length.to_bytes(4, "big")))


def test_many_parts_travel_in_several_frames_and_come_back() -> None:
    parts = [(f"0x00/{number}", number % 100) for number in range(2 * PARTS_PER_FRAME + 1)]
    bodies = write_parts(parts)
    assert len(bodies) == 3
    assert [part for body in bodies for part in read_parts(body)] == parts


def test_the_longest_stream_ids_never_make_a_frame_too_long() -> None:
    parts = [("x" * 4090 + f"{number:06d}", 0) for number in range(PARTS_PER_FRAME + 20)]
    bodies = write_parts(parts)
    assert len(bodies) > 1
    assert all(len(write_frame(Kind.JOIN, body)) <= MAX_FRAME_BYTES + 4 for body in bodies)


@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"\0\0\0", b"\0\5ab", b"\0\2ab", b"\0\2ab\x64", b"\0\1\xff\0"],
    ids=["empty", "half a length", "no name", "name cut", "no partition", "partition 100", "no UTF-8"],
)
def test_a_part_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedInput):
        read_part(body)


def test_states_come_back_and_other_json_is_refused() -> None:
    state = State("ab" * 20, parts=3, waiting=1, lonely=2, buffered=77, refused=[Refused("0x00/a", 1, "full")])
    ((kind, body),) = FrameReader().feed(write_state(state))
    assert (kind, read_state(body)) == (Kind.STATE, state)
    for wrong in (b"", b"[]", b'{"parts":"many"}'):
        with pytest.raises(MalformedInput):
            read_state(wrong)
    with pytest.raises(MalformedInput):
        read_count(b"\0" * 7)
