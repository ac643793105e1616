"""Brokers that lie, stall, flood and lead astray: each survived, each named, none at another broker's cost."""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_network

import pytest
import zstandard

from tests.fakes.held_pulls import HeldPull, fetch_window
from tests.fakes.hostile_http import Answer, fixed, hostile_server, http
from validator.net.brokers.client import BrokerClient, Limits
from validator.net.brokers.pages import MAX_METADATA_BYTES, MAX_RECORD_BYTES
from validator.net.brokers.pull import PullFault
from validator.net.http.client import BoundedClient
from validator.ports.sources import Broker
from validator.protocol.codec.protobuf import read_protobuf, write_protobuf
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import publish_message
from validator.protocol.model import MIB, Address, SignatureType, Window

KEY = SigningKey(b"\x21" * 32)
PART = ("stream/a", 0)
WINDOW = Window(1_700_000_000_000, 1_700_000_004_000)
END = json.dumps({"hasNext": False, "totalMessages": 0, "type": "metadata"}).encode()
LINE = b'[32,["stream/a",0,1700000000001,0,"0xabc","c"],null]'
ADDRESS = Address(b"\x07" * 20)
PATIENT_S = 30.0
"""Nothing here lasts as long, on a loaded machine either."""
SMALL = Limits(page_bytes=4 * MIB, broker_bytes=8 * MIB, total_bytes=16 * MIB, pages=20)


def pull_from(url: str, seconds: float = PATIENT_S, limits: Limits = SMALL, etag: str | None = None) -> HeldPull:
    client = BrokerClient(KEY, allow_http=True, allow_nets=(ip_network("127.0.0.0/8"),), limits=limits)
    etags = {} if etag is None else {(ADDRESS, PART): etag}
    deadline_ms = int((time.time() + seconds) * 1000)
    (pull,) = fetch_window(client, [Broker(ADDRESS, url)], [PART], WINDOW, etags=etags, deadline_ms=deadline_ms)
    client.close()
    assert pull.complete is (pull.error == "")
    return pull


def pull_of(answer: Answer, seconds: float = PATIENT_S, limits: Limits = SMALL, etag: str | None = None) -> HeldPull:
    with hostile_server(answer) as url:
        return pull_from(url, seconds, limits, etag)


def slowly(connection: socket.socket, body: bytes, pause_s: float) -> None:
    for byte in body:
        connection.sendall(bytes([byte]))
        time.sleep(pause_s)


def chunked(connection: socket.socket, *headers: str) -> Callable[[bytes], None]:
    """Begin a chunked answer; what comes back sends one chunk."""
    head = ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *(headers or ["Content-Type: text/plain"])]
    connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n")
    return lambda piece: connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))


def test_one_byte_a_second_ends_with_the_deadline_and_keeps_what_came() -> None:
    def answer(_head: bytes, connection: socket.socket) -> None:
        send = chunked(connection)
        send(LINE + b"\n" + LINE + b"\n" + b"[")
        for _ in range(30):
            send(b"3")
            time.sleep(0.2)

    pull = pull_of(answer, seconds=1.5)
    assert pull.error.startswith(PullFault.DEADLINE)
    assert [record.data for record in pull.records] == [LINE]  # the second might have been the metadata line


def test_a_head_that_never_ends_ends_with_the_deadline() -> None:
    pull = pull_of(lambda _head, connection: slowly(connection, b"HTTP/1.1 200 OK\r\nX: " + b"y" * 30, 0.1), 1.0)
    assert pull.error.startswith(PullFault.DEADLINE)


def test_a_slow_broker_costs_its_own_pulls_only() -> None:
    with ExitStack() as stack:
        slow = stack.enter_context(hostile_server(lambda _head, connection: slowly(connection, b"H" * 40, 0.1)))
        good = stack.enter_context(hostile_server(fixed(http(LINE + b"\n" + END))))
        client = BrokerClient(KEY, allow_http=True, allow_nets=(ip_network("127.0.0.0/8"),))
        brokers = [Broker(ADDRESS, slow), Broker(Address(b"\x08" * 20), good)]
        parts = [("stream/a", number) for number in range(4)]
        pulls = fetch_window(client, brokers, parts, WINDOW, etags={}, deadline_ms=int(time.time() * 1000) + 3000)
        client.close()
    assert [pull.error.partition(":")[0] for pull in pulls[:4]] == [PullFault.DEADLINE] * 4
    assert all(pull.complete and len(pull.records) == 1 for pull in pulls[4:])


