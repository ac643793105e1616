from __future__ import annotations

import gzip
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import zstandard

from tests.fakes.hostile_http import fixed, hostile_server, http
from tests.fakes.tls import Authority, server_side
from validator.net.http.client import BoundedClient
from validator.net.http.connections import trust
from validator.net.http.urls import ParsedUrl, check_url
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


def base_of(url: str) -> ParsedUrl:
    return check_url(url, allow_http=True, allow_nets=LOOPBACK)


def a_client(**options: object) -> BoundedClient:
    return BoundedClient(allow_nets=LOOPBACK, **options)  # type: ignore[arg-type]


def get(url: str, client: BoundedClient | None = None, *, max_bytes: int = 1000, deadline_s: float = 10) -> bytes:
    return (client or a_client()).fetch("GET", base_of(url), "/x", max_bytes=max_bytes, deadline_s=deadline_s).body


def test_an_ordinary_answer_comes_back_whole() -> None:
    with hostile_server(fixed(http(b"hello", "X-Word: one"))) as url:
        answer = a_client().fetch("GET", base_of(url), "/x?y=1", max_bytes=5, deadline_s=10)
    assert (answer.status, answer.body, answer.headers["x-word"]) == (200, b"hello", "one")


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip.compress(b"a" * 5000)), ("zstd", zstandard.ZstdCompressor().compress(b"a" * 5000))],
    ids=["gzip", "zstd"],  # gzip notes the time: of itself the id would differ between two workers
)
def test_compressed_answers_are_decoded(encoding: str, body: bytes) -> None:
    with hostile_server(fixed(http(body, f"Content-Encoding: {encoding}"))) as url:
        assert get(url, max_bytes=5000) == b"a" * 5000
        with pytest.raises(MalformedInput, match="more than 4999"):
            get(url, max_bytes=4999)


def test_an_announced_length_beyond_the_limit_is_refused_before_the_body() -> None:
    with hostile_server(fixed(http(b"", length=1 << 30))) as url, pytest.raises(MalformedInput, match="announced"):
        get(url)


def test_an_endless_body_is_cut_off_at_the_limit() -> None:
    def endless(_head: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")

    with hostile_server(endless) as url, pytest.raises(MalformedInput, match="more than 1000000"):
        get(url, max_bytes=1_000_000)


def test_endless_headers_are_refused() -> None:
    def endless(_head: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X-Word: " + b"a" * 1000 + b"\r\n")

    with hostile_server(endless) as url, pytest.raises(RemoteFault, match="not HTTP"):
        get(url)


def test_a_compression_bomb_is_cut_off() -> None:
    for encoding, bomb in (
        ("gzip", gzip.compress(bytes(64 << 20), 9)),
        ("zstd", zstandard.ZstdCompressor().compress(bytes(64 << 20))),
    ):
        answer = fixed(http(bomb, f"Content-Encoding: {encoding}"))
        with hostile_server(answer) as url, pytest.raises(MalformedInput, match="more than"):
            get(url, max_bytes=1 << 20)


def test_a_body_cut_short_is_an_error() -> None:
    with hostile_server(fixed(http(b"half", length=100))) as url, pytest.raises(RemoteFault, match="not HTTP"):
        get(url)


def drip(text: bytes) -> Callable[[bytes, socket.socket], None]:
    """One byte at a time for as long as the client listens."""

    def answer(_head: bytes, connection: socket.socket) -> None:
        connection.sendall(text)
        wait = threading.Event()
        while not wait.wait(0.02):
            connection.sendall(b"a")

    return answer


def test_a_body_below_the_floor_of_speed_is_cut_off() -> None:
    answer = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
    with hostile_server(answer) as url, pytest.raises(RemoteFault, match="floor"):
        get(url, a_client(floor_after_s=0.1))


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"])
def test_the_deadline_ends_an_answer_that_drips(start: bytes) -> None:
    with hostile_server(drip(start)) as url, pytest.raises(TransientError, match="timed out"):
        get(url, deadline_s=0.3)


def test_the_deadline_ends_a_tls_handshake_that_drips() -> None:
    with hostile_tls_drip() as port, pytest.raises(TransientError, match="timed out"):
        get(f"https://127.0.0.1:{port}", deadline_s=0.3)


def hostile_tls_drip() -> _Listener:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"\x16\x03\x03\x40\x00")
        wait = threading.Event()
        while not wait.wait(0.02):
            connection.sendall(b"\x00")

    return _Listener(serve)


def test_the_deadline_ends_an_upload_that_nobody_reads() -> None:
    def deaf(connection: socket.socket) -> None:
        threading.Event().wait(5)
        del connection

    with _Listener(deaf) as port, pytest.raises(TransientError, match="timed out"):
        a_client().fetch(
            "POST",
            base_of(f"http://127.0.0.1:{port}"),
            "/x",
            max_bytes=10,
            deadline_s=0.3,
            body=bytes(32 << 20),
        )


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_is_a_fault(status: str) -> None:
    answer = fixed(http(b"", "Location: http://169.254.169.254/", status=status))
    with hostile_server(answer) as url, pytest.raises(RemoteFault, match="redirect"):
        get(url)


def test_what_is_not_http_is_a_fault() -> None:
    with hostile_server(fixed(b"220 mail.example ESMTP\r\n\r\n")) as url, pytest.raises(RemoteFault, match="not HTTP"):
        get(url)


def test_nobody_listening_may_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TransientError):
        get(f"http://127.0.0.1:{port}")


