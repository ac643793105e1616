"""The paths of the brokers before us: each generation's own way, and the validators' client pulls from all of them."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.broker_parts import BROKER_KEY, CONSUMER, NOW_MS, PART, STREAM, BrokerParts, a_network, serving
from tests.builders import a_key, a_p256_message, a_record
from tests.fakes.held_pulls import HeldPull, fetch_window
from validator.broker.gate import Terms
from validator.net.brokers.client import BrokerClient
from validator.net.brokers.dialects import make_logins
from validator.ports.sources import Broker
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.legacy_array import read_legacy_array
from validator.protocol.codec.message import make_record
from validator.protocol.codec.protobuf import read_protobuf, write_protobuf
from validator.protocol.codec.statement import SigningContext
from validator.protocol.model import Address, Record, StreamPart, Window

FIRST_MS = NOW_MS - 10_000
WINDOW = Window(FIRST_MS, FIRST_MS + 4_000)
LOGINS = make_logins(CONSUMER)


def a_part_record(number: int) -> Record:
    return a_record(
        a_key(1 + number % 2),
        stream_id=STREAM,
        partition=1,
        timestamp_ms=FIRST_MS + number * 10,
        content=b'{"n":%d}' % number,
    )


PLAIN = [a_part_record(n) for n in range(20)]
BINARY = make_record(a_p256_message(stream_id=STREAM, partition=1, timestamp_ms=FIRST_MS + 55))
HELD = sorted([*PLAIN, BINARY], key=lambda record: record.order)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    parts = BrokerParts(tmp_path_factory.mktemp("broker"), page_rows=7)
    parts.store.insert(HELD, NOW_MS)
    with serving(parts.app, streams=True) as url:
        yield url
    parts.close()


def get(url: str, prefix: str, kind: str, *, login: str | None = None, **params: Any) -> httpx.Response:
    headers = {} if login is None else {"authorization": login}
    path = f"/{prefix}/{quote(STREAM, safe='')}/data/partitions/1/{kind}"
    return httpx.get(url + path, params=params, headers=headers, timeout=30)


SPAN = {"fromTimestamp": FIRST_MS, "toTimestamp": FIRST_MS + 4_000}


@pytest.mark.parametrize("prefix", ["streams", "stores"])
def test_lines_come_in_pages_that_say_where_the_next_begins(url: str, prefix: str) -> None:
    found = []
    start: dict[str, int] = {}
    for _ in range(10):
        answer = get(url, prefix, "range", login=LOGINS[True], format="raw", **{**SPAN, **start})
        *lines, metadata = answer.text.split("\n")
        found += [read_legacy_array(line.encode()) for line in lines]
        told = httpx.Response(200, text=metadata).json()
        assert told["totalMessages"] == len(lines) <= 7
        if not told["hasNext"]:
            break
        start = {"fromTimestamp": told["nextTimestamp"], "fromSequenceNumber": told["nextSequenceNumber"]}
    assert found == [record.message for record in PLAIN]


def test_frames_hold_all_and_an_empty_answer_has_neither_type_nor_body(url: str) -> None:
    answer = get(url, "stores", "range", login=LOGINS[False], format="raw", **SPAN)
    assert answer.content == b"".join(write_frame(write_protobuf(record.message)) for record in HELD)
    assert answer.headers["content-type"] == "application/octet-stream"
    empty = get(url, "stores", "range", login=LOGINS[False], format="raw", fromTimestamp=1, toTimestamp=2)
    assert (empty.status_code, empty.content, empty.headers.get("content-type")) == (200, b"", None)


def test_streamrs_own_interface_needs_no_login(url: str) -> None:
    answer = get(url, "streams", "last", count=3, format="raw")
    assert answer.content == b"".join(write_frame(write_protobuf(record.message)) for record in HELD[-3:])
    since = get(url, "streams", "from", fromTimestamp=FIRST_MS + 150, format="raw")
    assert since.content == b"".join(write_frame(write_protobuf(record.message)) for record in HELD[-5:])
    stored = f"{url}/streams/{quote(STREAM, safe='')}/storage/partitions/"
    assert [httpx.get(stored + n).status_code for n in ("1", "3", "x")] == [200, 404, 400]
    assert [m["timestamp"] for m in get(url, "streams", "last").json()] == [HELD[-1].message.timestamp_ms]


def test_clients_of_the_later_node_hear_whether_a_partition_is_ready(url: str) -> None:
    partitions = f"{url}/stores/{quote(STREAM, safe='')}/partitions/"
    answers = [httpx.get(f"{partitions}{n}/ready?timeout=30000") for n in ("1", "3", "x")]
    assert [answer.status_code for answer in answers] == [200, 200, 400]
    assert [answer.json() for answer in answers[:2]] == [{"ready": True}, {"ready": False}]
    assert answers[2].json()["error"] == 'Path parameter "partition" not a number: x'


def test_objects_are_those_of_their_generation(url: str) -> None:
    old = get(url, "streams", "last", login=LOGINS[True]).json()
    assert old["messages"][0]["content"] == {"n": 19}
    assert old["messages"][0]["metadata"]["id"]["timestamp"] == FIRST_MS + 190
    new = get(url, "stores", "last", login=LOGINS[False]).json()
    assert new["messages"][0]["content"] == {"n": 19}
    assert new["metadata"] == {"hasNext": False, "totalMessages": 1, "type": "metadata"}


@pytest.mark.parametrize(
    ("prefix", "kind", "params", "status", "error"),
    [
        ("streams", "range", {}, 400, 'Query parameter "fromTimestamp" required.'),
        ("streams", "range", {"fromTimestamp": "x"}, 400, 'Query parameter "fromTimestamp" not a number: x'),
        ("streams", "range", {"fromTimestamp": 1}, 400, 'Query parameter "toTimestamp" required as well.'),
        (
            "stores",
            "range",
            {**SPAN, "publisherId": "0x00"},
            400,
            'Invalid combination of "publisherId" and "msgChainId"',
        ),
        ("stores", "last", {"count": "x"}, 400, 'Query parameter "count" not a number: x'),
        ("stores", "all", {}, 400, "Unknown query type"),
        ("shops", "last", {}, 404, "no such path"),
    ],
)
def test_errors_are_worded_as_the_old_brokers_word_them(
    url: str, prefix: str, kind: str, params: dict[str, Any], status: int, error: str
) -> None:
    answer = get(url, prefix, kind, login=LOGINS[True], **params)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_logins_are_refused_as_the_old_brokers_refuse_them(url: str) -> None:
    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    user = "0x" + CONSUMER.address.hex()
    stranger = base64.b64decode(make_logins(a_key(9))[False][6:]).decode().partition(":")[2]
    assert get(url, "stores", "last").status_code == 401
    assert get(url, "stores", "last", login=basic(f"{user}:{stranger}")).status_code == 403
    assert get(url, "stores", "last", login=basic(f"{user}:")).status_code == 403
    assert get(url, "stores", "last", login=basic(f"{user}:0xzz")).status_code == 500
    assert get(url, "stores", "last", login="Basic ?").status_code == 403


def test_a_publishers_messages_alone(url: str) -> None:
    own = "0x" + a_key(2).address.hex()
    answer = get(url, "stores", "from", login=LOGINS[False], format="raw", fromTimestamp=0, publisherId=own)
    bodies = []
    at = 0
    while at < len(answer.content):
        size = int.from_bytes(answer.content[at : at + 4], "big")
        bodies.append(read_protobuf(answer.content[at + 4 : at + 4 + size]))
        at += 4 + size
    assert bodies == [record.message for record in PLAIN[1::2]]


def test_the_validators_client_pulls_the_whole_window(url: str) -> None:
    client = BrokerClient(CONSUMER, allow_http=True, allow_nets=(ip_network("127.0.0.0/8"),))
    (pull,) = fetch_window(
        client,
        [Broker(BROKER_KEY.address, url)],
        [PART],
        WINDOW,
        etags={},
        deadline_ms=int(time.time() * 1000) + 20_000,
    )
    assert pull.complete, pull.error
    assert len({record.data for record in pull.records}) == len(HELD)
    client.close()


def pull_v1(url: str, broker: Address, parts: list[StreamPart], **more: Any) -> list[HeldPull]:
    network = a_network()
    context = SigningContext(network.chain_id, network.contracts.report_manager)
    client = BrokerClient(CONSUMER, allow_http=True, allow_nets=(ip_network("127.0.0.0/8"),), context=context)
    deadline_ms = int(time.time() * 1000) + 20_000
    etags = more.get("etags", {})
    pulls = fetch_window(client, [Broker(broker, url)], parts, WINDOW, etags=etags, deadline_ms=deadline_ms)
    client.close()
    return pulls


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker whose clock is right, so that the client's tokens are good there."""
    parts = BrokerParts(tmp_path_factory.mktemp("today"))
    parts.now_ms = int(time.time() * 1000)
    parts.store.insert(HELD, NOW_MS)
    with serving(parts.app, streams=True) as url:
        yield url
    parts.close()


