"""Bodies of answers, bounded before and after decompression, and in how slowly they may come."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Sequence

import zstandard

from validator.net.http.urls import ParsedUrl
from validator.protocol.errors import MalformedInput, RemoteFault

FLOOR_BYTES_PER_S = 64 << 10
MAX_ZSTD_WINDOW = 8 << 20
STEP_BYTES = 64 << 10
ENCODINGS = ("zstd", "gzip")
"""What this package can undo."""
_ZSTD_SLICE = 64


def decompress_bounded(
    raw: Iterable[bytes], encoding: str, max_bytes: int, asked: Sequence[str] = ENCODINGS
) -> Iterator[bytes]:
    """Decode a body (identity, and what was ``asked`` for) piece by piece, never more than 64 KiB at a time.

    Raises:
        MalformedInput: field "body": another encoding, more than ``max_bytes`` of output, broken or cut short.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        pieces: Iterator[bytes] = iter(raw)
    elif encoding in ("gzip", "x-gzip") and "gzip" in asked:
        pieces = _gunzip(raw)
    elif encoding == "zstd" and "zstd" in asked:
        pieces = _unzstd(raw)
    else:
        raise MalformedInput("body", f"compressed by {encoding[:40]!r}, which was not asked for")
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > max_bytes:
            raise MalformedInput("body", f"more than {max_bytes} bytes", bytes=total)
        if piece:
            yield piece


def _gunzip(raw: Iterable[bytes]) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=31)
    started = False
    for chunk in raw:
        pending = chunk
        while pending:
            if decoder.eof:
                decoder = zlib.decompressobj(wbits=31)
            started = True
            try:
                piece = decoder.decompress(pending, STEP_BYTES)
            except zlib.error as error:
                raise MalformedInput("body", f"broken gzip: {error}") from error
            yield piece
            pending = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            if not pending and len(piece) == STEP_BYTES and not decoder.eof:
                yield from _drain_gzip(decoder)
    if started and not decoder.eof:
        raise MalformedInput("body", "gzip is cut short", cut=True)


def _drain_gzip(decoder: zlib._Decompress) -> Iterator[bytes]:
    """Output that zlib holds back although it has taken all input."""
    while True:
        piece = decoder.decompress(b"", STEP_BYTES)
        if not piece:
            return
        yield piece


def _unzstd(raw: Iterable[bytes]) -> Iterator[bytes]:
    """Frame after frame. A frame may expand 128 KiB from 4 bytes, and the library knows no output limit that holds
    (it trusts the size a frame names), so the input is fed in slices whose worst case is 2 MiB."""
    context = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)
    decoder = context.decompressobj(read_across_frames=False)
    started = False
    for chunk in raw:
        for at in range(0, len(chunk), _ZSTD_SLICE):
            pending = chunk[at : at + _ZSTD_SLICE]
            while pending:
                if decoder.eof:
                    decoder = context.decompressobj(read_across_frames=False)
                started = True
                try:
                    piece = decoder.decompress(pending)
                except zstandard.ZstdError as error:
                    raise MalformedInput("body", f"broken zstd: {error}") from error
                yield piece
                pending = decoder.unused_data if decoder.eof else b""
    if started and not decoder.eof:
        raise MalformedInput("body", "zstd is cut short", cut=True)


def bounded(
    base: ParsedUrl, raw: Iterable[bytes], announced: str, max_bytes: int, floor_after_s: float
) -> Iterator[bytes]:
    """Raw bytes of a body with the limits that hold before decompression: size, ``announced`` or seen, and the floor of
    speed. Nothing is judged before the first read: an answer without use for its body is what its status says."""
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > max_bytes):
        raise MalformedInput("body", f"{announced[:20]} bytes announced, {max_bytes} allowed", url=str(base))
    started = time.monotonic()
    total = 0
    for chunk in raw:
        total += len(chunk)
        if total > max_bytes + STEP_BYTES:  # a compressed body may be a little larger than what it holds, not more
            raise MalformedInput("body", f"more than {max_bytes} bytes", url=str(base))
        took = time.monotonic() - started
        if took > floor_after_s and total < took * FLOOR_BYTES_PER_S:
            raise RemoteFault(
                f"{base}: {total} bytes in {took:.0f} s are below the floor of 64 KiB/s", url=str(base), bytes=total
            )
        yield chunk
