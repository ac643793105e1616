"""The development network's broker over HTTP: each era's path, login, formats and paging; receipts."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.cast import CHAIN_ID, QUERY_MANAGER, SYSTEM, Cast, broker_address, run_cast
from tests.fakes.hostile_http import hostile_server, http
from validator.devnet.eras import Era, era_of
from validator.devnet.publisher import MessageChain, personal_digest
from validator.net.brokers.dialects import make_logins
from validator.net.brokers.pages import read_frames
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.legacy_array import read_legacy_array
from validator.protocol.codec.protobuf import read_protobuf, write_protobuf
from validator.protocol.codec.receipt import receipt_of, sign_receipt, write_receipt
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.model import Address

KEY = SigningKey(b"\x31" * 32)
PUBLISHER = SigningKey(b"\x32" * 32)
STREAM = "0x" + "cc" * 20 + "/a/b"
MANAGER = Address(bytes.fromhex(QUERY_MANAGER[2:]))
LINES = [
    MessageChain(PUBLISHER, STREAM, 0, f"{number:020d}").sign(1000 + number, b'{"n":"%d \xc3\xa4"}' % number)
    for number in range(12)
]
BODIES = [write_protobuf(read_legacy_array(line)) for line in LINES]
LOGINS = make_logins(KEY)
LOGIN = {"authorization": LOGINS[True]}
NAMES = {Era.YEAR_2023: "b", Era.JANUARY_2024: "january", Era.APRIL_2024: "april"}


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    with run_cast(tmp_path_factory.mktemp("cast")) as cast:
        for era, name in NAMES.items():
            url = cast.broker(name, page_limit=5, era=era)
            body = b"\n".join(LINES) if era is not Era.APRIL_2024 else b"".join(map(write_frame, BODIES))
            assert httpx.post(url + "/ingest", content=body).json()["new"] == len(LINES)
        yield cast


def ask(cast: Cast, path: str, era: Era = Era.YEAR_2023, tag: str | None = None) -> httpx.Response:
    target = f"{cast.url(NAMES[era])}/{path.format(id=quote(STREAM, safe=''))}"
    headers = {"authorization": LOGINS[era.dialect.hex_password]}
    return httpx.get(target, headers=headers if tag is None else {**headers, "if-none-match": tag})


RANGE = "streams/{id}/data/partitions/0/range"


def test_raw_answers_are_lines_and_a_metadata_line(cast: Cast) -> None:
    answer = ask(cast, RANGE + "?fromTimestamp=1002&toTimestamp=1004&format=raw")
    assert answer.headers["content-type"].startswith("text/plain")
    *lines, metadata = answer.content.split(b"\n")
    assert lines == LINES[2:5]
    assert json.loads(metadata) == {"hasNext": False, "totalMessages": 3, "type": "metadata"}


def test_pages_say_where_the_next_one_begins(cast: Cast) -> None:
    got: list[bytes] = []
    start = (0, 0)
    pages = 0
    while True:
        span = f"?fromTimestamp={start[0]}&fromSequenceNumber={start[1]}&toTimestamp=9999&format=raw"
        *lines, last = ask(cast, RANGE + span).content.split(b"\n")
        got += lines
        pages += 1
        metadata = json.loads(last)
        assert metadata["totalMessages"] == len(lines) <= 5
        if not metadata["hasNext"]:
            break
        start = (metadata["nextTimestamp"], metadata["nextSequenceNumber"])
    assert got == LINES
    assert pages == 3


@pytest.mark.parametrize("era", list(Era))
def test_each_era_has_three_kinds_of_query_below_its_own_path_only(cast: Cast, era: Era) -> None:
    def messages(query: str) -> list[bytes]:
        body = ask(cast, f"{era.dialect.prefix}/{{id}}/data/partitions/0/{query}&format=raw", era).content
        if era is Era.APRIL_2024:
            return split_frames(body)
        return body.split(b"\n")[:-1]

    sent = BODIES if era is Era.APRIL_2024 else LINES
    assert messages("last?count=2") == sent[-2:]
    assert messages("from?fromTimestamp=1009") == sent[9:]
    assert messages("range?fromTimestamp=1000&toTimestamp=1000") == sent[:1]
    other = {"streams": "stores", "stores": "streams"}[era.dialect.prefix]
    assert ask(cast, other + "/{id}/data/partitions/0/last", era).status_code == 404


def split_frames(body: bytes) -> list[bytes]:
    got: list[bytes] = []
    read_frames([body], lambda bodies, _form: got.extend(bodies))
    return got


def test_three_brokers_are_one_of_each_era_and_one_alone_is_of_the_newest() -> None:
    assert {era_of(index) for index in range(3)} == set(Era)
    assert era_of(0) is era_of(3) is Era.APRIL_2024


@pytest.mark.parametrize("era", list(Era))
def test_each_era_says_in_its_own_way_that_there_is_nothing(cast: Cast, era: Era) -> None:
    path = era.dialect.prefix + "/{id}/data/partitions/0/range?fromTimestamp=1&toTimestamp=2&format=raw"
    answer = ask(cast, path, era)
    assert answer.status_code == 200
    if era is Era.APRIL_2024:
        assert (answer.content, answer.headers.get("content-type")) == (b"", None)
    else:
        assert answer.content == b'\n{"hasNext":false,"totalMessages":0,"type":"metadata"}'


def test_a_metadata_line_is_written_as_the_real_one_is(cast: Cast) -> None:
    answer = ask(cast, RANGE + "?fromTimestamp=1000&toTimestamp=9999&format=raw")
    assert answer.content.split(b"\n")[-1] == (
        b'{"hasNext":true,"nextTimestamp":1005,"nextSequenceNumber":0,"totalMessages":5,"type":"metadata"}'
    )


def test_the_newest_drops_the_connection_where_there_is_more_than_one_answer_may_hold(cast: Cast) -> None:
    path = "stores/{id}/data/partitions/0/range?fromTimestamp=1000&toTimestamp=9999&format=raw"
    target = f"{cast.url('april')}/{path.format(id=quote(STREAM, safe=''))}"
    got = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("GET", target, headers={"authorization": LOGINS[False]}) as answer,
    ):
        assert answer.headers["content-type"] == "application/octet-stream"
        for piece in answer.iter_raw():
            got += piece
    assert split_frames(got) == BODIES[:5]


def test_the_newest_gives_flat_objects_and_no_other_format(cast: Cast) -> None:
    path = "stores/{id}/data/partitions/0/range?fromTimestamp=1000&toTimestamp=1000"
    (message,) = ask(cast, path, Era.APRIL_2024).json()["messages"]
    true = read_protobuf(BODIES[0])
    assert message["content"] == {"n": "0 ä"}
    assert (message["timestamp"], message["publisherId"]) == (1000, "0x" + PUBLISHER.address.hex())
    assert (message["signatureType"], message["signature"]) == (0, true.signature.hex())
    refused = ask(cast, path + "&format=protocol", Era.APRIL_2024)
    assert (refused.status_code, refused.json()) == (400, {"error": 'Query parameter "format" is invalid: protocol'})


@pytest.mark.parametrize("era", list(Era))
def test_a_password_in_the_other_form_is_a_500(cast: Cast, era: Era) -> None:
    target = f"{cast.url(NAMES[era])}/{era.dialect.prefix}/{quote(STREAM, safe='')}/data/partitions/0/last"
    other = {"authorization": LOGINS[not era.dialect.hex_password]}
    assert httpx.get(target, headers=other).status_code == 500


@pytest.mark.parametrize("body", [b"\x00\x00\x00\x05abc", b"\xff" * 9])
def test_what_is_no_frame_is_refused(cast: Cast, body: bytes) -> None:
    assert httpx.post(cast.url("april") + "/ingest", content=body).status_code == 400


def test_protocol_and_object_hold_the_same_messages_in_an_envelope(cast: Cast) -> None:
    span = "?fromTimestamp=1000&toTimestamp=1001"
    protocol = ask(cast, RANGE + span + "&format=protocol").json()
    assert [text.encode() for text in protocol["messages"]] == LINES[:2]
    assert protocol["metadata"] == {"hasNext": False, "totalMessages": 2, "type": "metadata"}
    first = ask(cast, RANGE + span).json()["messages"][0]
    assert first["content"] == {"n": "0 ä"}
    assert first["metadata"]["id"] == {
        "streamId": STREAM,
        "streamPartition": 0,
        "timestamp": 1000,
        "sequenceNumber": 0,
        "publisherId": "0x" + PUBLISHER.address.hex(),
        "msgChainId": "0" * 20,
    }


def test_a_range_carries_a_tag_and_a_304_answers_it(cast: Cast) -> None:
    path = RANGE + "?fromTimestamp=1000&toTimestamp=1003&format=raw"
    tag = ask(cast, path).headers["etag"]
    again = ask(cast, path, tag=tag)
    assert (again.status_code, again.content) == (304, b"")
    assert ask(cast, path, tag='"other"').status_code == 200


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("streams/{id}/data/partitions/zero/last", 'Path parameter "partition" not a number: zero'),
        ("streams/{id}/data/partitions/0/last?count=x", 'Query parameter "count" not a number: x'),
        ("streams/{id}/data/partitions/0/from", 'Query parameter "fromTimestamp" required.'),
        (RANGE + "?fromTimestamp=1", 'Query parameter "toTimestamp" required as well.'),
        (RANGE + "?fromTimestamp=x&toTimestamp=2", 'Query parameter "fromTimestamp" not a number: x'),
        (
            RANGE + "?fromTimestamp=1&toTimestamp=2&publisherId=0x1",
            'Invalid combination of "publisherId" and "msgChainId"',
        ),
    ],
)  # fmt: skip
def test_a_wrong_question_is_a_400_that_says_why(cast: Cast, path: str, error: str) -> None:
    answer = ask(cast, path)
    assert (answer.status_code, answer.json()) == (400, {"error": error})


def test_a_stream_id_whose_slashes_are_not_encoded_is_not_found(cast: Cast) -> None:
    assert ask(cast, f"streams/{STREAM}/data/partitions/0/last").status_code == 404


def logins() -> list[tuple[str | None, int]]:
    def header(user: str, password: str) -> str:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    user = "0x" + KEY.address.hex()
    signature = KEY.sign(personal_digest(user.encode()))
    stranger = PUBLISHER.sign(personal_digest(user.encode()))
    return [
        (None, 401),
        ("Bearer x", 401),
        ("Basic ???", 403),
        (header(user, ""), 403),
        (header(user, "0x" + stranger.hex()), 403),
        (header(user, signature.hex()), 500),
        (header(user.upper(), "0x" + signature.hex()), 403),
        (header(user, "0x" + signature.hex()[:-2]), 500),
        (header(user, "0x" + signature.hex()), 200),
    ]


@pytest.mark.parametrize(("header", "status"), logins())
def test_a_login_is_the_signature_over_the_lower_case_address(cast: Cast, header: str | None, status: int) -> None:
    headers = {} if header is None else {"authorization": header}
    target = f"{cast.url('b')}/streams/{quote(STREAM, safe='')}/data/partitions/0/last"
    assert httpx.get(target, headers=headers).status_code == status


def test_each_delivery_is_logged_repeated_ones_too(cast: Cast) -> None:
    extra = MessageChain(PUBLISHER, STREAM, 5, "z" * 20).sign(5000, b"{}")
    answer = httpx.post(cast.url("b") + "/ingest", content=b"\n".join([extra, extra, b"[broken"]))
    assert answer.json() == {"received": 3, "new": 1, "refused": 1}
    logged = [entry for entry in cast.lines("b.deliveries") if entry["line"] == extra.decode()]
    assert len(logged) == 2
    assert {entry["sha256"] for entry in logged} == {hashlib.sha256(extra).hexdigest()}
    assert all(isinstance(entry["time_ms"], int) for entry in logged)


def test_without_a_balance_nothing_is_answered_and_the_node_is_asked_once_in_a_while(tmp_path: Path) -> None:
    calls: list[bytes] = []
    balances = {KEY.address: 1}

    def node(head: bytes, connection: socket.socket) -> None:
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = head.partition(b"\r\n\r\n")[2]
        while len(body) < length:
            body += connection.recv(65536)
        call = json.loads(body)["params"][0]
        calls.append(call["data"])
        assert call["to"] == QUERY_MANAGER
        consumer = Address(bytes.fromhex(call["data"][-40:]))
        result = "0x" + f"{balances.get(consumer, 0):064x}"
        connection.sendall(http(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()))

    with hostile_server(node) as rpc_url, run_cast(tmp_path) as cast:
        url = cast.broker("b", rpc_url=rpc_url)
        target = f"{url}/streams/{quote(STREAM, safe='')}/data/partitions/0/last"
        assert [httpx.get(target, headers=LOGIN).status_code for _ in range(3)] == [200, 200, 200]
        poor = httpx.get(target, headers={"authorization": make_logins(PUBLISHER)[True]})
    assert (poor.status_code, poor.json()) == (400, {"error": "Not enough balance"})
    assert len(calls) == 2


def test_a_node_that_does_not_answer_is_a_500(tmp_path: Path) -> None:
    with run_cast(tmp_path) as cast:
        url = cast.broker("b", rpc_url="http://127.0.0.1:1025")
        answer = httpx.get(f"{url}/streams/x/data/partitions/0/last", headers=LOGIN)
    assert answer.status_code == 500


def test_a_growing_receipt_is_published_once_signed_by_the_broker_and_logged(tmp_path: Path) -> None:
    sent: list[bytes] = []

    def network(head: bytes, connection: socket.socket) -> None:
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = head.partition(b"\r\n\r\n")[2]
        while len(body) < length:
            body += connection.recv(65536)
        assert head.startswith(b"POST /publish ")
        sent.append(body)
        connection.sendall(http(b'{"sent":1}'))

    def receipt(total: int) -> bytes:
        signed = sign_receipt(KEY, broker_address("b"), 0, total, 9, chain_id=CHAIN_ID, query_manager=MANAGER)
        return write_receipt(signed)

    with hostile_server(network) as network_url, run_cast(tmp_path) as cast:
        (tmp_path / "network.port").write_text(network_url.rpartition(":")[2] + "\n")
        url = cast.broker("b", network_port_file=tmp_path / "network.port")
        kept = [httpx.post(url + "/receipts", content=receipt(total)).json()["kept"] for total in (100, 250, 250, 90)]
        bad = httpx.post(url + "/receipts", content=b'{"not":"a receipt"}')
        too_long = httpx.post(url + "/receipts", content=b" " * 5000)
        published = cast.lines("b.published")
    assert kept == [True, True, False, False]
    assert bad.status_code == 400
    assert too_long.status_code == 413
    assert [entry["line"].encode() for entry in published if entry["form"] == "array"] == sent
    assert [entry["form"] for entry in published] == ["array", "protobuf"] * 2
    assert {(entry["kind"], entry["stream"], entry["partition"]) for entry in published} == {("receipt", SYSTEM, 0)}
    messages = [read_legacy_array(line) for line in sent]
    assert all(verify_message(m) is VALID and m.publisher_id == broker_address("b") for m in messages)
    totals = []
    for message in messages:
        found = receipt_of(message, CHAIN_ID, MANAGER)
        assert found is not None
        totals.append(found.cumulative_bytes)
    assert totals == [100, 250]


@pytest.mark.parametrize(
    ("change", "field"),
    [({"key": "0x12"}, "key"), ({"query_manager": "0x12"}, "query_manager"), ({"page_limit": "many"}, "page_limit"),
     ({"unknown": 1}, "unknown"), ({"delivery_log": "/proc/none/x"}, "/proc/none/x")],
)  # fmt: skip
def test_a_wrong_config_is_one_line_and_status_2(tmp_path: Path, change: dict[str, object], field: str) -> None:
    with run_cast(tmp_path) as cast:
        process = cast.start("tests.fakes.old_broker", "b", {**cast.broker_config("b"), **change})
        assert process.stderr is not None
        text = process.stderr.read().decode()
        assert process.wait(20) == 2
    assert text.count("\n") == 1
    assert field in text
