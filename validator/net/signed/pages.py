"""Pages of messages: a CBOR sequence of canonical messages, compressed with zstd as a whole; bounded, strictly read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import zstandard

from validator.net.http.bodies import decompress_bounded
from validator.protocol.codec import cbor

PAGE_BYTES = 4 << 20
"""Most bytes of messages in one page, before compression. A single message is far smaller."""
MAX_PAGE_BYTES = PAGE_BYTES + (64 << 10)
MAX_LEAVES = 4096
"""Most messages that are asked for at once."""


def encode_page(messages: Sequence[bytes]) -> bytes:
    """Canonical messages as one zstd frame."""
    return zstandard.ZstdCompressor(level=1).compress(b"".join(messages))


def decode_page(data: bytes, max_items: int) -> list[bytes]:
    """Inverse of ``encode_page``: the bytes of each message, not yet read. Raises MalformedInput."""
    plain = b"".join(decompress_bounded([data], "zstd", MAX_PAGE_BYTES))
    return cbor.split_sequence(plain, max_items=max_items, what="page")


def split_pages(messages: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Messages in runs that each fit a page."""
    page: list[bytes] = []
    size = 0
    for message in messages:
        if page and (size + len(message) > PAGE_BYTES or len(page) == MAX_LEAVES):
            yield page
            page, size = [], 0
        page.append(message)
        size += len(message)
    if page:
        yield page