@pytest.mark.parametrize("whole", [True, False], ids=["between two lines", "inside a line"])
def test_a_cut_body_is_incomplete_and_keeps_its_whole_lines(whole: bool) -> None:
    body = LINE + b"\n" + LINE + b"\n" + (b"" if whole else b"[32,[")
    pull = pull_of(fixed(http(body, length=len(body) + 500)))
    assert pull.error.startswith(PullFault.CUT)
    assert pull.records[0].data == LINE
    assert pull.etag is None


def test_a_body_without_its_metadata_line_is_incomplete_although_http_saw_its_end() -> None:
    pull = pull_of(fixed(http(LINE + b"\n" + LINE, 'ETag: "1"')))
    assert pull.error.startswith(PullFault.CUT)
    assert [record.data for record in pull.records] == [LINE, LINE]
    assert pull.etag is None


@pytest.mark.parametrize(
    "following",
    [
        (WINDOW.start_ms, 0),
        (WINDOW.start_ms - 1, 5),
        (-1, 0),
        (WINDOW.end_ms, 0),
        (2**70, 0),
        (WINDOW.start_ms + 1, -1),
        (WINDOW.start_ms + 1, 2**31),
    ],
)
def test_paging_that_does_not_advance_inside_the_window_is_refused(following: tuple[int, int]) -> None:
    metadata = {"hasNext": True, "nextTimestamp": following[0], "nextSequenceNumber": following[1], "type": "metadata"}
    pull = pull_of(fixed(http(LINE + b"\n" + json.dumps(metadata).encode())))
    assert pull.error.partition(":")[0] in (PullFault.PAGING, PullFault.SHAPE)
    assert [record.data for record in pull.records] == [LINE]


def test_pages_that_go_on_and_on_end_at_the_limit() -> None:
    def answer(head: bytes, connection: socket.socket) -> None:
        start = int(head.split(b"fromTimestamp=")[1].split(b"&")[0])
        metadata = {"hasNext": True, "nextTimestamp": start + 1, "nextSequenceNumber": 0, "type": "metadata"}
        connection.sendall(http(LINE + b"\n" + json.dumps(metadata).encode()))

    pull = pull_of(answer)
    assert pull.error.startswith(PullFault.PAGING)
    assert [record.data for record in pull.records] == [LINE]


def test_messages_of_another_stream_are_handed_over_as_they_came() -> None:
    other = LINE.replace(b"stream/a", b"stream/b")
    pull = pull_of(fixed(http(other + b"\n" + END)))
    assert pull.complete
    assert [record.data for record in pull.records] == [other]


def test_an_announced_gigabyte_is_refused_before_it_is_read() -> None:
    pull = pull_of(fixed(http(LINE, length=1 << 30)))
    assert pull.error.startswith(PullFault.BODY)
    assert pull.records == ()


def test_an_endless_body_ends_at_the_limit_of_bytes() -> None:
    def answer(_head: bytes, connection: socket.socket) -> None:
        send = chunked(connection)
        piece = (LINE + b"\n") * 1000
        while True:
            send(piece)

    pull = pull_of(answer)
    assert pull.error.partition(":")[0] in (PullFault.BODY, PullFault.LIMIT)
    assert sum(len(record.data) for record in pull.records) <= SMALL.page_bytes


