"""Bodies one behind the other, each after its length in 4 bytes, big-endian: raw answers since 2024, and ``/v1``."""

from __future__ import annotations

from collections.abc import Iterator

from validator.protocol.errors import MalformedInput

LENGTH_BYTES = 4


def write_frame(body: bytes) -> bytes:
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def find_frame_end(buffer: bytes | bytearray, at: int, most: int) -> int | None:
    """Where the frame that begins at ``at`` ends; None while it is not whole.

    Raises:
        MalformedInput: "frame": a body of more than ``most`` bytes.
    """
    begin = at + LENGTH_BYTES
    if len(buffer) < begin:
        return None
    size = int.from_bytes(buffer[at:begin], "big")
    if size > most:
        raise MalformedInput("frame", f"{size} bytes exceed the limit of {most}")
    return None if len(buffer) - begin < size else begin + size


def take_frames(buffer: bytearray, most: int) -> Iterator[bytes]:
    """The bodies of the frames that are there whole; at the end they are cut off, and the buffer begins with the rest.

    Raises:
        MalformedInput: as ``find_frame_end``.
    """
    at = 0
    while (end := find_frame_end(buffer, at, most)) is not None:
        yield bytes(buffer[at + LENGTH_BYTES : end])
        at = end
    del buffer[:at]


def split_frames(data: bytes, most: int) -> Iterator[bytes]:
    """The same of data that are all there; what ends within a frame just ends."""
    return take_frames(bytearray(data), most)
