"""Which row groups of a bundle's file can hold rows of a stream partition and a span of time, by its footer alone."""

from __future__ import annotations

from validator.protocol.codec.parquet_footer import Footer, Group
from validator.protocol.model import StreamPart


def choose_groups(footer: Footer, part: StreamPart, from_ms: int, until_ms: int) -> list[int]:
    """Numbers of the groups, ascending. Bounds that a footer does not tell exclude nothing."""
    wanted = (part[0].encode(), part[0].encode()), (part[1], part[1])
    found = []
    for number, group in enumerate(footer.groups):
        parts = _bounds(group, "stream_id"), _number_bounds(group, "partition")
        holds_part = all(_overlap(known, asked) for known, asked in zip(parts, wanted, strict=True))
        if holds_part and _overlap(_number_bounds(group, "timestamp"), (from_ms, until_ms - 1)):
            found.append(number)
    return found


def group_bytes(group: Group) -> tuple[int, int]:
    """Where a group begins and ends in the file."""
    last = group.chunks[-1]
    return group.chunks[0].start, last.start + last.compressed_bytes


def _overlap(known: tuple[object, object] | None, asked: tuple[object, object]) -> bool:
    return known is None or (known[0] <= asked[1] and asked[0] <= known[1])  # type: ignore[operator]


def _bounds(group: Group, name: str) -> tuple[bytes, bytes] | None:
    told = next(chunk for chunk in group.chunks if chunk.name == name).statistics or {}
    low, high = told.get("min_value", told.get("min")), told.get("max_value", told.get("max"))
    return (low, high) if isinstance(low, bytes) and isinstance(high, bytes) else None


def _number_bounds(group: Group, name: str) -> tuple[int, int] | None:
    found = _bounds(group, name)
    if found is None:
        return None
    low, high = (int.from_bytes(value, "little", signed=True) for value in found)
    return low, high
