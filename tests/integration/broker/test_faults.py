"""What strangers do to a broker's listener, and what it costs: their own connection, and nobody else's answer.

Every fault that a broker must bear, and where it is tried:

| Fault | Where |
|---|---|
| down | unit/logstore/test_answers; killed 20 times: test_kills |
| hanging | unit/broker/test_repair_simulated (hangs) |
| slow | integration/net/http/test_client (floor of speed, deadlines) |
| slow reader, slowloris | here |
| restarted empty | unit/broker/test_repair_simulated (begins empty, restarts) |
| disk full | test_ingest, test_store |
| two with one key | unit/broker/test_heartbeat |
| clock off by a minute | unit/broker/test_repair_simulated, test_serve |
| 100 000 subscriptions | test_ingest (parts beyond the limit) |
| one folder, several processes | test_roles |
| huge and reversed ranges, unknown stream or partition, wrong form, foreign cursor | test_serve (cannot be meant) |
| lies | unit/devnet/test_lying |
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.broker_parts import NOW_MS, STREAM, BrokerParts, serving
from tests.builders import a_key, a_record

TARGET = f"/v1/streams/{quote(STREAM, safe='')}/partitions/1/messages?from=0&format=frames"
LARGE = 3_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BrokerParts, str]]:
    """One whose answers are much larger than what a socket takes unread, and which waits some seconds for a reader."""
    parts = BrokerParts(tmp_path_factory.mktemp("broker"), answers=3)
    content = b'"' + b"x" * 4_000 + b'"'
    parts.store.insert(
        [
            a_record(a_key(1), stream_id=STREAM, partition=1, timestamp_ms=NOW_MS - LARGE + n, content=content)
            for n in range(LARGE)
        ],
        NOW_MS,
    )
    with serving(parts.app, streams=True, head_s=4.0, exchange_s=4.0) as url:
        yield parts, url
    parts.close()


def connect(url: str) -> socket.socket:
    connection = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    return connection


def read_to_the_end(connection: socket.socket) -> bytes:
    """All that comes until the other side ends it, however it does."""
    found = b""
    try:
        while piece := connection.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    connection.close()
    return found


def a_request(parts: BrokerParts) -> bytes:
    return f"GET {TARGET} HTTP/1.1\r\nhost: x\r\nauthorization: {parts.token()}\r\n\r\n".encode()


def test_a_head_that_never_ends_is_cut_off(broker: tuple[BrokerParts, str]) -> None:
    connection = connect(broker[1])
    connection.sendall(b"GET /v1/head HTTP/1.1\r\nhost: x\r\nslow")
    assert read_to_the_end(connection) == b""


def test_a_body_that_never_comes_is_cut_off(broker: tuple[BrokerParts, str]) -> None:
    connection = connect(broker[1])
    connection.sendall(b"POST /v1/receipts HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n[2,")
    assert b"200" not in read_to_the_end(connection)[:20]


def test_readers_who_read_nothing_lose_their_answers_and_free_their_places(broker: tuple[BrokerParts, str]) -> None:
    parts, url = broker
    idle = [connect(url) for _ in range(3)]
    for connection in idle:
        connection.sendall(a_request(parts))
        assert connection.recv(12) == b"HTTP/1.1 200"
    refused = httpx.get(url + TARGET, headers={"authorization": parts.token()}, timeout=60)
    assert (refused.status_code, refused.json()["field"]) == (503, "answers")
    for connection in idle:
        connection.settimeout(60)
    while parts.server.answers.used:  # the listener ends them by its clock
        httpx.get(url + "/v1/head", timeout=60)
    for connection in idle:
        assert len(read_to_the_end(connection)) < LARGE * 4_000
    whole = httpx.get(url + TARGET, headers={"authorization": parts.token()}, timeout=60)
    assert len(whole.content) > LARGE * 4_000


def test_a_reader_who_leaves_frees_its_place(broker: tuple[BrokerParts, str]) -> None:
    parts, url = broker
    with httpx.stream("GET", url + TARGET, headers={"authorization": parts.token()}, timeout=60) as answer:
        next(answer.iter_raw())
    while parts.server.answers.used:
        httpx.get(url + "/v1/head", timeout=60)


def test_a_body_beyond_the_limit_is_refused(broker: tuple[BrokerParts, str], tmp_path: Path) -> None:
    answer = httpx.post(broker[1] + "/v1/receipts", content=b"[" * 2_000, timeout=60)
    assert (answer.status_code, answer.json()["field"]) == (413, "body")
