"""A network's file at an address: bounded, kept, and compared with the contract."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import logstore
from logstore.network_file import FRESH_S
from tests.integration.logstore.conftest import Run
from tests.stored_network import StoredNetwork
from validator.net.network_file import MAX_BYTES
from validator.protocol.parameters import format_network


@dataclass
class Page:
    """What the address answers, and how often it was asked."""

    port: int = 0
    status: int = 200
    body: bytes = b""
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/nets/network.toml"


@pytest.fixture
def page(stored: StoredNetwork) -> Iterator[Page]:
    """The stored network's file at an address of this machine."""
    page = Page(body=stored.network_file.read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page.asked.append(self.path)
            self.send_response(page.status)
            self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            self.wfile.write(page.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    page.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield page
    server.shutdown()
    thread.join()
    server.server_close()


def age(folder: Path) -> Path:
    """The kept copy, made older than what is used without asking."""
    (kept,) = folder.glob("cache/networks/*")
    old_s = time.time() - FRESH_S - 1
    os.utime(kept, (old_s, old_s))
    return kept


def test_a_networks_file_is_read_from_an_address_by_command_environment_and_program(
    page: Page, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("network", "show", "--network", page.url, "--json")
    assert (ran.status, ran.err, ran.document["config_epoch"]) == (0, "", 0)
    monkeypatch.setenv("LOGSTORE_NETWORK_FILE", page.url)
    assert run("bundle", "list", "--json").document["accepted"] == 3
    assert page.asked == ["/nets/network.toml"], "kept for a few minutes"
    with logstore.connect(page.url, cache=tmp_path / "own") as store:
        assert store.network.name == "stored"


def test_a_kept_copy_does_where_the_address_does_not_answer(page: Page, run: Run, tmp_path: Path) -> None:
    assert run("bundle", "list", "--network", page.url).status == 0
    age(tmp_path)
    page.status = 503
    ran = run("bundle", "list", "--network", page.url, "--json")
    assert (ran.status, ran.document["accepted"]) == (0, 3)
    assert ran.err.startswith("network file: the copy of before is used, since ")
    assert "HTTP 503" in ran.err
    assert len(page.asked) == 2


def test_offline_only_a_kept_copy_does(page: Page, run: Run, stored: StoredNetwork, tmp_path: Path) -> None:
    words = ("verify", stored.files[0], "--offline", "--network", page.url)
    ran = run(*words)
    assert (ran.status, page.asked) == (2, [])
    assert "nothing is fetched with --offline" in ran.err
    assert run("network", "show", "--network", page.url).status == 0
    age(tmp_path)
    assert run(*words, "--json").document["network"]
    assert len(page.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "named"),
    [
        (404, b"gone", "HTTP 404"),
        (503, b"", "HTTP 503"),
        (302, b"", "redirects are refused"),
        (200, b"<html>sign in</html>", "no network's file: network file is not TOML"),
        (200, b"\xff", "no network's file"),
        (200, b"#" * (MAX_BYTES + 1), "bytes"),
    ],
)
def test_an_address_without_a_networks_file_is_status_3_and_nothing_is_kept(
    page: Page, run: Run, tmp_path: Path, status: int, body: bytes, named: str
) -> None:
    page.status, page.body = status, body
    ran = run("bundle", "list", "--network", page.url)
    assert (ran.status, ran.out, ran.err.count("\n")) == (3, "", 1)
    assert named in ran.err
    assert list(tmp_path.glob("cache/networks/*")) == []


def test_a_file_whose_parameters_the_contract_does_not_have_is_refused_and_given_up(
    page: Page, run: Run, stored: StoredNetwork, tmp_path: Path
) -> None:
    good = page.body
    other = replace(stored.network, sets=(replace(stored.network.sets[0], rent=7),))
    page.body = format_network(other).encode()
    for words in (
        ["network", "show"],
        ["bundle", "list"],
        ["bundle", "fetch", "0"],
        ["verify", "0"],
        ["sql", "select 1"],
    ):
        ran = run(*words, "--network", page.url, "--json")
        assert (ran.status, ran.document["field"]) == (1, "config_digest"), words
    assert list(tmp_path.glob("cache/networks/*")) == []
    page.body = good
    assert run("bundle", "list", "--network", page.url).status == 0


def test_a_digest_behind_the_address_names_the_one_file_that_is_meant(page: Page, run: Run, tmp_path: Path) -> None:
    pinned = f"{page.url}#sha256={hashlib.sha256(page.body).hexdigest()}"
    assert run("bundle", "list", "--network", pinned).status == 0
    age(tmp_path)
    assert run("bundle", "list", "--network", pinned).status == 0
    assert len(page.asked) == 1, "it cannot have changed"
    ran = run("bundle", "list", "--network", f"{page.url}#sha256={'0' * 64}")
    assert ran.status == 3
    assert "not the one that is named" in ran.err


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://example.com/network.toml", "only https"),
        ("https://", "not an http or https URL with a host"),
        ("https://example.com/network.toml#top", "sha256="),
    ],
)
def test_an_address_that_nobody_should_trust_is_status_2(run: Run, url: str, named: str) -> None:
    ran = run("bundle", "list", "--network", url)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert named in ran.err
