"""Gateways that lie, stall, flood or redirect."""

from __future__ import annotations

import gzip
import http.server
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests import paths
from validator.net.arweave.gateway import CircuitOpen, Gateway, Limits
from validator.net.arweave.storage import ArweaveStorage
from validator.protocol.codec import arweave_text
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import StorageId

Request = http.server.BaseHTTPRequestHandler
Build = Callable[..., ArweaveStorage]
Serve = Callable[[Callable[[Request], None]], str]
SHORT = Limits(connect_s=1, read_s=0.5, request_s=0.6, call_s=1, download_s=0.6, attempts=2, first_wait_s=0.01)
SOME_ID = StorageId(bytes(range(32)))


def answer(request: Request, body: bytes, status: int = 200, **headers: str) -> None:
    request.send_response(status)
    request.send_header("content-length", str(len(body)))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def always(body: bytes, status: int = 200, **headers: str) -> Callable[[Request], None]:
    return lambda request: answer(request, body, status, **headers)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>Wait</html>", "price: not a plain decimal number"),
        (b"0", "price: 0 is below 1"),
        (b"-5", "price: not a plain decimal"),
        (b"1e9", "price: not a plain decimal"),
        (b"", "price: 0 characters"),
        (b"9" * 25, "price: 25 characters"),
        (b"9" * 5000, "5000 bytes announced, 4096 allowed"),
        ("٣".encode(), "price: not a plain decimal"),
    ],
)
def test_a_price_that_is_no_price_is_never_signed(
    body: bytes, reason: str, serve_lies: Serve, build_storage: Build, tmp_path: Path
) -> None:
    url = serve_lies(always(body))
    with pytest.raises(RemoteFault, match=reason) as caught:
        build_storage(url).fetch_price(1)
    assert url.removeprefix("http://") in str(caught.value)
    path = tmp_path / "data"
    path.write_bytes(b"x")
    with pytest.raises(RemoteFault, match=reason):
        build_storage(url).prepare(path, [("a", "b")])


def test_two_prices_the_larger_counts_and_too_far_apart_neither(serve_lies: Serve, build_storage: Build) -> None:
    urls = [serve_lies(always(price)) for price in (b"100", b"200", b"201")]
    assert build_storage(urls[0], urls[1]).fetch_price(1) == 200
    with pytest.raises(RemoteFault, match="100 and 201"):
        build_storage(urls[0], urls[2]).fetch_price(1)


def test_a_liar_beside_an_honest_gateway_is_passed_over(serve_lies: Serve, build_storage: Build) -> None:
    liar, honest = serve_lies(always(b"<html>")), serve_lies(always(b"100"))
    assert build_storage(liar, honest).fetch_price(1) == 100


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_refused(status: int, serve_lies: Serve, build_storage: Build) -> None:
    target = serve_lies(always(b"100"))
    url = serve_lies(always(b"", status, location=target + "/price/1"))
    with pytest.raises(RemoteFault, match=f"HTTP {status}, redirects are refused"):
        build_storage(url).fetch_price(1)


def test_a_body_without_end_is_cut_at_the_limit(serve_lies: Serve, build_storage: Build, tmp_path: Path) -> None:
    def flood(request: Request) -> None:
        request.send_response(200)
        request.end_headers()
        for _ in range(10_000):
            request.wfile.write(b"1" * 65536)

    with pytest.raises(RemoteFault, match="more than 4096 bytes"):
        build_storage(serve_lies(flood)).fetch_price(1)


def test_compressed_answers_are_refused(serve_lies: Serve, build_storage: Build) -> None:
    url = serve_lies(always(gzip.compress(b"1" * 1_000_000), content_encoding="gzip"))
    with pytest.raises(RemoteFault, match="compressed"):
        build_storage(url).fetch_price(1)