def test_an_endless_line_is_cut_to_what_the_codec_refuses_as_too_large() -> None:
    limits = Limits(page_bytes=16 * MIB, broker_bytes=16 * MIB, total_bytes=16 * MIB)
    body = LINE + b"\n" + b"[" + b"1" * (MAX_RECORD_BYTES + 3 * MIB) + b"\n" + END
    pull = pull_of(fixed(http(body)), limits=limits)
    assert pull.complete
    assert [len(record.data) for record in pull.records] == [len(LINE), MAX_RECORD_BYTES]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compression_bomb_ends_at_the_limit_without_filling_memory(encoding: str) -> None:
    zeros = b"0" * (256 * MIB)
    bomb = gzip.compress(zeros, 9) if encoding == "gzip" else zstandard.ZstdCompressor(3).compress(zeros)
    del zeros
    tracemalloc.start()
    pull = pull_of(fixed(http(bomb, f"Content-Encoding: {encoding}")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pull.error.startswith(PullFault.BODY)
    assert pull.records == ()
    assert peak < 32 * MIB


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_an_honestly_compressed_answer_is_read(encoding: str) -> None:
    body = (LINE + b"\n") * 50 + END
    packed = gzip.compress(body) if encoding == "gzip" else zstandard.ZstdCompressor().compress(body)
    pull = pull_of(fixed(http(packed, f"Content-Encoding: {encoding}")))
    assert pull.complete
    assert len(pull.records) == 50


def test_an_encoding_nobody_asked_for_is_refused() -> None:
    pull = pull_of(fixed(http(LINE + b"\n" + END, "Content-Encoding: br")))
    assert pull.error.startswith(PullFault.BODY)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"null",
        b"17",
        b'"text"',
        b'{"messages":[],"metadata":{"hasNext":false}}',
        b'{"hasNext":"no","type":"metadata"}',
        b'{"hasNext":false,"type":"message"}',
        b'{"hasNext":true,"type":"metadata"}',
        b'{"hasNext":true,"nextTimestamp":"1","nextSequenceNumber":0,"type":"metadata"}',
        b'{"hasNext":false,"type":"metadata","more":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"hasNext":false,"type":"metadata","more":"' + b"x" * MAX_METADATA_BYTES + b'"}',
        b"\xff\xfe",
        b"\n\n\n",
        b'{"hasNext":true,"hasNext":false,"type":"metadata"}',
        b'{"hasNext":false,"type":"metadata","more":{"a":1,"a":2}}',
    ],
    ids=lambda body: body[:30].decode("ascii", "replace"),
)
def test_valid_json_of_the_wrong_shape_is_no_answer(body: bytes) -> None:
    pull = pull_of(fixed(http(body, 'ETag: "x"')))
    assert pull.error.startswith(PullFault.SHAPE)
    assert pull.records == ()
    assert pull.etag is None


def test_a_redirect_is_not_followed() -> None:
    with hostile_server(fixed(http(LINE + b"\n" + END))) as elsewhere:
        pull = pull_of(fixed(http(b"", f"Location: {elsewhere}/x", status="302 Found")))
    assert pull.error.startswith(PullFault.REDIRECT)
    assert pull.records == ()


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        ("401 Unauthorized", b"", PullFault.LOGIN),
        ("403 Forbidden", b"", PullFault.LOGIN),
        ("404 Not Found", b"<html>", PullFault.STATUS),
        ("400 Bad Request", b'{"error":"Not enough balance"}', PullFault.BALANCE),
        ("400 Bad Request", b'{"error":"\x1b[31mred"}', PullFault.STATUS),
        ("500 Internal Server Error", b'{"error":"Failed to fetch data!"}', PullFault.STATUS),
        ("304 Not Modified", b"", PullFault.STATUS),
    ],
)
def test_a_refusal_is_named(status: str, body: bytes, fault: PullFault) -> None:
    pull = pull_of(fixed(http(body, status=status)))
    assert pull.error.startswith(fault)
    assert "\x1b" not in pull.error


