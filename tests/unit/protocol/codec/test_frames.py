from __future__ import annotations

import pytest

from validator.protocol.codec.frames import split_frames, take_frames, write_frame
from validator.protocol.errors import MalformedInput

BODIES = [b"one", b"", b"three" * 100]
DATA = b"".join(map(write_frame, BODIES))


def test_whole_frames_are_taken_off_however_they_come() -> None:
    for size in (1, 3, 7, len(DATA)):
        buffer = bytearray()
        taken: list[bytes] = []
        for at in range(0, len(DATA), size):
            buffer += DATA[at : at + size]
            taken += take_frames(buffer, 500)
        assert taken == BODIES
        assert not buffer


def test_what_is_not_whole_stays() -> None:
    buffer = bytearray(DATA[:-1])
    assert list(take_frames(buffer, 500)) == BODIES[:2]
    assert buffer == write_frame(BODIES[2])[:-1]
    assert list(split_frames(DATA[:-1], 500)) == BODIES[:2]


def test_a_frame_that_is_too_long_is_refused_behind_those_before_it() -> None:
    taken: list[bytes] = []
    with pytest.raises(MalformedInput, match="frame: 500 bytes exceed the limit of 499"):
        for body in take_frames(bytearray(DATA), 499):
            taken.append(body)
    assert taken == BODIES[:2]
