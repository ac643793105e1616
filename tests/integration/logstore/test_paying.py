"""A broker that wants to be paid, and a consumer who pays within a budget and never beyond."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import logstore
from logstore.errors import BudgetSpent, Denied
from logstore.paying import MIB, Payer
from logstore.store import LogStore
from tests.broker_parts import STREAM, BrokerParts, a_network, serving
from tests.builders import a_key, a_record
from validator.protocol.errors import ConfigError
from validator.protocol.parameters import format_network

NOW_MS = time.time_ns() // 1_000_000
RECORDS = [
    a_record(stream_id=STREAM, timestamp_ms=NOW_MS - 10_000 + n, content=b'"' + b"x" * 900 + b'"') for n in range(40)
]
SIGNED = sum(record.signed_bytes for record in RECORDS)
PRICE = 1_000 * MIB
"""A thousand base units per byte."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerParts]:
    parts = BrokerParts(tmp_path_factory.mktemp("broker"), unpaid_limit=1_000)
    parts.now_ms = NOW_MS
    parts.store.insert(RECORDS, NOW_MS)
    yield parts
    parts.close()


@pytest.fixture(scope="module")
def broker(parts: BrokerParts) -> Iterator[str]:
    with serving(parts.app) as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOGSTORE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LOGSTORE_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "network.toml").write_text(format_network(a_network()))
    return tmp_path


def ask(network: LogStore, broker: str, **budget: int | str) -> int:
    answer = network.query(
        STREAM,
        NOW_MS - 60_000,
        NOW_MS,
        verify="signatures",
        brokers=[broker],
        **budget,  # type: ignore[arg-type]
    )
    with answer:
        return sum(1 for _ in answer)


def test_who_pays_goes_on_reading_and_who_does_not_hears_why(folder: Path, parts: BrokerParts, broker: str) -> None:
    with logstore.connect(folder / "network.toml", key=a_key(61)) as network:
        assert ask(network, broker) == len(RECORDS)
        with pytest.raises(Denied, match="HTTP 402: unpaid bytes"):
            ask(network, broker)
    budget = {"max_price": PRICE, "max_total": 2_000 * SIGNED}
    for _ in range(3):  # each a program of its own
        with logstore.connect(folder / "network.toml", key=a_key(62)) as network:
            assert ask(network, broker, **budget) == len(RECORDS)
    assert parts.accounts.may_read(a_key(62).address)
    kept = parts.accounts._of(a_key(62).address)
    assert (kept.cumulative, kept.unpaid) == (3 * SIGNED, 0)


def test_a_budget_is_never_exceeded(folder: Path, parts: BrokerParts, broker: str) -> None:
    with logstore.connect(folder / "network.toml", key=a_key(63)) as network:
        assert ask(network, broker, max_price=PRICE, max_total=1_000 * (SIGNED - 500)) == len(RECORDS)
    kept = parts.accounts._of(a_key(63).address)
    assert (kept.cumulative, kept.unpaid) == (SIGNED - 500, 500)
    payer = Payer(a_key(63), a_network(), folder, max_price=MIB, max_total=1, clock=lambda: NOW_MS)
    payer._bytes_left = 0
    with pytest.raises(BudgetSpent, match="raise max_total"):
        payer.require_left()


def test_a_receipt_that_says_less_than_the_last_is_noticed(folder: Path, broker: str) -> None:
    budget = {"max_price": PRICE, "max_total": 2_000 * SIGNED}
    with logstore.connect(folder / "network.toml", key=a_key(64)) as network:
        ask(network, broker, **budget)
        for file in (folder / "state" / "receipts").rglob("*.json"):
            file.unlink()
        with pytest.raises(Denied, match="keep that file with the key"):
            ask(network, broker, **budget)


def test_half_a_budget_is_none(folder: Path, broker: str) -> None:
    with logstore.connect(folder / "network.toml", key=a_key(65)) as network:
        with pytest.raises(ConfigError, match="name both"):
            ask(network, broker, max_price=PRICE)
        with pytest.raises(ConfigError, match="no amount; write"):
            ask(network, broker, max_price="5", max_total="1LSAN")
