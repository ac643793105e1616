"""The pages of a bundle's columns before a library unpacks them: headers are walked, dictionaries measured.

A footer's sizes are claims: the library allocates what a page's own header says, and repeats a dictionary's value for
every row. So the pages of a chunk must fill it exactly, packed and unpacked, and no value of a dictionary may be
longer than its column's values are. With that, what a batch of rows can take is known before it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import zstandard

from validator.protocol.codec.limits import MAX_ID_BYTES, MAX_NEW_KEY_BYTES, MAX_SIGNATURE_BYTES
from validator.protocol.codec.parquet_footer import STATISTICS, Chunk
from validator.protocol.codec.publisher_text import MAX_TEXT_BYTES
from validator.protocol.codec.thrift import Kind, ThriftReader
from validator.protocol.errors import MalformedInput, require

MAX_HEADER_BYTES = 8 << 10
"""Bound of a page's header: a few numbers, and the statistics of a page of ids."""
LONGEST = {
    "stream_id": MAX_ID_BYTES,
    "msg_chain_id": MAX_ID_BYTES,
    "group_key_id": MAX_ID_BYTES,
    "new_group_key_id": MAX_ID_BYTES,
    "new_group_key": MAX_NEW_KEY_BYTES,
    "publisher_id": MAX_TEXT_BYTES,
    "content": 32 << 10,
    "content_bytes": 32 << 10,
    "signature": MAX_SIGNATURE_BYTES,
}
"""Columns whose values have a length, and how long one may be in a dictionary.

We give contents no dictionary, but other programs do, where they are short.
"""
_DATA, _DICTIONARY = 0, 2
_OWN = {_DATA: "data", _DICTIONARY: "dictionary"}
_PLAIN, _PLAIN_DICTIONARY, _RLE = 0, 2, 3
_ENCODINGS = (_PLAIN, _PLAIN_DICTIONARY, _RLE, 5, 8)
"""Plain, dictionaries, and those whose output is as long as their values are many; never one that repeats prefixes."""
_PAGE: Kind = {
    1: ("type", "i32"),
    2: ("unpacked", "i32"),
    3: ("packed", "i32"),
    5: (
        "data",
        {
            1: ("values", "i32"),
            2: ("encoding", "i32"),
            3: ("definition_encoding", "i32"),
            4: ("repetition_encoding", "i32"),
            5: ("statistics", STATISTICS),
        },
    ),
    7: ("dictionary", {1: ("values", "i32"), 2: ("encoding", "i32"), 3: ("is_sorted", "bool")}),
}

Read = Callable[[int, int], bytes]
"""Bytes of the file, by start and size; fewer at its end."""


def check_pages(read: Read, chunk: Chunk, what: str) -> int:
    """Walk the pages of a chunk; bytes of the longest value in its dictionary, which may repeat in every row.

    Raises:
        MalformedInput: a page that the format does not have, sizes or counts that are not the footer's, statistics that
            are not the chunk's, or a dictionary with a value that is too long.
    """
    at, end = chunk.start, chunk.start + chunk.compressed_bytes
    read = _read_ahead(read, at, min(chunk.compressed_bytes, 2 * MAX_HEADER_BYTES))
    unpacked = values = longest = 0
    has_data = False
    counts: dict[tuple[int, int], int] = {}
    while at < end:
        page, size = _read_header(read(at, min(end - at, MAX_HEADER_BYTES)), what)
        require(page["packed"] <= end - at - size, what, "a page that ends behind its column")
        unpacked += size + page["unpacked"]
        require(unpacked <= chunk.uncompressed_bytes, what, "its pages are larger than its footer says")
        if page["type"] == _DICTIONARY:
            require(at == chunk.start != chunk.data_start, what, "a dictionary where none belongs")
            longest = _check_dictionary(read(at + size, page["packed"]), page, chunk, what)
        else:
            require(has_data or at == chunk.data_start, what, "its data begins elsewhere")
            has_data = True
            values += _check_data(page, chunk, what)
        kind = page["type"], page[_OWN[page["type"]]]["encoding"]
        counts[kind] = counts.get(kind, 0) + 1
        at += size + page["packed"]
    require(unpacked == chunk.uncompressed_bytes, what, "its pages are smaller than its footer says")
    require(values == chunk.values, what, "its pages have another number of values than its footer says")
    require(chunk.page_counts in (None, counts), what, "its pages are not those that its footer counts")
    used = {encoding for _, encoding in counts}
    require(used <= chunk.encodings <= used | {_PLAIN, _RLE}, what, "its encodings are not those of its pages")
    return longest


