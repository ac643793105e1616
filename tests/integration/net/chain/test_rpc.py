"""Several JSON-RPC sources asked as one: majority, disagreement, hostile answers, deadlines."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from validator.net.chain.jsonrpc import Failed, Request, Reverted
from validator.net.chain.rpc import Rpc
from validator.net.chain.values import parse_quantity
from validator.protocol.errors import ConfigError, TransientError

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


@contextmanager
def source(answer: Answer) -> Iterator[str]:
    """An HTTP server on loopback whose POST is ``answer``; yields a URL with a secret in it."""
    stopping = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            try:
                answer(self, body)
            except OSError:
                self.close_connection = True  # the client has gone, as it should

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.stopping = stopping  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v3/secretsecret"
    finally:
        stopping.set()
        server.shutdown()
        server.server_close()


def send(
    handler: BaseHTTPRequestHandler, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None
) -> None:
    handler.send_response(status)
    for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def result(value: Any) -> Answer:
    """Answers every request of a batch with ``value``."""

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked = json.loads(body)
        if isinstance(asked, list):
            said: Any = [{"jsonrpc": "2.0", "id": call["id"], "result": value} for call in reversed(asked)]
        else:
            said = {"jsonrpc": "2.0", "id": asked["id"], "result": value}
        send(handler, json.dumps(said).encode())

    return answer


def error(code: int, message: str, data: Any = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked = json.loads(body)
        said = {"code": code, "message": message, **({} if data is None else {"data": data})}
        send(handler, json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": said}).encode())

    return answer


def raw(body: bytes, **options: Any) -> Answer:
    return lambda handler, _: send(handler, body, **options)


def drip(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """One byte of the body every 50 ms, for ever."""
    handler.send_response(200)
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    while not handler.server.stopping.wait(0.05):  # type: ignore[attr-defined]
        handler.wfile.write(b" ")


def drip_head(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """One byte of the head every 50 ms, for ever."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
    while not handler.server.stopping.wait(0.05):  # type: ignore[attr-defined]
        handler.wfile.write(b"a")


