from __future__ import annotations

import gzip
import random

import pytest
import zstandard

from validator.net.http.bodies import decompress_bounded
from validator.protocol.errors import MalformedInput

DATA = random.Random(1).randbytes(100_000) + b"abc" * 200_000


def gz(data: bytes) -> bytes:
    return gzip.compress(data, 6)


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def chunks(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gz), ("zstd", zst), ("", bytes), ("Identity", bytes)])
@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_a_body_comes_back_whole_however_it_is_cut(encoding: str, compress, size: int) -> None:  # type: ignore[no-untyped-def]
    assert b"".join(decompress_bounded(chunks(compress(DATA), size), encoding, len(DATA))) == DATA


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gz), ("zstd", zst)])
def test_several_frames_in_a_row_are_one_body(encoding: str, compress) -> None:  # type: ignore[no-untyped-def]
    body = compress(b"one") + compress(b"") + compress(b"two" * 50_000)
    for size in (1, 7, len(body)):
        assert b"".join(decompress_bounded(chunks(body, size), encoding, 1 << 20)) == b"one" + b"two" * 50_000


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gz), ("zstd", zst), ("", bytes)])
def test_one_byte_too_many_is_refused(encoding: str, compress) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MalformedInput, match="more than"):
        list(decompress_bounded([compress(DATA)], encoding, len(DATA) - 1))


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gz), ("zstd", zst)])
def test_a_body_cut_short_is_refused(encoding: str, compress) -> None:  # type: ignore[no-untyped-def]
    body = compress(DATA)
    for cut in (1, 5, len(body) // 2, len(body) - 1):
        with pytest.raises(MalformedInput, match="cut short"):
            list(decompress_bounded([body[:cut]], encoding, 1 << 20))


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gz), ("zstd", zst)])
def test_bytes_behind_the_end_are_refused(encoding: str, compress) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MalformedInput, match="broken"):
        list(decompress_bounded([compress(b"x"), b"some rubbish"], encoding, 1 << 20))


def test_an_empty_body_is_empty_whatever_its_encoding() -> None:
    for encoding in ("", "gzip", "zstd"):
        assert list(decompress_bounded([], encoding, 10)) == []


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, zstd", "x" * 1000])
def test_an_encoding_that_was_not_asked_for_is_refused(encoding: str) -> None:
    with pytest.raises(MalformedInput, match="not asked for"):
        list(decompress_bounded([b"x"], encoding, 10))


def test_a_bomb_never_makes_a_large_piece() -> None:
    zeros = bytes(64 << 20)
    for encoding, bomb in (("gzip", gzip.compress(zeros, 9)), ("zstd", zst(zeros))):
        largest = 0
        with pytest.raises(MalformedInput, match="more than"):
            for piece in decompress_bounded([bomb], encoding, 8 << 20):
                largest = max(largest, len(piece))
        assert 0 < largest <= 2 << 20


def test_a_zstd_window_beyond_8_mib_is_refused() -> None:
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=24)
    ).compressobj()
    body = compressor.compress(b"abc" * 100) + compressor.flush()
    with pytest.raises(MalformedInput, match="memory"):
        list(decompress_bounded([body], "zstd", 1 << 20))