def _read_ahead(read: Read, start: int, size: int) -> Read:
    """``read``, with so many bytes read already: a small column whole, of a large one its dictionary."""
    known = read(start, size)
    end = start + len(known)

    def read_on(at: int, size: int) -> bytes:
        return known[at - start : at - start + size] if at + size <= end else read(at, size)

    return read_on


def _read_header(data: bytes, what: str) -> tuple[dict[str, Any], int]:
    """A page's header, and its size."""
    where = f"{what} page"
    reader = ThriftReader(data, where, max_items=0)
    page = reader.struct(_PAGE, where)
    for name in ("type", "unpacked", "packed"):
        if page.get(name, -1) < 0:
            raise MalformedInput(where, f"without {name}, or a negative one")
    require(page["type"] in _OWN, where, "of another type")
    own = _OWN[page["type"]]
    require(own in page and ("dictionary" in page) != ("data" in page), where, "with a header of another type")
    require(page[own].get("values", -1) >= 0, where, "without a count, or a negative one")
    return page, reader.position


def _check_data(page: Mapping[str, Any], chunk: Chunk, what: str) -> int:
    """Number of values of a page of data."""
    data = page["data"]
    levels = (data.get("definition_encoding"), data.get("repetition_encoding"))
    require(data.get("encoding") in _ENCODINGS and levels == (_RLE, _RLE), f"{what} page", "in an unknown encoding")
    told = data.get("statistics", {})
    if told:
        known = chunk.statistics or {}
        require(data["values"] == chunk.values, f"{what} page", "one of several, with statistics")
        for name, value in told.items():
            require(known.get(name) == value, f"{what} page", f"its {name} is not its column's")
    values: int = data["values"]
    return values


def _check_dictionary(packed: bytes, page: Mapping[str, Any], chunk: Chunk, what: str) -> int:
    """A dictionary of no more values than rows, none of them longer than any of the column may be; the longest."""
    head = page["dictionary"]
    require(head["values"] <= chunk.values, what, "a dictionary of more values than rows")
    require(head.get("encoding") in (_PLAIN, _PLAIN_DICTIONARY), what, "a dictionary in an unknown encoding")
    require(not head.get("is_sorted", False), what, "a dictionary with a declared order")
    if chunk.name not in LONGEST:
        return 0
    data = _unpack(packed, page["unpacked"], what)
    at = longest = 0
    for _ in range(head["values"]):
        size = int.from_bytes(data[at : at + 4], "little")
        require(size <= LONGEST[chunk.name], what, f"a dictionary with a value of {size} bytes")
        at += 4 + size
        longest = max(longest, size)
    require(at == len(data), what, "a dictionary of another size than its values")
    return longest


def _unpack(packed: bytes, size: int, what: str) -> bytes:
    """One zstd frame of ``size`` bytes; never more is unpacked."""
    try:
        with zstandard.ZstdDecompressor(max_window_size=8 << 20).stream_reader(packed) as stream:
            data = stream.read(size + 1)
    except zstandard.ZstdError as error:
        raise MalformedInput(what, f"not readable: {error}") from error
    require(len(data) == size, what, "a dictionary of another size than its header says")
    return bytes(data)