def silent(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    handler.server.stopping.wait()  # type: ignore[attr-defined]


PATIENT_S = 30.0
"""Nothing here lasts as long, on a loaded machine either."""
HASTY_S = 0.5
"""Where the deadline is to strike."""
CHAIN_ID = Request("eth_chainId", (), parse_quantity)
CALL = Request("eth_call", ({}, "latest"), parse_quantity)


@contextmanager
def sources(*answers: Answer, **options: Any) -> Iterator[Rpc]:
    from contextlib import ExitStack

    with ExitStack() as stack:
        rpc = Rpc([stack.enter_context(source(a)) for a in answers], **{"deadline_s": PATIENT_S, **options})
        stack.callback(rpc.close)
        yield rpc


def test_one_source_is_taken_at_its_word() -> None:
    with sources(result("0x89")) as rpc:
        assert rpc.agree([CHAIN_ID]) == [137]
        assert rpc.agree([CHAIN_ID] * 120) == [137] * 120
        assert rpc.agree([]) == []


def test_the_majority_wins_and_the_liar_is_named() -> None:
    with sources(result("0x1"), result("0x89"), result("0x89")) as rpc:
        assert [rpc.agree([CHAIN_ID])[0] for _ in range(5)] == [137] * 5
        assert [h.outvoted for h in rpc.health()][1:] == [0, 0]


def test_a_source_that_hangs_does_not_keep_a_majority_waiting() -> None:
    with sources(silent, result("0x89"), result("0x89")) as rpc:
        assert rpc.agree([CHAIN_ID]) == [137]


def test_a_source_that_hangs_delays_nobody_for_long_where_all_are_asked() -> None:
    with sources(silent, result("0x1"), result("0x2")) as rpc:
        assert sorted(rpc.each_at_least(CHAIN_ID, 2)) == [1, 2]
        assert sorted(v for _, v in rpc.each(CHAIN_ID) if isinstance(v, int)) == [1, 2]


def test_two_sources_that_differ_mean_not_yet() -> None:
    with sources(result("0x1"), result("0x89")) as rpc:
        with pytest.raises(TransientError, match="not yet: RPC sources disagree on eth_chainId") as caught:
            rpc.agree([CHAIN_ID])
        assert caught.value.reason == "disagreement"


def test_one_of_two_alone_is_not_enough() -> None:
    with sources(result("0x89"), raw(b"", status=503)) as rpc:
        with pytest.raises(TransientError, match="HTTP 503") as caught:
            rpc.agree([CHAIN_ID])
        assert caught.value.reason == "unavailable"


def test_each_request_of_a_batch_is_decided_on_its_own() -> None:
    def half(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        said = [{"id": 0, "result": "0x89"}, {"id": 1, "error": {"code": -32000, "message": "busy"}}]
        send(handler, json.dumps(said).encode())

    def other_half(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        said = [{"id": 1, "result": "0x89"}, {"id": 0, "error": {"code": -32000, "message": "busy"}}]
        send(handler, json.dumps(said).encode())

    with sources(half, other_half, result("0x89")) as rpc:
        assert rpc.agree([CHAIN_ID, CHAIN_ID]) == [137, 137]


def test_a_revert_is_an_answer_and_compared_by_its_data() -> None:
    reverted = error(3, "execution reverted: no", "0x01020304")
    with sources(reverted, error(-32000, "VM Exception: revert", "0x01020304"), error(-32000, "busy")) as rpc:
        assert rpc.agree([CALL]) == [Reverted(bytes.fromhex("01020304"))]
    with sources(error(-32603, "EVM error OutOfGas")) as rpc:
        assert rpc.agree([CALL]) == [Reverted(b"")]


def test_state_that_sources_have_pruned_is_named_as_the_reason() -> None:
    pruned = error(-32000, "missing trie node 1234 (path ) state is not available")
    with sources(pruned, pruned, result("0x1")) as rpc:
        with pytest.raises(TransientError) as caught:
            rpc.agree([CALL])
        assert caught.value.reason == "pruned"


TIMED_OUT = "timed out|ReadTimeout"
HOSTILE: list[tuple[str, Answer, str]] = [
    ("not JSON", raw(b"<html>"), "not JSON"),
    ("deep JSON", raw(b"[" * 100_000), "not JSON"),
    ("an empty body", raw(b""), "not JSON"),
    ("a body beyond the limit", raw(b" " * 2_000_000), "2000000 bytes announced, 1000000 allowed"),
    (
        "a compressed body",
        raw(b"\x1f\x8b", headers={"content-encoding": "gzip"}),
        "compressed by .gzip., which",
    ),
    ("a redirect", raw(b"", status=302, headers={"location": "http://127.0.0.1:1/"}), "HTTP 302"),
    ("a client error", raw(b"", status=404), "HTTP 404"),
    ("too many requests", raw(b"", status=429, headers={"retry-after": "3600"}), "rests for .*HTTP 429"),
    ("a list of nothing", raw(b"[]"), "no answer"),
    ("another id", raw(b'{"id":5,"result":"0x1"}'), "no answer"),
    ("a text as id", raw(b'[{"id":"0","result":"0x1"},{"id":"1","result":"0x1"}]'), "no answer"),
    ("neither result nor error", raw(b'{"id":0}'), "neither"),
    ("a number that is none", result("89"), "hex quantity"),
    ("a number of 300 bits", result("0x" + "f" * 75), "hex quantity"),
    ("a number as a number", result(137), "hex quantity"),
    ("an error that is a text", raw(b'{"id":0,"error":"no"}'), "no"),
    (
        "an error with the secret in it",
        error(-32000, "key secretsecret is\x1b[31m blocked"),
        r"key … is\?\[31m blocked",
    ),
    ("a body of one byte at a time", drip, TIMED_OUT),
    ("a head of one byte at a time", drip_head, TIMED_OUT),
    ("silence", silent, TIMED_OUT),
]


@pytest.mark.parametrize(("answer", "reason"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE])
def test_a_hostile_answer_is_a_failure_of_its_source_only(answer: Answer, reason: str) -> None:
    deadline_s = HASTY_S if reason == TIMED_OUT else PATIENT_S
    with sources(answer, max_body_bytes=1_000_000, deadline_s=deadline_s) as rpc:
        with pytest.raises(TransientError, match=reason) as caught:
            rpc.agree([CHAIN_ID])
        assert "secretsecret" not in str(caught.value)
        assert "/v3" not in str(caught.value)
        assert caught.value.sources.keys() == set(rpc.hosts)
    with sources(answer, result("0x89"), result("0x89"), max_body_bytes=1_000_000) as rpc:
        assert rpc.agree([CHAIN_ID]) == [137]


def test_calls_to_a_source_that_hangs_do_not_pile_up() -> None:
    with sources(silent, deadline_s=HASTY_S) as rpc:
        threads = [threading.Thread(target=rpc.each, args=(CHAIN_ID,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENT_S)
        assert not any(thread.is_alive() for thread in threads)
        running = [t for t in threading.enumerate() if t.name.startswith("rpc ")]
        assert len(running) <= 16


def test_every_source_is_heard_where_all_are_asked() -> None:
    with sources(result("0x1"), raw(b"", status=500), result("0x2")) as rpc:
        heard = dict(rpc.each(CHAIN_ID))
        assert sorted(v for v in heard.values() if isinstance(v, int)) == [1, 2]
        assert [type(v) for v in heard.values() if not isinstance(v, int)] == [Failed]
        assert sorted(rpc.each_at_least(CHAIN_ID, 2)) == [1, 2]
        with pytest.raises(TransientError, match="HTTP 500"):
            rpc.each_at_least(CHAIN_ID, 3)


def test_an_unreachable_source_is_a_failure() -> None:
    with sources(result("0x89")) as one:
        url = f"http://{one.hosts[0]}/"
    gone = Rpc([url], deadline_s=PATIENT_S)
    with pytest.raises(TransientError, match="ConnectError"):
        gone.agree([CHAIN_ID])
    gone.close()


@pytest.mark.parametrize("urls", [[], ["ftp://a"], ["http://"], ["a"], ["http://a:x"], ["http://a", "http://a"]])
def test_urls_that_are_none_are_refused_at_the_start(urls: list[str]) -> None:
    with pytest.raises(ConfigError, match="rpc_urls"):
        Rpc(urls)