def test_an_answer_that_is_not_http_is_refused() -> None:
    pull = pull_of(fixed(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"))
    assert pull.error.partition(":")[0] in (PullFault.CUT, PullFault.CONNECTION)


@pytest.mark.parametrize("tag", ['"' + "x" * 300 + '"', "no quotes", '"a b"', '"a\x80"', ""])
def test_an_entity_tag_that_cannot_be_sent_back_is_not_kept(tag: str) -> None:
    whole = http(LINE + b"\n" + END)
    head, _, body = whole.partition(b"\r\n\r\n")
    pull = pull_of(fixed(head + b"\r\nETag: " + tag.encode("latin-1") + b"\r\n\r\n" + body))
    assert pull.etag is None
    assert len(pull.records) == 1


# --- the newer brokers' form


def frames(*bodies: bytes) -> bytes:
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


def a_message(offset_ms: int, sequence: int = 0) -> bytes:
    message = publish_message(
        KEY,
        stream_id="stream/a",
        timestamp_ms=WINDOW.start_ms + offset_ms,
        sequence_number=sequence,
        content=b'{"a":1}',
        signature_type=SignatureType.ECDSA_SECP256K1_EVM,
    )
    return write_protobuf(message)


OCTETS = "Content-Type: application/octet-stream"


def test_a_stream_id_is_one_word_of_the_path() -> None:
    asked: list[bytes] = []
    body = a_message(1)

    def answer(head: bytes, connection: socket.socket) -> None:
        asked.append(head)
        if head.startswith(b"GET /stores/"):
            connection.sendall(http(frames(body), OCTETS))
        else:
            connection.sendall(http(b"Not Found", status="404 Not Found"))

    pull = pull_of(answer)
    assert [(record.data, record.form) for record in pull.records] == [(body, "protobuf")]
    assert asked[0].startswith(b"GET /stores/stream%2Fa/data/partitions/0/range?")


Question = tuple[tuple[int, int], tuple[int, int]]
Serve = Callable[[list[bytes], socket.socket], None]


def range_of(head: bytes) -> Question:
    """(timestamp, sequence number) that a range begins and ends with."""
    found = re.search(rb"fromTimestamp=(\d+)&fromSequenceNumber=(\d+)&toTimestamp=(\d+)&toSequenceNumber=(\d+)", head)
    assert found is not None
    first_ms, first, last_ms, last = map(int, found.groups())
    return (first_ms, first), (last_ms, last)


def serving(
    bodies: list[bytes], serve: Serve, asked: list[Question] | None = None, heeds_sequence: bool = True
) -> Answer:
    """A broker that hands the messages of the range it is asked for to ``serve``."""
    placed = [((m.timestamp_ms, m.sequence_number), body) for body in bodies for m in [read_protobuf(body)]]

    def answer(head: bytes, connection: socket.socket) -> None:
        first, last = range_of(head)
        if asked is not None:
            asked.append((first, last))
        if not heeds_sequence:
            first, last = (first[0], 0), (last[0], 2**31)
        serve([body for place, body in placed if first <= place <= last], connection)

    return answer


def cut_after(limit: int) -> Serve:
    """As the newest brokers: what is more than they give makes them drop the connection in mid-answer."""

    def serve(bodies: list[bytes], connection: socket.socket) -> None:
        send = chunked(connection, OCTETS)
        for at in range(0, len(bodies[:limit]), 1000):
            send(frames(*bodies[at : min(at + 1000, limit)]))
        if len(bodies) <= limit:
            connection.sendall(b"0\r\n\r\n")

    return serve


def ends_after(limit: int) -> Serve:
    """A limit that nothing tells of: the answer looks whole."""
    return lambda bodies, connection: connection.sendall(http(frames(*bodies[:limit]), OCTETS))


SOME = [a_message(number // 10, number % 10) for number in range(5200)]


@pytest.mark.parametrize("serve", [cut_after(5000), ends_after(5000), ends_after(777), cut_after(777)])
def test_what_a_broker_leaves_out_of_an_answer_is_asked_for_and_taken_once(serve: Serve) -> None:
    asked: list[Question] = []
    pull = pull_of(serving(SOME, serve, asked))
    assert pull.complete
    assert [record.data for record in pull.records] == SOME
    assert len(asked) <= 9


def test_a_cut_that_comes_every_few_messages_costs_answers_and_no_message() -> None:
    pull = pull_of(serving(SOME[:40], cut_after(3)), limits=Limits())
    assert pull.complete
    assert [record.data for record in pull.records] == SOME[:40]


def test_a_millisecond_with_more_than_a_broker_gives_is_named_and_the_rest_is_read() -> None:
    crowd = [a_message(700, number) for number in range(5300)]
    later = [a_message(900), a_message(901)]
    pull = pull_of(serving(crowd + later, cut_after(5000), heeds_sequence=False), limits=Limits())
    assert not pull.complete
    assert [record.data for record in pull.records] == crowd[:5000] + later
    ms = WINDOW.start_ms + 700
    assert pull.error.startswith(f"{PullFault.CUT}: not whole from {ms}/4999 to {ms}/2147483647")


def test_a_broker_that_heeds_no_range_is_asked_a_few_times_and_its_messages_are_taken_once() -> None:
    asked: list[int] = []

    def answer(_head: bytes, connection: socket.socket) -> None:
        asked.append(1)
        connection.sendall(http(frames(*SOME[:5000]), OCTETS))

    pull = pull_of(answer, limits=Limits())
    assert pull.error.startswith(PullFault.PAGING)
    assert [record.data for record in pull.records] == SOME[:5000]
    assert len(asked) < 15


def test_frames_that_end_with_the_connection_prove_nothing() -> None:
    def answer(_head: bytes, connection: socket.socket) -> None:
        head = f"HTTP/1.1 200 OK\r\n{OCTETS}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + frames(a_message(1), a_message(2)))

    pull = pull_of(answer)
    assert pull.error.startswith(f"{PullFault.CUT}: not whole from {WINDOW.start_ms + 2}/0")
    assert [record.data for record in pull.records] == [a_message(1), a_message(2)]


def test_an_answer_that_somebody_closed_neatly_is_no_evidence_where_the_question_is_not_heeded() -> None:
    def answer(_head: bytes, connection: socket.socket) -> None:
        send = chunked(connection, OCTETS)
        send(frames(*SOME[:12]))
        connection.sendall(b"0\r\n\r\n")

    pull = pull_of(answer)
    assert pull.error.startswith(PullFault.PAGING)
    assert [record.data for record in pull.records] == SOME[:12]


@pytest.mark.parametrize("whole", [True, False], ids=["with a length", "in chunks"])
def test_an_answer_that_was_cut_and_closed_neatly_is_asked_on(whole: bool) -> None:
    def serve(bodies: list[bytes], connection: socket.socket) -> None:
        if whole:
            connection.sendall(http(frames(*bodies[:12]), OCTETS))
            return
        send = chunked(connection, OCTETS)
        if bodies:
            send(frames(*bodies[:12]))
        connection.sendall(b"0\r\n\r\n")

    pull = pull_of(serving(SOME[:20], serve))
    assert pull.complete
    assert [record.data for record in pull.records] == SOME[:20]


def test_lines_that_end_with_the_connection_are_whole_by_their_last() -> None:
    whole = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + LINE + b"\n" + END
    assert pull_of(fixed(whole)).complete


def test_a_byte_order_mark_is_no_part_of_the_first_message() -> None:
    pull = pull_of(fixed(http(b"\xef\xbb\xbf" + LINE + b"\n" + END)))
    assert pull.complete
    assert [record.data for record in pull.records] == [LINE]


# --- dialects

PATHS = {"stores": b"GET /stores/", "streams": b"GET /streams/"}


def speaks(prefix: str, password: str) -> Callable[[bytes], bytes | None]:
    """The refusal of a broker of one dialect to a request; None if it understands."""

    def refuse(head: bytes) -> bytes | None:
        login = re.search(rb"Authorization: Basic (\S+)", head, re.IGNORECASE)
        assert login is not None
        user, _, given = base64.b64decode(login[1]).partition(b":")
        assert user == b"0x" + KEY.address.hex().encode()
        if not head.startswith(PATHS[prefix]):
            return http(b"<pre>Cannot GET</pre>", status="404 Not Found")
        if given.startswith(b"0x") is not (password == "hex"):
            return http(b"<pre>Error: invalid signature</pre>", status="500 Internal Server Error")
        return None

    return refuse


EMPTY = http(b"\n" + END, "Content-Type: text/plain")
BLANK = http(b"")
"""How the newest brokers say that there is nothing: neither type nor body."""


@pytest.mark.parametrize("empty", [EMPTY, BLANK, http(b"", OCTETS)], ids=["lines", "blank", "frames"])
@pytest.mark.parametrize("prefix", ["stores", "streams"])
@pytest.mark.parametrize("password", ["hex", "base64"])
def test_a_broker_of_each_dialect_is_read(prefix: str, password: str, empty: bytes) -> None:
    refuse = speaks(prefix, password)
    pull = pull_of(lambda head, connection: connection.sendall(refuse(head) or empty))
    assert pull.complete
    assert pull.records == ()


@pytest.mark.parametrize(
    "refusal",
    [
        *(
            http(b"no", status=f"{status} No")
            for status in (400, 401, 403, 404, 405, 410, 415, 422, 500, 501, 502, 504)
        ),
        http(b"<html>", "Content-Type: text/html"),
        http(b"", "Content-Type: text/plain"),
        http(b"", "Location: /", status="302 Found"),
        BLANK,
    ],
    ids=lambda refusal: refusal[9:40].decode().split("\r")[0],
)
def test_whatever_a_broker_says_to_a_dialect_that_it_does_not_speak_another_is_tried(refusal: bytes) -> None:
    refuse = speaks("streams", "hex")
    body = http(LINE + b"\n" + END)
    pull = pull_of(lambda head, connection: connection.sendall(refusal if refuse(head) else body))
    assert pull.complete
    assert [record.data for record in pull.records] == [LINE]


def pulls_of(
    answer: Answer, count: int, remembered_s: float = 3600.0, between: Callable[[int], None] | None = None
) -> list[HeldPull]:
    """The same window again and again, by one client."""
    client = BrokerClient(
        KEY, allow_http=True, allow_nets=(ip_network("127.0.0.0/8"),), limits=SMALL, remembered_s=remembered_s
    )
    pulls = []
    with hostile_server(answer) as url:
        for number in range(count):
            if between is not None:
                between(number)
            deadline_ms = int((time.time() + PATIENT_S) * 1000)
            pulls += fetch_window(client, [Broker(ADDRESS, url)], [PART], WINDOW, etags={}, deadline_ms=deadline_ms)
    client.close()
    return pulls


def test_a_dialect_is_learned_once_and_anew_when_the_broker_is_upgraded_in_place() -> None:
    asked: list[str] = []
    dialect = ["streams", "hex"]

    def answer(head: bytes, connection: socket.socket) -> None:
        refusal = speaks(*dialect)(head)
        asked.append(f"{head.split(b'/')[1].decode()} {'no' if refusal else 'yes'}")
        connection.sendall(refusal or EMPTY)

    def upgrade(number: int) -> None:
        asked.append(f"pull {number}")
        if number == 2:
            dialect[:] = ["stores", "base64"]

    pulls = pulls_of(answer, 4, between=upgrade)
    assert all(pull.complete for pull in pulls)
    assert asked == [
        *("pull 0", "stores no", "stores no", "streams yes"),
        *("pull 1", "streams yes"),
        *("pull 2", "streams no", "stores yes"),
        *("pull 3", "stores yes"),
    ]


def test_a_broker_that_speaks_an_old_and_a_new_dialect_is_asked_in_the_new_one_after_a_while() -> None:
    asked: list[bytes] = []
    old = speaks("streams", "hex")
    upgraded: list[int] = []

    def answer(head: bytes, connection: socket.socket) -> None:
        asked.append(head.split(b"/")[1])
        refusal = old(head)
        connection.sendall(EMPTY if upgraded else refusal or EMPTY)

    pulls = pulls_of(answer, 2, remembered_s=0.0, between=lambda number: upgraded.append(1) if number else None)
    assert all(pull.complete for pull in pulls)
    assert asked == [b"stores", b"stores", b"streams", b"stores"]


def test_a_broker_that_fails_is_not_asked_in_every_dialect_for_every_partition() -> None:
    asked: list[bytes] = []

    def answer(head: bytes, connection: socket.socket) -> None:
        asked.append(head)
        connection.sendall(http(b'{"error":"Failed to fetch data!"}', status="500 Internal Server Error"))

    pulls = pulls_of(answer, 5)
    assert all(pull.error.startswith(f"{PullFault.STATUS}: 500") for pull in pulls)
    assert len(asked) == 4 + 4


# --- brokers that want to be left alone

LATER = {"429": "429 Too Many Requests", "503": "503 Service Unavailable"}


@pytest.mark.parametrize("status", LATER.values())
@pytest.mark.parametrize("header", [(), ("Retry-After: 0",), ("Retry-After: 1",), ("Retry-After: junk",)])
def test_a_limited_page_is_asked_for_again_and_what_came_before_is_kept(status: str, header: tuple[str, ...]) -> None:
    times: list[float] = []

    def serve(bodies: list[bytes], connection: socket.socket) -> None:
        times.append(time.monotonic())
        limited = len(times) in (2, 3)
        connection.sendall(http(b"", *header, status=status) if limited else http(frames(*bodies[:20]), OCTETS))

    pull = pull_of(serving(SOME[:50], serve))
    assert pull.complete
    assert [record.data for record in pull.records] == SOME[:50]
    if "Retry-After: 1" in header:
        assert times[2] - times[1] >= 1.0


def test_a_pause_that_outlasts_the_deadline_ends_the_pull_at_once_and_keeps_what_came() -> None:
    asked: list[float] = []

    def serve(bodies: list[bytes], connection: socket.socket) -> None:
        asked.append(time.monotonic())
        first = len(asked) == 1
        limited = http(b"", "Retry-After: 120", status=LATER["429"])
        connection.sendall(http(frames(*bodies[:20]), OCTETS) if first else limited)

    pulls = pulls_of(serving(SOME[:50], serve), 3)
    assert [pull.error.partition(":")[0] for pull in pulls] == [PullFault.THROTTLED] * 3
    assert [len(pull.records) for pull in pulls] == [20, 0, 0]
    assert len(asked) == 2  # the broker has said for how long, so the later pulls leave it alone
    assert time.monotonic() - asked[0] < 5


def test_a_broker_that_is_always_busy_is_given_up_after_a_few_tries() -> None:
    asked: list[bytes] = []

    def answer(head: bytes, connection: socket.socket) -> None:
        asked.append(head)
        connection.sendall(http(b"", "Retry-After: 0", status=LATER["503"]))

    pull = pull_of(answer)
    assert pull.error.startswith(PullFault.THROTTLED)
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"\x00", PullFault.CUT),
        (frames(b"abc")[:-1], PullFault.CUT),
        (b"\xff\xff\xff\xff" + b"x" * 100, PullFault.SHAPE),
        (frames(b"abc") + b"\x00\x00", PullFault.CUT),
    ],
)
def test_a_frame_that_is_cut_or_longer_than_any_message_is_refused(body: bytes, fault: PullFault) -> None:
    pull = pull_of(fixed(http(body, OCTETS)))
    assert pull.error.startswith(fault)


# --- URLs


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://169.254.169.254", "port 80 is neither"),
        ("http://169.254.169.254:8080", "169.254.169.254 is not a global unicast address"),
        ("http://[64:ff9b::a9fe:a9fe]", "port 80 is neither"),
        ("http://[64:ff9b::a9fe:a9fe]:8080", "64:ff9b::a9fe:a9fe is not a global unicast address"),
        ("http://[::ffff:10.0.0.1]:8080", "is not a global unicast address"),
        ("http://10.0.0.1:8080", "10.0.0.1 is not a global unicast address"),
        ("http://user:word@127.0.0.1:8080", "user info is not allowed"),
        ("http://127.0.0.1:22", "port 22 is neither"),
        ("ftp://127.0.0.1", "neither https nor http"),
        ("http://127.0.0.1:8080/?q=1", "no query"),
        ("", "empty"),
        ("http://" + "a" * 300, "exceed the limit of 256"),
    ],
)
def test_a_url_that_breaks_a_rule_is_never_asked(url: str, reason: str) -> None:
    pull = pull_from(url)
    assert pull.error.startswith(PullFault.URL)
    assert reason in pull.error


