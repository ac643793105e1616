from __future__ import annotations

import gzip
import ipaddress
import random
import threading

import pytest
import zstandard

from validator.net.http.client import (
    ParsedUrl,
    check_url,
    decompress_bounded,
    is_global_unicast,
    resolve,
    unwrap_address,
)
from validator.protocol.errors import MalformedInput, TransientError

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


def check(url: str, *, allow_http: bool = True) -> ParsedUrl:
    return check_url(url, allow_http=allow_http, allow_nets=[])


def test_an_ordinary_url_is_taken_apart() -> None:
    assert check("https://Validator.Example/base/") == ParsedUrl("https", "validator.example", 443, "/base")
    assert check("https://8.8.8.8:8443") == ParsedUrl("https", "8.8.8.8", 8443, "")
    assert check("https://[2606:4700::1111]:8443/x").authority == "[2606:4700::1111]:8443"
    assert check("https://a.example").authority == "a.example"
    assert check("http://a.example:443").authority == "a.example:443"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "empty"),
        ("https://" + "a" * 60 + "." + "b" * 200, "256"),
        ("ftp://a.example:2121/", "neither https nor http"),
        ("file:///etc/passwd", "neither https nor http"),
        ("//a.example", "neither https nor http"),
        ("https://user@a.example/", "user info"),
        ("https://user:pass@a.example/", "user info"),
        ("https://a.example/?x=1", "query"),
        ("https://a.example/#x", "fragment"),
        ("https://a.example:80/", "port 80"),
        ("https://a.example:22/", "port 22"),
        ("http://a.example/", "port 80"),
        ("https://a.example:0/", "port 0"),
        ("https://a.example:65536/", "port 65536"),
        ("https://a.example:99999999/", "not a number"),
        ("https://a.example:/", "not a number"),
        ("https://a.example:+443/", "not a number"),
        ("https://a.example:４４３/", "character"),
        ("https://a.exa mple/", "character"),
        ("https://a.example\\@b.example/", "character"),
        ("https://a.example/\r\nHost: b", "character"),
        ("https://exämple.org/", "character"),
        ("https:///path", "neither a name nor an address"),
        ("https://a..example/", "neither a name nor an address"),
        ("https://a.example/../x", "dots"),
        ("https://[::1/", "brackets"),
        ("https://[8.8.8.8]/", "brackets"),
        ("https://[::1]x/", "brackets"),
        ("https://2130706433/", "is a number"),
        ("https://0x7f.1/", "is a number"),
        ("https://127.1/", "is a number"),
        ("https://a.0x7f/", "is a number"),
        ("https://0177.0.0.1/", "is a number"),
        ("https://127.0.0.1/", "not a global unicast"),
        ("https://169.254.169.254/", "not a global unicast"),
        ("https://10.1.2.3/", "not a global unicast"),
        ("https://[::1]/", "not a global unicast"),
        ("https://[::]/", "not a global unicast"),
        ("https://[fe80::1]/", "not a global unicast"),
        ("https://[fd00::1]/", "not a global unicast"),
        ("https://[ff02::1]/", "not a global unicast"),
        ("https://[64:ff9b::a9fe:a9fe]/", "not a global unicast"),
        ("https://[::ffff:127.0.0.1]/", "not a global unicast"),
        ("https://[::127.0.0.1]/", "not a global unicast"),
        ("https://[2002:7f00:1::]/", "not a global unicast"),
        ("https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", "not a global unicast"),
    ],
)
def test_a_url_that_breaks_a_rule_is_refused_with_the_rule(url: str, reason: str) -> None:
    with pytest.raises(MalformedInput, match=reason) as caught:
        check(url)
    assert caught.value.field == "url"


def test_a_scoped_address_is_refused_even_in_an_allowed_net() -> None:
    with pytest.raises(MalformedInput, match="global unicast"):
        check_url("https://[fe80::1%25eth0]/", allow_http=False, allow_nets=[ipaddress.ip_network("fe80::/10")])


def test_http_is_for_development_networks_only() -> None:
    with pytest.raises(MalformedInput, match="plain http"):
        check("http://a.example:8080", allow_http=False)
    assert check("http://a.example:8080").scheme == "http"


def test_a_private_address_needs_the_operators_word() -> None:
    assert check_url("http://127.0.0.1:8080", allow_http=True, allow_nets=LOOPBACK).host == "127.0.0.1"
    with pytest.raises(MalformedInput, match=r"10\.0\.0\.1"):
        check_url("http://10.0.0.1:8080", allow_http=True, allow_nets=LOOPBACK)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("64:ff9b::102:304", "1.2.3.4"),
        ("2002:102:304::1", "1.2.3.4"),
        ("2606:4700::1", "2606:4700::1"),
        ("1.2.3.4", "1.2.3.4"),
    ],
)
def test_wrapped_ipv4_addresses_are_unwrapped(text: str, inner: str) -> None:
    assert unwrap_address(ipaddress.ip_address(text)) == ipaddress.ip_address(inner)


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::"])
def test_public_addresses_are_global_in_every_form(text: str) -> None:
    assert is_global_unicast(ipaddress.ip_address(text))


URL = ParsedUrl("https", "a.example", 443, "")


def test_one_private_address_among_the_answers_refuses_the_name() -> None:
    with pytest.raises(MalformedInput, match=r"192\.168\.0\.1"):
        resolve(URL, resolver=lambda host, port: ["8.8.8.8", "192.168.0.1"])


def test_all_answers_are_kept_in_order_and_once() -> None:
    found = resolve(URL, resolver=lambda host, port: ["2606:4700::1", "8.8.8.8", "8.8.8.8"])
    assert [str(a) for a in found] == ["2606:4700::1", "8.8.8.8"]


def test_a_literal_address_is_never_looked_up() -> None:
    def never(host: str, port: int) -> list[str]:
        raise AssertionError("looked up")

    assert [str(a) for a in resolve(ParsedUrl("https", "8.8.8.8", 443, ""), resolver=never)] == ["8.8.8.8"]


@pytest.mark.parametrize("failure", [OSError("no such host"), UnicodeError("label too long")])
def test_a_name_without_an_answer_may_have_one_later(failure: Exception) -> None:
    def fail(host: str, port: int) -> list[str]:
        raise failure

    with pytest.raises(TransientError, match=r"a\.example"):
        resolve(URL, resolver=fail)
    with pytest.raises(TransientError, match="no address"):
        resolve(URL, resolver=lambda host, port: [])


def test_a_look_up_that_hangs_is_left_behind() -> None:
    release = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        release.wait(30)
        return []

    with pytest.raises(TransientError, match="longer"):
        resolve(URL, resolver=hang, timeout_s=0.05)
    release.set()


# --- decompression --------------------------------------------------------------------------------

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
    with pytest.raises(MalformedInput, match="encoding"):
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