def test_the_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with hostile_server(fixed(http(b"direct"))) as url:
        assert get(url) == b"direct"


def test_a_name_is_looked_up_once_and_connected_to_at_that_very_address() -> None:
    answers = iter([["127.0.0.1"], ["10.9.9.9"]])
    heads: list[bytes] = []

    def answer(head: bytes, connection: socket.socket) -> None:
        heads.append(head)
        connection.sendall(http(b"here"))

    with hostile_server(answer) as url:
        port = int(url.rsplit(":", 1)[1])
        client = a_client(resolver=lambda host, port: next(answers))
        base = check_url(f"http://rebinding.example:{port}", allow_http=True, allow_nets=LOOPBACK)
        assert client.fetch("GET", base, "/x", max_bytes=10, deadline_s=5).body == b"here"
        with pytest.raises(MalformedInput, match=r"10\.9\.9\.9"):
            client.fetch("GET", base, "/x", max_bytes=10, deadline_s=5)
    assert len(heads) == 1
    assert f"Host: rebinding.example:{port}\r\n".encode() in heads[0]


def test_the_second_address_is_tried_when_the_first_does_not_answer() -> None:
    with hostile_server(fixed(http(b"here"))) as url:
        port = int(url.rsplit(":", 1)[1])
        client = a_client(resolver=lambda host, port: ["127.0.0.9", "127.0.0.1"])
        base = check_url(f"http://two.example:{port}", allow_http=True, allow_nets=LOOPBACK)
        assert client.fetch("GET", base, "/x", max_bytes=10, deadline_s=5).body == b"here"


