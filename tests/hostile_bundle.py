"""Bundle files of liars: a sound file taken apart, changed anywhere, and put together again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import zstandard

from tests.thrift_compact import BINARY, Struct, read_struct, write_struct

MAGIC = b"PAR1"
GROUPS, KEYS = 4, 5
"""Fields of a footer: row groups, key-value metadata."""
COLUMNS, META = 1, 3
TOTAL_UNCOMPRESSED, TOTAL_COMPRESSED = 2, 6
"""Fields of a row group and of its chunk."""
UNCOMPRESSED, COMPRESSED, DATA_PAGE, DICTIONARY_PAGE = 6, 7, 9, 11
"""Fields of a chunk's metadata: sizes and offsets."""
STATISTICS, MIN_VALUE = 12, 6
"""A field of a chunk's metadata, and one of its statistics."""
PAGE_UNCOMPRESSED, PAGE_COMPRESSED = 2, 3
"""Fields of a page's header."""


@dataclass(slots=True)
class Parts:
    """A file: everything before the footer, and the footer."""

    body: bytes
    footer: Struct

    def join(self) -> bytes:
        return join(self.body, write_struct(self.footer))

    def column(self, name: str, group: int = 0) -> Struct:
        """The metadata of a chunk."""
        chunks = self.footer.find((GROUPS, group, COLUMNS)).values
        found: Struct = next(c.find((META,)) for c in chunks if c.find((META, 3)).values == [name.encode()])
        return found

    def borders(self) -> list[int]:
        """Where one thing ends and the next begins: magic, chunks, footer, its length, magic."""
        starts = [
            min(
                chunk.find((META, field))
                for field in (DATA_PAGE, DICTIONARY_PAGE)
                if field in chunk.find((META,)).fields
            )
            for group in self.footer.find((GROUPS,)).values
            for chunk in group.find((COLUMNS,)).values
        ]
        end = len(self.body) + len(write_struct(self.footer))
        return [0, *starts, len(self.body), end, end + 4]


def take_apart(data: bytes) -> Parts:
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return Parts(data[:end], read_struct(data[end:-8])[0])


def join(body: bytes, footer: bytes) -> bytes:
    return body + footer + len(footer).to_bytes(4, "little") + MAGIC


# --- damage -----------------------------------------------------------------------------------------


def flips(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Each byte once with another bit flipped."""
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        yield f"byte {place}", bytes(changed)


def truncations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Cut at each border and beside it; also with the end of the file put behind the cut, as a liar would."""
    parts = take_apart(data)
    footer = write_struct(parts.footer)
    for border in parts.borders():
        for cut in sorted({max(0, border - 1), border, min(border + 1, len(data) - 1)}):
            yield f"cut at {cut}", data[:cut]
            if cut < len(parts.body):
                yield f"cut at {cut}, then the footer", join(data[:cut], footer)
                yield f"without byte {cut}", join(parts.body[:cut] + parts.body[cut + 1 :], footer)
    for size in range(0, len(footer), 97):
        yield f"{size} bytes of the footer", join(parts.body, footer[:size])


def footer_lies(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Each value of the footer changed: a number by one, a text by a character, one more and one less."""
    parts = take_apart(data)
    for path in parts.footer.leaves():
        value = parts.footer.find(path)
        for other in _others(value):
            changed = copy.deepcopy(parts.footer)
            changed.put(path, other)
            yield f"footer {path}: {other!r:.40}", join(parts.body, write_struct(changed))


def _others(value: object) -> list[object]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    assert isinstance(value, bytes)
    return [value[:-1], value + b"\0", bytes([value[0] ^ 1]) + value[1:]] if value else [b"\0"]


def added_fields(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A field that nobody knows in every struct of the footer, and each field left out."""
    parts = take_apart(data)
    for path in [(), *{leaf[:depth] for leaf in parts.footer.leaves() for depth in range(1, len(leaf))}]:
        if not isinstance(parts.footer.find(path), Struct):
            continue
        more = copy.deepcopy(parts.footer)
        more.find(path).fields[99] = (BINARY, b"hidden")
        yield f"footer {path}: a field more", join(parts.body, write_struct(more))
        for number in parts.footer.find(path).fields:
            less = copy.deepcopy(parts.footer)
            del less.find(path).fields[number]
            yield f"footer {path}: without field {number}", join(parts.body, write_struct(less))


KINDS: dict[str, Callable[[bytes], Iterator[tuple[str, bytes]]]] = {
    "flips": flips,
    "truncations": truncations,
    "footer lies": footer_lies,
    "added fields": added_fields,
}


# --- bombs ------------------------------------------------------------------------------------------


def replace_chunk(data: bytes, name: str, change: Callable[[Parts, bytes], bytes]) -> bytes:
    """The file with other pages in one chunk of its only group, and sums and offsets that fit."""
    parts = take_apart(data)
    column = parts.column(name)
    start = min(column.find((f,)) for f in (DATA_PAGE, DICTIONARY_PAGE) if f in column.fields)
    end = start + column.find((COMPRESSED,))
    pages = change(parts, parts.body[start:end])
    moved = len(pages) - (end - start)
    column.put((COMPRESSED,), len(pages))
    first = parts.footer.find((GROUPS, 0))
    chunks = [chunk.find((META,)) for chunk in first.find((COLUMNS,)).values]
    first.put((TOTAL_UNCOMPRESSED,), sum(chunk.find((UNCOMPRESSED,)) for chunk in chunks))
    first.put((TOTAL_COMPRESSED,), sum(chunk.find((COMPRESSED,)) for chunk in chunks))
    for group in parts.footer.find((GROUPS,)).values:
        for chunk in group.find((COLUMNS,)).values:
            for field in (DATA_PAGE, DICTIONARY_PAGE):
                if field in chunk.find((META,)).fields and chunk.find((META, field)) > start:
                    chunk.put((META, field), chunk.find((META, field)) + moved)
    return join(parts.body[:start] + pages + parts.body[end:], write_struct(parts.footer))


def inflate_page(pages: bytes, size: int, *, tells: bool, at: int = 0) -> bytes:
    """The page that begins there holding ``size`` zeros, which its header tells or not."""
    header, end = read_struct(pages, at)
    old = header.find((PAGE_COMPRESSED,))
    packed = zstandard.ZstdCompressor(level=19).compress(bytes(size))
    header.put((PAGE_COMPRESSED,), len(packed))
    if tells:
        header.put((PAGE_UNCOMPRESSED,), size)
    return pages[:at] + write_struct(header) + packed + pages[end + old :]
