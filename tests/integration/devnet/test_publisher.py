"""Publishers, lossy network, brokers and a consumer as processes: what the logs say fits together."""

from __future__ import annotations

import base64
import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cast import CHAIN_ID, QUERY_MANAGER, SYSTEM, Cast, broker_address, run_cast
from validator.devnet.eras import era_of
from validator.devnet.publisher import FORGED_KINDS
from validator.protocol.codec.legacy_array import read_legacy_array
from validator.protocol.codec.protobuf import read_protobuf
from validator.protocol.codec.receipt import receipt_of
from validator.protocol.codec.received import ARRAY
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.model import Address, Message, SignatureType

BROKERS = ("b0", "b1", "b2")
CONSUMER = SigningKey(b"\x41" * 32)
SECONDS = 4
RATE = 60
LONGEST_MS = 2_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    """A run of four seconds with much loss and many forgeries, watched until nothing is under way."""
    folder: Path = tmp_path_factory.mktemp("run")
    with run_cast(folder) as cast:
        urls = [
            cast.broker(name, network_port_file=folder / "network.port", era=era_of(index))
            for index, name in enumerate(BROKERS)
        ]
        start_ms = int(time.time() * 1000) + 4_000  # the processes start meanwhile
        config: dict[str, Any] = {
            "port_file": folder / "network.port",
            "published_log": folder / "published",
            "forged_log": folder / "forged",
            "network_log": folder / "network.log",
            "streams": [
                {
                    "id": f"0x{'cc' * 20}/s{n}",
                    "partitions": n + 1,
                    "publishers": [
                        {"key": "0x" + f"5{n}" * 32},
                        {"key": "0x" + f"6{n}" * 32, "scheme": ("p-256", "ml-dsa-87")[n]},
                    ],
                }
                for n in range(2)
            ],
            "brokers": [{"url": url, "form": era_of(index).form} for index, url in enumerate(urls)],
            "start_ms": start_ms,
            "end_ms": start_ms + SECONDS * 1000,
            "rate": RATE,
            "loss": 0.3,
            "duplicates": 0.1,
            "late": 0.05,
            "forged": 0.3,
            "max_delay_ms": LONGEST_MS,
        }
        cast.start("validator.devnet.publisher", "network", config)
        consumer = cast.start(
            "validator.devnet.consumer",
            "consumer",
            {
                "key": CONSUMER.secret_hex(),
                "brokers": [
                    {"address": "0x" + broker_address(name).hex(), "url": urls[index], "era": era_of(index)}
                    for index, name in enumerate(BROKERS)
                ],
                "streams": [{"id": f"0x{'cc' * 20}/s1", "partitions": 2}],
                "chain_id": CHAIN_ID,
                "query_manager": QUERY_MANAGER,
                "start_ms": start_ms,
                "end_ms": start_ms + SECONDS * 1000,
                "epoch_ms": SECONDS * 1000,
                "per_second": 4,
                "log": folder / "consumer.log",
            },
        )
        assert consumer.wait(60) == 0
        network = cast.url("network")
        for _ in range(1_200):
            state = httpx.get(network + "/health").json()
            if state["done"] and state["pending"] == 0:
                break
            time.sleep(0.05)
        assert (state["done"], state["pending"], state["dropped"]) == (True, 0, 0)
        cast.folder.joinpath("window").write_text(f"{start_ms} {start_ms + SECONDS * 1000}")
        yield cast


def span(run: Cast) -> tuple[int, int]:
    start, end = (run.folder / "window").read_text().split()
    return int(start), int(end)


def raw(entry: dict[str, Any]) -> bytes:
    """A logged message as it travelled."""
    line: str = entry["line"]
    return line.encode() if entry["form"] == ARRAY else base64.b64decode(line)


def read(entry: dict[str, Any]) -> Message:
    return read_legacy_array(raw(entry)) if entry["form"] == ARRAY else read_protobuf(raw(entry))


def sha256(entry: dict[str, Any]) -> str:
    return hashlib.sha256(raw(entry)).hexdigest()


