"""A reader pays for each epoch by itself: what it owes of one is handed over before the next one's count begins."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.builders import a_key
from validator.devnet import consumer
from validator.devnet.consumer import BrokerConfig, Config, Consumer, StreamConfig
from validator.protocol.codec.receipt import parse_receipt

URL = "http://127.0.0.1:1"
BROKER = a_key(1)
STEP_MS = 500


def test_receipts_of_each_epoch_count_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"ms": 10_000}
    receipts = []
    refused = {"once": True}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            clock["ms"] += STEP_MS
            return httpx.Response(200, stream=httpx.ByteStream(b"x" * 100))
        if refused.pop("once", False):
            return httpx.Response(503)
        receipt = parse_receipt(request.content, BROKER.address)
        assert receipt is not None
        receipts.append((receipt.epoch, receipt.cumulative_bytes))
        return httpx.Response(200, json={"kept": True})

    monkeypatch.setattr(consumer, "now_ms", lambda: clock["ms"])
    config = Config(
        key=a_key(2).secret_hex(),
        brokers=[BrokerConfig(f"0x{BROKER.address.hex()}", URL)],
        streams=[StreamConfig("0x01/s", 1)],
        chain_id=31337,
        query_manager="0x" + "11" * 20,
        start_ms=10_000,
        end_ms=14_000,
        log=tmp_path / "log",
        epoch_ms=2_000,
        per_second=1000 / STEP_MS,
    )
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        Consumer(config, client).run()
    assert receipts == [(0, 200), (0, 300), (0, 400), (1, 100), (1, 200), (1, 300), (1, 400)]