@pytest.mark.parametrize("part", ["status line", "header", "body", "silence"])
def test_a_gateway_that_drips_does_not_hold_the_caller(part: str, serve_lies: Serve, build_storage: Build) -> None:
    """Each byte comes within the read timeout, so that only the total deadline can end it."""

    finished: list[str] = []

    def drip(request: Request) -> None:
        start = {"status line": b"", "header": b"HTTP/1.1 200 OK\r\nx: ", "body": b"HTTP/1.1 200 OK\r\n\r\n"}.get(part)
        for _ in range(200):
            if start is not None:
                request.wfile.write(start + b"1")
                start = b""
            time.sleep(0.05)
        finished.append(part)

    with pytest.raises(TransientError):
        build_storage(serve_lies(drip), limits=SHORT).fetch_price(1)
    assert not finished, "the caller was free again before the gateway had finished"


@pytest.mark.parametrize("body", [b"A" * 64, b"AAAA", b"<html>", b"=" * 64, b""])
def test_an_anchor_that_is_no_anchor_is_never_signed(
    body: bytes, serve_lies: Serve, build_storage: Build, tmp_path: Path
) -> None:
    def gateway(request: Request) -> None:
        texts = {"/info": b'{"height": 5}', "/tx_anchor": body}
        answer(request, texts.get(request.path, b"1000000000" if "price" in request.path else b"9000000000"))

    path = tmp_path / "data"
    path.write_bytes(b"x")
    storage = build_storage(serve_lies(gateway))
    if body == b"A" * 64:
        assert storage.prepare(path, [("a", "b")]).anchor_height == 5
    else:
        with pytest.raises(RemoteFault, match="anchor"):
            storage.prepare(path, [("a", "b")])


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"nonsense",
        b"{}",
        json.dumps({"block_height": "5", "number_of_confirmations": 1}).encode(),
        json.dumps({"block_height": 5, "number_of_confirmations": -1}).encode(),
        json.dumps({"block_height": 5, "number_of_confirmations": True}).encode(),
        json.dumps({"block_height": 1 << 70, "number_of_confirmations": 1}).encode(),
    ],
)
def test_a_status_that_is_no_status_is_unknown(body: bytes, serve_lies: Serve, build_storage: Build) -> None:
    assert build_storage(serve_lies(always(body))).fetch_status(SOME_ID).state == "unknown"


def status_of(confirmations: int) -> bytes:
    return json.dumps({"block_height": 5, "block_indep_hash": "", "number_of_confirmations": confirmations}).encode()


def test_one_gateway_alone_can_neither_confirm_nor_deny(serve_lies: Serve, build_storage: Build) -> None:
    high, low = serve_lies(always(status_of(18))), serve_lies(always(status_of(3)))
    missing, broken = serve_lies(always(b"Not Found.", 404)), serve_lies(always(b"", 500))
    assert build_storage(high, low).fetch_status(SOME_ID).confirmations == 3
    assert build_storage(high, missing).fetch_status(SOME_ID).state == "pending"
    assert build_storage(high, broken).fetch_status(SOME_ID).state == "pending"
    assert build_storage(high, serve_lies(always(status_of(18))), broken).fetch_status(SOME_ID).confirmations == 18
    assert build_storage(high).fetch_status(SOME_ID).confirmations == 18
    assert build_storage(missing, broken).fetch_status(SOME_ID).state == "unknown"
    assert build_storage(missing).fetch_status(SOME_ID).state == "missing"