def test_validators_prefer_v1_and_take_its_trailer_for_the_end(today: str) -> None:
    pull, unknown = pull_v1(today, BROKER_KEY.address, [PART, ("0x/none", 0)])
    assert (pull.complete, pull.error) == (True, "")
    assert [(record.form, record.data) for record in pull.records] == [("canonical", r.canonical) for r in HELD]
    assert (unknown.complete, unknown.records) == (True, ())
    assert pull.etag is not None
    (again,) = pull_v1(today, BROKER_KEY.address, [PART], etags={(BROKER_KEY.address, PART): pull.etag})
    assert (again.unchanged, again.complete) == (True, True)


def test_an_answer_that_another_broker_signed_is_not_complete(today: str) -> None:
    (pull,) = pull_v1(today, a_key(9).address, [PART])
    assert pull.complete  # its token was for another broker, so the old paths were asked
    assert {record.form for record in pull.records} == {"protobuf"}


@pytest.mark.parametrize("fault", ["cut", "count", "signature", "behind", "kind"])
def test_a_trailer_that_is_not_right_completes_nothing(today: str, fault: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Hands the answer on, and alters its end."""
        target = scope["raw_path"].decode() + "?" + scope["query_string"].decode()
        headers = {name.decode(): value.decode() for name, value in scope["headers"] if name != b"host"}
        async with httpx.AsyncClient() as client:
            answer = await client.get(today + target, headers=headers)
        body, status = answer.content, answer.status_code
        if b"/v1/" not in scope["raw_path"]:
            body, status = b"", 404
        elif fault == "cut":
            body = body[:-10]
        elif fault == "count":
            size = int.from_bytes(body[:4], "big")
            body = body[4 + size :]
        elif fault == "signature":
            body = body[:-1] + bytes([body[-1] ^ 1])
        elif fault == "behind":
            body += body[: 4 + int.from_bytes(body[:4], "big")]
        else:
            body = (3).to_bytes(4, "big") + b"abc" + body
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    with serving(app) as url:
        (pull,) = pull_v1(url, BROKER_KEY.address, [PART])
    assert not pull.complete
    assert pull.error


def test_an_operator_may_close_streamrs_interface(tmp_path_factory: pytest.TempPathFactory) -> None:
    parts = BrokerParts(tmp_path_factory.mktemp("closed"), terms=Terms(streamr=False))
    with serving(parts.app, streams=True) as url:
        assert get(url, "streams", "last").status_code == 401
    parts.close()
