"""Redis as fleets have it: with a password, with TLS in front, and behind Sentinels. Celery, ``check`` and Flower."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flower.utils.broker import Broker  # type: ignore[import-untyped]
from kombu.connection import Connection
from kombu.exceptions import OperationalError

from tests import servers
from tests.fakes.tls import Authority, forwarding
from validator.operations.check_machine import check_redis
from validator.operations.findings import Level
from validator.redis_link import RedisAway, RedisLink, count_messages, make_redis_link
from validator.settings import Settings
from validator.setup.binaries import find_redis_server

PASSWORD = "p@ss/w:rd"
PATIENCE_S = 30.0


def settings(folder: Path, **given: Any) -> Settings:
    password = folder / "password"
    password.touch(0o600)
    password.write_text(PASSWORD)
    needed: dict[str, Any] = {
        "network_file": "network.toml",
        "rpc_urls": "https://a.example",
        "gateway_urls": "https://b.example",
    }
    return Settings(_env_file=None, redis_password_file=password, **needed, **given)


@contextmanager
def redis_server(folder: Path, *words: str) -> Iterator[int]:
    """A Redis at a port of loopback, its own words in ``log``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    name = folder / f"{port}.log"
    base = [find_redis_server(), *words, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with servers.running(base, name):
        yield port


def send_and_take(link: RedisLink) -> str:
    """A message into a queue and out again; waits for the server to be there."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            with Connection(  # type: ignore[no-untyped-call]
                link.url, ssl=link.tls, transport_options=dict(link.options)
            ) as connection:
                queue = connection.SimpleQueue("round")
                queue.put("look again")
                message = queue.get(timeout=PATIENCE_S)
                message.ack()
                queue.close()
                return str(message.payload)
        except OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with servers.short_folder("l") as folder:
        yield folder


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with redis_server(folder, "--requirepass", PASSWORD, "--save", "") as port:
        yield port


async def test_a_password_and_tls_are_used_by_all_who_ask(folder: Path, port: int) -> None:
    authority = Authority(folder)
    assert send_and_take(make_redis_link(settings(folder, redis_url=f"redis://127.0.0.1:{port}/0"))) == "look again"
    with forwarding(port, authority.issue("127.0.0.1")) as tls_port:
        given = settings(folder, redis_url=f"rediss://127.0.0.1:{tls_port}/0", redis_ca_file=authority.ca_file)
        link = make_redis_link(given)
        assert send_and_take(link) == "look again"
        assert [finding.level for finding in check_redis(given)] == [Level.OK]
        assert count_messages(link) == {"collect": 0, "round": 0, "bundle": 0, "report": 0}
        flower = Broker(link.url, broker_options=dict(link.options), broker_use_ssl=dict(link.tls or {}))
        (seen,) = await flower.queues(["round"])
        assert seen["name"] == "round"


def test_a_stranger_in_front_of_redis_is_refused(folder: Path, port: int, tmp_path: Path) -> None:
    with forwarding(port, Authority(tmp_path).issue("127.0.0.1")) as tls_port:
        given = settings(folder, redis_url=f"rediss://127.0.0.1:{tls_port}/0")
        (finding,) = check_redis(given)
    assert finding.level == Level.FAIL
    assert "certificate" in finding.text.lower()
    assert PASSWORD not in finding.text
    with pytest.raises(RedisAway):
        count_messages(make_redis_link(given))


def test_sentinels_lead_to_the_redis_that_they_watch(folder: Path, port: int) -> None:
    config = folder / "sentinel.conf"
    config.write_text(f"sentinel monitor main 127.0.0.1 {port} 1\nsentinel auth-pass main {PASSWORD}\n")
    with redis_server(folder, str(config), "--sentinel") as sentinel_port:
        given = settings(folder, redis_url=f"sentinel://127.0.0.1:{sentinel_port}/0", redis_sentinel_name="main")
        assert send_and_take(make_redis_link(given)) == "look again"
        assert [finding.level for finding in check_redis(given)] == [Level.OK]