def test_another_transaction_than_asked_for_is_refused(serve_lies: Serve, build_storage: Build) -> None:
    vectors = json.loads((paths.VECTORS / "arweave.json").read_text())
    case = next(c for c in vectors["transactions"] if c["name"] == "one_byte")
    sound = {**case["fields"], "tags": [], "data": "", **case["signatures"]["salt0"]}
    storage_id = arweave_text.decode_storage_id(sound["id"])
    honest = build_storage(serve_lies(always(json.dumps(sound).encode())))
    assert honest.fetch_transaction(storage_id).data_size == 1
    for body, asked, reason in (
        (sound, SOME_ID, "another transaction"),
        ({**sound, "data_size": "2"}, storage_id, "tx_signature_not_valid"),
        ({**sound, "tags": [{"name": "YQ", "value": "YQ"}]}, storage_id, "tx_signature_not_valid"),
        ({**sound, "owner": ""}, storage_id, "tx_signature_not_valid"),
        ({**sound, "reward": 5}, storage_id, "reward"),
    ):
        with pytest.raises(RemoteFault, match=reason):
            build_storage(serve_lies(always(json.dumps(body).encode()))).fetch_transaction(asked)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_download_of_another_size_is_refused(
    size: int, serve_lies: Serve, build_storage: Build, tmp_path: Path
) -> None:
    vectors = json.loads((paths.VECTORS / "arweave.json").read_text())
    case = next(c for c in vectors["transactions"] if c["name"] == "empty_anchor")  # carries ten bytes
    sound = json.dumps({**case["fields"], "tags": [], "data": "", **case["signatures"]["salt0"]}).encode()
    data = bytes(i * 7 for i in range(10))

    def gateway(request: Request) -> None:
        answer(request, sound if request.path.startswith("/tx/") else (data * 2)[: 9 + size])

    storage_id = arweave_text.decode_storage_id(case["signatures"]["salt0"]["id"])
    storage = build_storage(serve_lies(gateway))
    if size == 1:
        assert storage.fetch_data(storage_id, tmp_path / "back", 100) == 10
    else:
        with pytest.raises(RemoteFault):
            storage.fetch_data(storage_id, tmp_path / "back", 100)
        assert not list(tmp_path.iterdir())


def node_of(owner: str, root: str, **changes: Any) -> dict[str, Any]:
    node = {
        "id": arweave_text.encode_base64url(SOME_ID),
        "owner": {"address": owner},
        "tags": [{"name": "Bundle-Root", "value": root}],
        "block": None,
        "bundledIn": None,
    }
    return {"cursor": "1", "node": {**node, **changes}}


def page_of(*edges: dict[str, Any], more: bool = False) -> bytes:
    return json.dumps({"data": {"transactions": {"pageInfo": {"hasNextPage": more}, "edges": edges}}}).encode()


def test_forged_rows_of_an_index_are_dropped_and_pages_are_bounded(serve_lies: Serve, build_storage: Build) -> None:
    ours, stranger = (arweave_text.encode_base64url(bytes([i]) * 32) for i in (1, 2))
    asked: list[str] = []

    def endless(request: Request) -> None:
        asked.append(request.path)
        item = node_of(ours, "ab", bundledIn={"id": arweave_text.encode_base64url(SOME_ID)}, id="B" * 43)
        answer(request, page_of(node_of(stranger, "ab"), node_of(ours, "cd"), item, node_of(ours, "ab"), more=True))

    assert build_storage(serve_lies(endless)).find_uploads("ab", [b"\x01" * 32]) == [SOME_ID]
    assert len(asked) == 5
    for body in (
        b'{"data": null, "errors": [{"message": "timeout"}]}',
        b'{"data": {"transactions": {"edges": 5}}}',
        b"[]",
        page_of(node_of(ours, "ab", tags=[5])),
        page_of(node_of(ours, "ab", id=5)),
        page_of(node_of(ours, "ab", id="AA")),
        page_of(node_of(ours, "ab", block={"height": "5"})),
        page_of(node_of(ours, "ab", bundledIn={"id": 5})),
        page_of(node_of(ours, "ab", bundledIn="")),
        page_of(*[node_of(ours, "ab")] * 101),
    ):
        with pytest.raises(RemoteFault, match="graphql"):
            build_storage(serve_lies(always(body))).find_uploads("ab", [b"\x01" * 32])