def test_every_published_message_is_valid_and_inside_the_span(run: Cast) -> None:
    start, end = span(run)
    published = run.lines("published")
    assert len(published) > RATE * SECONDS / 2
    for entry in published:
        message = read(entry)
        assert verify_message(message) is VALID
        assert start <= message.timestamp_ms < end
        assert (entry["kind"], entry["stream"], entry["partition"]) == ("message", *message.stream_part)
    assert len({entry["line"] for entry in published}) == len(published)


def test_every_kind_of_forgery_reached_a_broker(run: Cast) -> None:
    arrived = {entry["sha256"] for name in BROKERS for entry in run.lines(f"{name}.deliveries")}
    kinds = Counter(entry["kind"] for entry in run.lines("forged") if sha256(entry) in arrived)
    assert set(kinds) == set(FORGED_KINDS)


def test_brokers_differ_by_loss_repetition_order_and_delay_but_only_by_what_was_sent(run: Cast) -> None:
    sent = {sha256(entry): entry["time_ms"] for entry in [*run.lines("published"), *run.lines("forged")]}
    sent |= {sha256(e): e["time_ms"] for name in BROKERS for e in run.lines(f"{name}.published")}
    held = []
    for name in BROKERS:
        deliveries = run.lines(f"{name}.deliveries")
        shas = [entry["sha256"] for entry in deliveries]
        assert set(shas) < set(sent)
        assert len(shas) > len(set(shas))
        times = [sent[sha] for sha in shas]
        assert times != sorted(times)
        delays = [entry["time_ms"] - sent[entry["sha256"]] for entry in deliveries]
        assert max(delays) > LONGEST_MS / 4
        held.append(set(shas))
    assert held[0] != held[1] != held[2] != held[0]


def test_receipts_grow_with_the_bytes_read_and_travel_as_messages(run: Cast) -> None:
    totals = next(e["totals"] for e in run.lines("consumer.log") if e["event"] == "end")
    answers = [e for e in run.lines("consumer.log") if e["event"] == "answer"]
    assert not [e for e in run.lines("consumer.log") if e["event"] == "failed"]
    manager = Address(bytes.fromhex(QUERY_MANAGER[2:]))
    for name in BROKERS:
        address = "0x" + broker_address(name).hex()
        assert totals[address] == sum(e["bytes"] for e in answers if e["broker"] == address) > 0
        published = [read(e) for e in run.lines(f"{name}.published") if e["form"] == ARRAY]
        receipts = [receipt_of(message, CHAIN_ID, manager) for message in published]
        cumulative = [r.cumulative_bytes for r in receipts if r is not None and r.consumer == CONSUMER.address]
        assert len(cumulative) == len(published)
        assert cumulative == sorted(set(cumulative))
        assert cumulative[-1] == totals[address]
        assert all(verify_message(m) is VALID and m.stream_id == SYSTEM for m in published)
    for name in BROKERS:
        assert any(read(e).stream_id == SYSTEM for e in run.lines(f"{name}.deliveries"))


def test_each_broker_holds_what_its_form_can_hold(run: Cast) -> None:
    kinds = {name: {read(e).signature_type for e in run.lines(f"{name}.deliveries")} for name in BROKERS}
    legacy = SignatureType.ECDSA_SECP256K1_LEGACY
    assert kinds["b0"] >= {legacy, SignatureType.ECDSA_SECP256R1, SignatureType.ML_DSA_87}
    assert kinds["b1"] == kinds["b2"] == {legacy}


def test_a_consumer_without_brokers_is_told_so_in_one_line(tmp_path: Path) -> None:
    with run_cast(tmp_path) as cast:
        config = {"key": CONSUMER.secret_hex(), "brokers": [], "streams": [], "chain_id": 1, "start_ms": 0, "end_ms": 1}
        config["epoch_ms"] = 1
        process = cast.start(
            "validator.devnet.consumer", "c", {**config, "query_manager": QUERY_MANAGER, "log": tmp_path / "log"}
        )
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert "brokers" in said
        assert said.count("\n") == 1
        assert process.wait(20) == 2
