"""The servers that integration tests rely on."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import kombu.connection
import pytest
import redis
import sqlalchemy

from tests import servers


def test_redis_answers_on_its_unix_socket(redis_server: servers.Redis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("word", b"kept")
        assert client.get("word") == b"kept"


def test_the_celery_url_of_redis_names_the_same_server(redis_url: str, redis_server: servers.Redis) -> None:
    connect: Any = kombu.connection.Connection
    with connect(redis_url) as connection, connection.SimpleQueue("errand") as queue:
        queue.put({"go": "there"})
        with redis.Redis.from_url(redis_server.url) as client:
            assert client.llen("errand") == 1


def _columns(url: str) -> list[str]:
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE seen (id INTEGER)"))
            return [column["name"] for column in sqlalchemy.inspect(connection).get_columns("seen")]
    finally:
        engine.dispose()


@pytest.mark.parametrize("run", [1, 2])
def test_each_test_has_an_empty_postgres_database(postgres_url: str, run: int) -> None:
    assert _columns(postgres_url) == ["id"]


def test_the_postgres_of_the_wheel_serves_where_debian_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(servers, "DEBIAN_POSTGRES", tmp_path)
    with servers.run_postgres() as folder, servers.fresh_database(folder, "wheel") as url:
        assert _columns(url) == ["id"]


def test_anvil_is_a_fresh_chain(anvil: str) -> None:
    assert [_ask(anvil, method) for method in ("eth_chainId", "eth_blockNumber")] == [hex(31337), "0x0"]


def _ask(url: str, method: str) -> object:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": []}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["result"]