class _Listener:
    """Calls ``serve`` with each connection, in a thread; counts those that are open and the most at once."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.serve = serve
        self.accepted = 0
        self.open = 0
        self.most = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def __enter__(self) -> int:
        threading.Thread(target=self._accept, daemon=True).start()
        return int(self.listener.getsockname()[1])

    def __exit__(self, *exc: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with self.lock:
            self.accepted += 1
            self.open += 1
            self.most = max(self.most, self.open)
        with connection:
            connection.settimeout(10)
            try:
                self.serve(connection)
            except OSError:
                return
            finally:
                with self.lock:
                    self.open -= 1


def keep_alive(connection: socket.socket) -> None:
    """Answers every request on the connection."""
    while head := connection.recv(65536):
        assert head.endswith(b"\r\n\r\n")
        threading.Event().wait(0.02)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def test_connections_are_reused_and_never_more_than_two_to_a_port() -> None:
    listener = _Listener(keep_alive)
    client = a_client()
    with listener as port:
        results: list[bytes] = []

        def ask() -> None:
            results.extend(get(f"http://127.0.0.1:{port}", client) for _ in range(5))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [b"ok"] * 40
    assert listener.accepted <= 2
    client.close()


def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    def once(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    client = a_client()
    with _Listener(once) as port:
        assert [get(f"http://127.0.0.1:{port}", client) for _ in range(4)] == [b"ok"] * 4


@pytest.mark.parametrize("resend", [True, False])
def test_a_request_that_a_used_connection_swallowed_is_sent_again_only_where_that_is_harmless(resend: bool) -> None:
    heard: list[bytes] = []

    def answer_once(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        heard.append(connection.recv(65536))  # and hangs up without a word

    client = a_client(resend=resend)
    with _Listener(answer_once) as port:
        url = f"http://127.0.0.1:{port}"
        assert get(url, client) == b"ok"
        if resend:
            assert get(url, client) == b"ok"
        else:
            with pytest.raises((TransientError, RemoteFault)) as caught:
                get(url, client)
            assert caught.value.answer_lost
        client.close()
    assert len([request for request in heard if request]) == (3 if resend else 2)


def test_an_answer_is_never_lost_where_nothing_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TransientError, match="ConnectError") as caught:
            get(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert caught.value.answer_lost is False
    assert "127.0.0.1" not in caught.value.reason


def test_a_client_that_asks_for_no_compression_refuses_it() -> None:
    asked: list[bytes] = []

    def answer(head: bytes, connection: socket.socket) -> None:
        asked.append(head)
        connection.sendall(http(gzip.compress(b"ok"), "Content-Encoding: gzip"))

    with hostile_server(answer) as url, pytest.raises(MalformedInput, match="compressed by 'gzip'"):
        get(url, a_client(encodings=()))
    assert b"accept-encoding: identity" in asked[0].lower()


def test_a_request_that_finds_all_connections_in_use_gives_up_at_its_deadline() -> None:
    release = threading.Event()

    def hold(connection: socket.socket) -> None:
        connection.recv(65536)
        release.wait(10)

    client = a_client()
    with _Listener(hold) as port:
        url = f"http://127.0.0.1:{port}"
        holders = [threading.Thread(target=_swallow, args=(url, client)) for _ in range(2)]
        for thread in holders:
            thread.start()
        with pytest.raises(TransientError, match=r"in use|timed out"):
            get(url, client, deadline_s=0.3)
        release.set()
        for thread in holders:
            thread.join()


def _swallow(url: str, client: BoundedClient) -> None:
    with pytest.raises((TransientError, RemoteFault)):
        get(url, client)


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_port(authority: Authority) -> Iterator[int]:
    context = server_side(authority.issue("a.example"))

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as stream:
            stream.recv(65536)
            stream.sendall(http(b"secret"))

    with _Listener(serve) as port:
        yield port


def test_the_certificate_must_be_of_the_name_although_the_address_is_pinned(
    tls_port: int, authority: Authority
) -> None:
    client = a_client(resolver=lambda host, port: ["127.0.0.1"], ssl_context=trust(authority.ca_file))

    def fetch(host: str) -> bytes:
        base = check_url(f"https://{host}:{tls_port}", allow_http=False, allow_nets=LOOPBACK)
        return client.fetch("GET", base, "/x", max_bytes=100, deadline_s=5).body

    assert fetch("a.example") == b"secret"
    with pytest.raises(TransientError, match=r"(?i)certificate"):
        fetch("b.example")


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_port: int) -> None:
    client = a_client(resolver=lambda host, port: ["127.0.0.1"])
    base = check_url(f"https://a.example:{tls_port}", allow_http=False, allow_nets=LOOPBACK)
    with pytest.raises(TransientError, match=r"(?i)certificate"):
        client.fetch("GET", base, "/x", max_bytes=100, deadline_s=5)
