"""A broker's public listener over loopback: what is put in comes out, whole, in order, in every form, and signed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow as pa
import pytest

from tests.broker_parts import BROKER_KEY, CONSUMER, NOW_MS, PART, STREAM, BrokerParts, serving
from tests.builders import a_key, a_p256_message, a_record
from validator.protocol.codec.answer import Answer, decode_answer, read_text, verify_answer
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.message import decode_message, make_record
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.receipt import sign_receipt, write_receipt
from validator.protocol.codec.slice_claim import MAX_CLAIM_BYTES, decode_claim, verify_claim
from validator.protocol.merkle import compute_root
from validator.protocol.model import Record

COUNT = 1_000
FRAMES = "application/vnd.logstore.frames"
FIRST_MS = NOW_MS - 100_000


def a_part_record(number: int, **fields: Any) -> Record:
    content = fields.pop("content", b'{"n":%d}' % number)
    return a_record(
        a_key(1 + number % 2),
        stream_id=STREAM,
        partition=1,
        timestamp_ms=FIRST_MS + number // 3,
        sequence_number=number % 3,
        content=content,
        **fields,
    )


HELD = sorted((a_part_record(n) for n in range(COUNT)), key=lambda record: record.order)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerParts]:
    parts = BrokerParts(tmp_path_factory.mktemp("broker"), page_rows=400)
    parts.store.insert(HELD, NOW_MS)
    yield parts
    parts.close()


@pytest.fixture(scope="module")
def client(parts: BrokerParts) -> Iterator[httpx.Client]:
    with (
        serving(parts.app, streams=True) as url,
        httpx.Client(base_url=url, headers={"authorization": parts.token()}, timeout=30, trust_env=False) as client,
    ):
        yield client


def path(what: str, stream: str = STREAM, partition: int = 1) -> str:
    return f"/v1/streams/{quote(stream, safe='')}/partitions/{partition}/{what}"


def split(body: bytes) -> tuple[list[bytes], Answer]:
    items = []
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        items.append(body[at + 4 : at + 4 + size])
        at += 4 + size
    return items[:-1], decode_answer(items[-1])


def ask(client: httpx.Client, **params: Any) -> tuple[list[bytes], Answer]:
    span = {"from": FIRST_MS, "to": NOW_MS} | params
    answer = client.get(path("messages"), params=span, headers={"accept": FRAMES})
    assert answer.status_code == 200, answer.text
    return split(answer.content)


def a_receipt(parts: BrokerParts, cumulative_bytes: int) -> bytes:
    network = parts.network
    return write_receipt(
        sign_receipt(
            CONSUMER,
            BROKER_KEY.address,
            0,
            cumulative_bytes,
            9,
            chain_id=network.chain_id,
            query_manager=network.contracts.query_manager,
        )
    )


def test_frames_are_all_messages_in_order_under_a_signed_root(client: httpx.Client, parts: BrokerParts) -> None:
    items, answer = ask(client)
    assert items == [record.canonical for record in HELD]
    verify_answer(answer, parts.context)
    assert answer.broker == BROKER_KEY.address
    assert (answer.count, answer.root) == (COUNT, compute_root([record.leaf for record in HELD]))
    assert answer.signed_bytes == sum(record.signed_bytes for record in HELD)
    assert answer.next == b""


def test_pages_by_cursor_give_each_message_once(client: httpx.Client, parts: BrokerParts) -> None:
    found: list[bytes] = []
    cursor: dict[str, str] = {}
    for _ in range(COUNT):
        answer = client.get(
            path("messages"),
            params={"from": FIRST_MS, "to": NOW_MS, "limit": 270, **cursor},
            headers={"accept": "application/x-ndjson"},
        )
        *messages, last = [json.loads(line) for line in answer.text.splitlines()]
        found += [bytes.fromhex(message["message"]["leaf"]) for message in messages]
        if last["answer"]["next"] is None:
            break
        cursor = {"cursor": last["answer"]["next"]}
    assert found == [record.leaf for record in HELD]
    told = last["answer"]
    verify_answer(decode_answer(read_text(told["canonical"], "canonical", max_bytes=10_000)), parts.context)
    assert told["after"] == cursor["cursor"]


def test_arrow_and_events_say_the_same_as_lines(client: httpx.Client) -> None:
    span = {"from": FIRST_MS, "to": FIRST_MS + 50}
    lines = client.get(path("messages"), params=span).text.splitlines()
    said = [json.loads(line)["message"] for line in lines[:-1]]
    arrow = client.get(path("messages"), params=span | {"format": "arrow"})
    reader = pa.ipc.open_stream(io.BytesIO(arrow.content))
    rows, metadata = [], None
    while True:
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
        rows += batch.to_pylist()
    assert [row["leaf"] for row in rows] == [message["leaf"] for message in said]
    assert [row["content"] for row in rows] == [message["content"] for message in said]
    assert metadata is not None
    assert decode_answer(metadata[b"answer"]).count == len(said)
    events = client.get(path("messages"), params=span, headers={"accept": "text/event-stream"}).text.split("\n\n")
    data = [json.loads(event.split("\ndata: ")[1]) for event in events if event.startswith("event: message")]
    assert data == said
    assert events[-2].startswith("event: answer")


def test_last_and_summary(client: httpx.Client, parts: BrokerParts) -> None:
    body = client.get(path("last"), params={"count": 7}, headers={"accept": FRAMES}).content
    items, answer = split(body)
    assert items == [record.canonical for record in HELD[-7:]]
    assert answer.count == 7
    summary = client.get(path("summary"), params={"from": FIRST_MS, "to": NOW_MS}).json()
    assert summary["count"] == COUNT == sum(part["count"] for part in summary["slices"])
    assert summary["root"] == compute_root([record.leaf for record in HELD]).hex()
    claim = decode_claim(read_text(summary["claim"], "claim", max_bytes=MAX_CLAIM_BYTES))
    verify_claim(claim, parts.context)
    assert (claim.broker, claim.part, claim.from_ms, claim.until_ms) == (BROKER_KEY.address, PART, FIRST_MS, NOW_MS)
    assert (claim.count, claim.root.hex()) == (COUNT, summary["root"])
    empty = client.get(path("summary"), params={"from": 1, "to": 2}).json()
    assert decode_claim(read_text(empty["claim"], "claim", max_bytes=MAX_CLAIM_BYTES)).count == empty["count"] == 0


@pytest.mark.parametrize("off_ms", [-60_000, 60_000])
def test_a_brokers_clock_that_is_off_by_a_minute_refuses_no_token(
    client: httpx.Client, parts: BrokerParts, off_ms: int
) -> None:
    token = parts.token(life_ms=1_000)
    parts.now_ms += off_ms
    try:
        assert client.get(path("last"), headers={"authorization": token}).status_code == 200
        assert client.get("/v1/head").json()["time"] == NOW_MS + off_ms
    finally:
        parts.now_ms -= off_ms


def test_an_unchanged_span_is_not_sent_again(client: httpx.Client) -> None:
    span = {"from": FIRST_MS, "to": NOW_MS}
    first = client.get(path("messages"), params=span, headers={"accept": FRAMES})
    again = client.get(
        path("messages"), params=span, headers={"accept": FRAMES, "if-none-match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("where", "params", "status", "field"),
    [
        (path("messages"), {}, 400, "from"),
        (path("messages"), {"from": "x"}, 400, "from"),
        (path("messages"), {"from": 5, "to": 5}, 400, "to"),
        (path("messages"), {"from": 9, "to": 5}, 400, "to"),
        (path("messages"), {"from": 5, "to": 10**17}, 400, "to"),
        (path("messages"), {"from": 5, "limit": -1}, 400, "limit"),
        (path("messages"), {"from": 5, "cursor": "AAAA"}, 400, "cursor"),
        (path("messages"), {"from": 5, "format": "xml"}, 400, "format"),
        (path("messages"), {"from": 5, "asOf": 3}, 400, "asOf"),
        (path("messages"), {"from": 5, "proof": "full"}, 400, "proof"),
        (path("messages", partition=3), {"from": 5}, 404, "partition"),
        (path("messages", stream="0x/none"), {"from": 5}, 404, "stream"),
        (path("last"), {"count": 10_001}, 400, "count"),
        (path("summary"), {"from": 0}, 400, "to"),
        (path("unknown"), {}, 404, None),
        ("/v1/streams/x", {}, 404, None),
    ],
)
def test_what_cannot_be_meant_names_its_field(
    client: httpx.Client, where: str, params: dict[str, Any], status: int, field: str | None
) -> None:
    answer = client.get(where, params=params)
    assert (answer.status_code, answer.json().get("field")) == (status, field)
    assert field is None or answer.json()["error"].startswith(field)


def test_a_cursor_of_another_request_is_refused(client: httpx.Client) -> None:
    lines = client.get(path("messages"), params={"from": FIRST_MS, "to": NOW_MS, "limit": 3}).text.splitlines()
    cursor = json.loads(lines[-1])["answer"]["next"]
    answer = client.get(path("messages"), params={"from": FIRST_MS, "to": NOW_MS - 1, "cursor": cursor})
    assert answer.status_code == 400
    assert answer.json() == {"error": "cursor: of another request", "field": "cursor"}


def test_who_asks_must_say_so_to_this_broker_and_hold_a_balance(client: httpx.Client, parts: BrokerParts) -> None:
    def status(header: str) -> int:
        return client.get(path("last"), headers={"authorization": header}).status_code

    assert status(parts.token()) == 200
    assert status("Basic eDp5") == 401
    assert status(parts.token(broker=CONSUMER.address)) == 401
    assert status(parts.token(life_ms=-100_000)) == 401
    assert status(parts.token(life_ms=10_000_000)) == 401
    assert status(parts.token()[:-8] + "AAAAAAAA") == 401
    parts.source.poor.add(a_key(79).address)
    assert status(parts.token(a_key(79))) == 402
    assert httpx.get(f"{client.base_url}{path('last')}").status_code == 401


def test_posted_messages_are_judged_one_by_one(client: httpx.Client, parts: BrokerParts) -> None:
    good = a_part_record(0, content=b'"posted"', msg_chain_id="posted")
    forged = a_part_record(1, publisher_id=a_key(9).address)
    old = a_record(stream_id=STREAM, partition=1, timestamp_ms=NOW_MS - 40 * 86_400_000)
    elsewhere = a_record(stream_id=STREAM, partition=2, timestamp_ms=NOW_MS)
    binary = make_record(a_p256_message(stream_id=STREAM, partition=1, timestamp_ms=NOW_MS - 3_600_000))
    messages = [r.message for r in (good, forged, old, elsewhere, binary)]
    body = b"".join(write_frame(write_protobuf(message)) for message in messages) + write_frame(b"\xff")
    first = client.post(path("messages"), content=body).json()
    assert [m["fate"] for m in first["messages"]] == ["stored", "refused", "refused", "refused", "stored", "refused"]
    assert [m.get("reason") for m in first["messages"]] == [
        None,
        "bad_signature",
        "too_old",
        "wrong_stream",
        None,
        "malformed",
    ]
    assert client.post(path("messages"), content=write_frame(write_protobuf(good.message))).json()["known"] == 1
    parts.admission._recent.clear()
    assert client.post(path("messages"), content=write_frame(write_protobuf(good.message))).json()["known"] == 1
    found = parts.store.fetch(PART, [(good.message.timestamp_ms, good.leaf)])
    assert [decode_message(row.canonical) for row in found] == [good.message]


def test_a_receipt_is_kept_once_and_published_at_once(client: httpx.Client, parts: BrokerParts) -> None:
    content = a_receipt(parts, 5_000)
    assert client.post("/v1/receipts", content=content).json()["kept"] is True
    assert client.post("/v1/receipts", content=content).json()["kept"] is False
    (row,) = parts.store.last(parts.chain.system_part, 10)
    message = decode_message(row.canonical)
    assert (message.content, message.publisher_id) == (content, BROKER_KEY.address)
    foreign = content.replace(b'"5000"', b'"6000"')
    assert client.post("/v1/receipts", content=foreign).status_code == 400


def test_head_says_who_and_when(client: httpx.Client) -> None:
    head = client.get("/v1/head").json()
    assert (head["broker"], head["time"], head["block"]["number"]) == ("0x" + BROKER_KEY.address.hex(), NOW_MS, 1)


def test_reading_stops_where_too_much_is_unpaid(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path, unpaid_limit=20_000)
    parts.store.insert(HELD, NOW_MS)
    with (
        serving(parts.app, streams=True) as url,
        httpx.Client(base_url=url, headers={"authorization": parts.token()}, timeout=30) as client,
    ):
        items, answer = ask(client)
        assert 0 < len(items) < COUNT
        assert answer.next
        refused = client.get(path("last"))
        assert (refused.status_code, refused.json()["field"]) == (402, "receipt")
        content = a_receipt(parts, answer.signed_bytes)
        assert client.post("/v1/receipts", content=content).json()["kept"] is True
        assert client.get(path("last")).status_code == 200
    parts.close()


def test_followers_get_what_comes_and_too_many_a_reason(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path, followers=1)
    parts.store.insert(HELD[:10], NOW_MS)
    events = {"accept": "text/event-stream", "authorization": parts.token()}
    with serving(parts.app, streams=True) as url, httpx.Client(base_url=url, headers=events, timeout=30) as client:
        with client.stream("GET", path("messages"), params={"from": FIRST_MS}) as answer:
            lines = answer.iter_lines()
            leaves: list[str] = []
            while len(leaves) < 12:
                line = next(lines)
                if line.startswith("data: "):
                    leaves.append(json.loads(line[6:])["leaf"])
                if len(leaves) == 10 and not line:
                    parts.store.insert(HELD[10:12], NOW_MS)
            other = httpx.get(f"{url}{path('messages')}?from={FIRST_MS}", headers=events)
            assert (other.status_code, other.json()["field"]) == (503, "followers")
        assert leaves == [record.leaf.hex() for record in HELD[:12]]
    parts.close()