def test_plain_http_needs_a_development_network() -> None:
    client = BrokerClient(KEY, allow_nets=(ip_network("127.0.0.0/8"),))
    (pull,) = fetch_window(
        client,
        [Broker(ADDRESS, "http://127.0.0.1:8080")],
        [PART],
        WINDOW,
        etags={},
        deadline_ms=int((time.time() + PATIENT_S) * 1000),
    )
    client.close()
    assert pull.error.startswith(PullFault.URL)


def test_a_name_whose_second_lookup_answers_another_address_is_refused_then() -> None:
    answers = iter(["127.0.0.1", "169.254.169.254"])
    http_client = BoundedClient(allow_nets=(ip_network("127.0.0.0/8"),), resolver=lambda _host, _port: [next(answers)])
    client = BrokerClient(KEY, http=http_client, allow_http=True, allow_nets=(ip_network("127.0.0.0/8"),))
    with hostile_server(fixed(http(LINE + b"\n" + END))) as url:
        named = [Broker(ADDRESS, url.replace("127.0.0.1", "broker.example"))]
        errors = []
        for _ in range(2):
            deadline_ms = int((time.time() + PATIENT_S) * 1000)
            (pull,) = fetch_window(client, named, [PART], WINDOW, etags={}, deadline_ms=deadline_ms)
            errors.append(pull.error.partition(":")[0])
    client.close()
    assert errors == ["", PullFault.URL]