def test_the_circuit_opens_after_failures_and_one_probe_closes_it(serve_lies: Serve) -> None:
    statuses: list[int] = []
    now = [0.0]

    def flaky(request: Request) -> None:
        answer(request, b"1", statuses.pop(0))

    told: list[tuple[str, int]] = []
    gateway = Gateway(
        serve_lies(flaky),
        Limits(attempts=1, failures=2, open_s=10),
        now=lambda: now[0],
        on_circuit=lambda state: told.append((state.state, state.failures)),
    )
    statuses[:] = [500, 404, 500, 500]
    for _ in range(4):
        with pytest.raises((TransientError, RemoteFault)):
            gateway.get("/height", max_bytes=10)
    assert gateway.circuit.state.state == "open"
    with pytest.raises(CircuitOpen, match="HTTP 500"):
        gateway.get("/height", max_bytes=10)
    now[0] = 10.0
    statuses[:] = [500, 200, 200]
    with pytest.raises(TransientError, match="HTTP 500"):
        gateway.get("/height", max_bytes=10)
    with pytest.raises(CircuitOpen):
        gateway.get("/height", max_bytes=10)
    now[0] = 20.0
    assert gateway.get("/height", max_bytes=10).body == b"1"
    assert gateway.circuit.state.state == "closed"
    assert gateway.get("/height", max_bytes=10).body == b"1"
    assert told == [("closed", 0), ("open", 2), ("closed", 0)], (
        "the first answer, and each change; a failed probe is none"
    )
    gateway.close()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_gateway_is_left_alone_for_as_long_as_it_asks(serve_lies: Serve, status: int, form: str) -> None:
    asked = "7" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=7), usegmt=True)
    statuses = [status, 200]

    def busy(request: Request) -> None:
        answer(request, b"1", statuses.pop(0), retry_after=asked)

    waits: list[float] = []
    gateway = Gateway(serve_lies(busy), Limits(), sleep=waits.append)
    assert gateway.get("/height", max_bytes=10).body == b"1"
    assert len(waits) == 1
    assert 5 < waits[0] <= 7
    gateway.close()


def test_a_gateway_that_rests_for_long_is_not_asked_by_other_calls(serve_lies: Serve) -> None:
    seen: list[int] = []

    def busy(request: Request) -> None:
        seen.append(1)
        answer(request, b"", 429, retry_after="3600")

    now = [0.0]
    gateway = Gateway(serve_lies(busy), Limits(attempts=1), now=lambda: now[0])
    with pytest.raises(TransientError, match="HTTP 429"):
        gateway.get("/height", max_bytes=10)
    for _ in range(20):
        with pytest.raises(TransientError, match="rests for 60 s after: HTTP 429") as caught:
            gateway.get("/height", max_bytes=10)
        assert caught.value.retry_after_s == 60
    assert len(seen) == 1
    now[0] = 61.0
    with pytest.raises(TransientError, match=": HTTP 429"):
        gateway.get("/height", max_bytes=10)
    assert len(seen) == 2
    gateway.close()


def test_credentials_of_a_url_are_in_no_text(serve_lies: Serve, build_storage: Build) -> None:
    url = serve_lies(always(b"", 500)).replace("http://", "http://user:secret@") + "/path-token"
    storage = build_storage(url)
    with pytest.raises(TransientError) as caught:
        storage.fetch_price(1)
    texts = f"{caught.value} {caught.value.fields} {[g.circuit.state for g in storage.gateways]} {[*storage.gateways]}"
    assert "secret" not in texts
    assert "path-token" not in texts


@pytest.mark.parametrize(
    ("status", "named", "body"),
    [
        (200, "", b"0123"),
        (206, "bytes 0-3/4", b"0123"),
        (206, "bytes 6-9/11", b"0123"),
        (206, "bytes 6-9/10", b"012"),
        (206, "", b"0123"),
        (416, "bytes */10", b""),
    ],
)
def test_a_range_that_is_not_the_one_asked_for_is_refused(
    status: int, named: str, body: bytes, serve_lies: Serve, build_storage: Build
) -> None:
    (gateway,) = build_storage(serve_lies(always(body, status, content_range=named))).gateways
    with pytest.raises(RemoteFault):
        gateway.get_range("/raw/x", 6, 10, 10)


def test_the_range_asked_for_is_taken(serve_lies: Serve, build_storage: Build) -> None:
    (gateway,) = build_storage(serve_lies(always(b"0123", 206, content_range="bytes 6-9/10"))).gateways
    assert gateway.get_range("/raw/x", 6, 10, 10) == b"0123"
