"""What strangers write on chain has one reading, whoever reads it."""

from __future__ import annotations

import pytest

from validator.net.chain.metadata import MAX_URL_CHARS, parse_node_metadata, parse_node_wallet, parse_partitions

LONGEST = "https://" + "a" * (MAX_URL_CHARS - 8)


@pytest.mark.parametrize(
    ("raw", "http", "validator"),
    [
        (b'{"http":"http://a:7171"}', "http://a:7171", None),
        (b'{"validator":"https://b"}', None, "https://b"),
        (b'{"http":"http://a","validator":"https://b","more":[1,{"x":null}]}', "http://a", "https://b"),
        (b' {"http" : "http://a"} ', "http://a", None),
        (f'{{"http":"{LONGEST}"}}'.encode(), LONGEST, None),
        (f'{{"http":"{LONGEST}a"}}'.encode(), None, None),
        (b'{"http":"ftp://a"}', None, None),
        (b'{"http":"http://a b"}', None, None),
        (b'{"http":"http://a\\n"}', None, None),
        ('{"http":"http://ä"}'.encode(), None, None),
        (b'{"http":"","validator":"https://b"}', None, "https://b"),
        (b'{"http":5,"validator":["https://b"]}', None, None),
        (b'{"http":null}', None, None),
        (b'["http://a"]', None, None),
        (b'"http://a"', None, None),
        (b"http://a", None, None),
        (b"", None, None),
        (b'{"http":"http://a"', None, None),
        (b'{"http":"http://a"}\xff', None, None),
        (b'{"http":"http://a","x":NaN}', None, None),
        (b'{"http":"http://a","x":' + b"1" * 4000 + b"}", "http://a", None),
        (b'{"http":"http://a","x":"' + b"y" * 4096 + b'"}', None, None),
        (b'{"http":"http://a","x":' + b"[" * 65 + b"]" * 65 + b"}", None, None),
        (b'{"http":"http://a","x":' + b"[" * 60 + b"]" * 60 + b"}", "http://a", None),
    ],
)
def test_node_metadata(raw: bytes, http: str | None, validator: str | None) -> None:
    assert parse_node_metadata(raw) == (http, validator)


WALLET = "A" * 42 + "E"


@pytest.mark.parametrize(
    ("raw", "wallet"),
    [
        (f'{{"arweave":"{WALLET}"}}'.encode(), bytes(31) + b"\x01"),
        (f'{{"validator":"https://b","arweave":"{WALLET}"}}'.encode(), bytes(31) + b"\x01"),
        (f'{{"arweave":"{WALLET}="}}'.encode(), None),
        (f'{{"arweave":"{WALLET[:-1]}F"}}'.encode(), None),
        (f'{{"arweave":"{WALLET[:-1]}"}}'.encode(), None),
        (f'{{"arweave":"{WALLET}A"}}'.encode(), None),
        (b'{"arweave":7}', None),
        (b'{"arweave":null}', None),
        (b"{}", None),
        (b"not JSON", None),
        (f'{{"arweave":"{WALLET}","x":"{"y" * 4096}"}}'.encode(), None),
    ],
)
def test_the_wallet_that_a_node_names(raw: bytes, wallet: bytes | None) -> None:
    assert parse_node_wallet(raw) == wallet


@pytest.mark.parametrize(
    ("raw", "partitions"),
    [
        (b'{"partitions":3}', 3),
        (b'{"partitions":100}', 100),
        (b'{"partitions":101}', 1),
        (b'{"partitions":0}', 1),
        (b'{"partitions":-1}', 1),
        (b'{"partitions":true}', 1),
        (b'{"partitions":3.0}', 1),
        (b'{"partitions":"3"}', 1),
        (b'{"partitions":' + b"9" * 5000 + b"}", 1),
        (b"{}", 1),
        (b"", 1),
        (b"not JSON", 1),
        (b'{"partitions":3,"x":"' + b"y" * (1 << 16) + b'"}', 1),
    ],
)
def test_partitions_of_a_stream(raw: bytes, partitions: int) -> None:
    assert parse_partitions(raw) == partitions
