"""The broker client against a broker of the development network, a process of its own."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cast import Cast, broker_address, run_cast
from tests.fakes.held_pulls import HeldPull, fetch_window
from validator.devnet.eras import Era
from validator.devnet.publisher import MessageChain
from validator.net.brokers.client import BrokerClient, Limits
from validator.net.brokers.pull import PullFault, PullMetrics
from validator.net.http.urls import IPNetwork
from validator.ports.sources import Broker
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.legacy_array import read_legacy_array
from validator.protocol.codec.protobuf import read_protobuf, write_protobuf
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.errors import TransientError
from validator.protocol.model import Address, StreamPart, Window

KEY = SigningKey(b"\x21" * 32)
PUBLISHER = SigningKey(b"\x22" * 32)
LOOPBACK: tuple[IPNetwork, ...] = (ip_network("127.0.0.0/8"),)
STREAM = "0x" + "cc" * 20 + "/sensors/ä b?%#"
PART: StreamPart = (STREAM, 1)
WINDOW = Window(1_700_000_000_000, 1_700_000_004_000)


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    with run_cast(tmp_path_factory.mktemp("cast")) as cast:
        cast.broker("wide")
        cast.broker("narrow", page_limit=7)
        for era in Era:
            cast.broker(f"era-{era}", page_limit=7, era=era)
        yield cast


def a_client(**more: Any) -> BrokerClient:
    return BrokerClient(KEY, allow_http=True, allow_nets=LOOPBACK, **more)


def soon(seconds: float = 10.0) -> int:
    return int((time.time() + seconds) * 1000)


def messages(chain: str, count: int, window: Window = WINDOW, part: StreamPart = PART) -> list[bytes]:
    """Lines of one chain, spread over the window."""
    writer = MessageChain(PUBLISHER, part[0], part[1], chain)
    step = (window.end_ms - window.start_ms) // count
    return [
        writer.sign(window.start_ms + number * step, json.dumps({"number": number, "text": "ü\u2028é"}).encode())
        for number in range(count)
    ]


def deliver(url: str, lines: list[bytes]) -> dict[str, int]:
    answer = httpx.post(url + "/ingest", content=b"\n".join(lines))
    assert answer.status_code == 200
    counts: dict[str, int] = answer.json()
    return counts


def pull(client: BrokerClient, brokers: list[Broker], **more: Any) -> list[HeldPull]:
    return fetch_window(
        client,
        brokers,
        more.get("parts", [PART]),
        more.get("window", WINDOW),
        etags=more.get("etags", {}),
        deadline_ms=more.get("deadline_ms", soon()),
    )


def test_a_window_comes_whole_and_byte_for_byte_from_every_broker(cast: Cast) -> None:
    lines = messages("w" * 20, 40)
    outside = messages("x" * 20, 3, Window(WINDOW.end_ms, WINDOW.end_ms + 3))
    before = messages("y" * 20, 3, Window(WINDOW.start_ms - 3, WINDOW.start_ms))
    brokers = []
    for name in ("wide", "narrow"):
        deliver(cast.url(name), lines + outside + before)
        brokers.append(Broker(broker_address(name), cast.url(name)))
    seen: list[PullMetrics] = []
    client = a_client(on_pull=seen.append)
    pulls = pull(client, brokers)
    client.close()
    assert [(p.broker, p.stream_part, p.error) for p in pulls] == [(b.address, PART, "") for b in brokers]
    for got in pulls:
        assert got.complete
        assert not got.unchanged
        assert {record.data for record in got.records} == set(lines)
        assert [record.position for record in got.records] == list(range(len(got.records)))
        assert all(verify_message(read_legacy_array(record.data)) is VALID for record in got.records)
        assert got.etag is not None
    by_broker = {metrics.broker: metrics for metrics in seen}
    assert by_broker[brokers[0].address].pages == 1
    assert by_broker[brokers[1].address].pages == 6
    assert all(m.messages == 40 and m.bytes > sum(map(len, lines)) and m.fault is None for m in seen)


def test_an_unchanged_window_costs_a_304_until_a_message_arrives(cast: Cast) -> None:
    part = (STREAM, 2)
    broker = Broker(broker_address("narrow"), cast.url("narrow"))
    deliver(broker.url, messages("a" * 20, 20, part=part))
    client = a_client()
    (first,) = pull(client, [broker], parts=[part])
    assert first.etag is not None
    (again,) = pull(client, [broker], parts=[part], etags={(broker.address, part): first.etag})
    assert (again.unchanged, again.complete, again.records, again.etag) == (True, True, (), first.etag)
    deliver(broker.url, messages("b" * 20, 1, part=part))
    (changed,) = pull(client, [broker], parts=[part], etags={(broker.address, part): first.etag})
    client.close()
    assert not changed.unchanged
    assert len(changed.records) >= 21
    assert changed.etag != first.etag


def test_an_empty_partition_is_complete(cast: Cast) -> None:
    client = a_client()
    (got,) = pull(client, [Broker(broker_address("wide"), cast.url("wide"))], parts=[("nothing/here", 0)])
    client.close()
    assert (got.complete, got.records, got.error) == (True, (), "")


def test_many_partitions_of_many_brokers_come_in_one_call(cast: Cast) -> None:
    brokers = [Broker(broker_address(name), cast.url(name)) for name in ("wide", "narrow")]
    parts = [(f"many.eth/{number}", number) for number in range(12)]
    for broker in brokers:
        for part in parts:
            deliver(broker.url, messages("m" * 20, 3, part=part))
    client = a_client()
    pulls = pull(client, brokers, parts=parts)
    client.close()
    assert [(p.broker, p.stream_part) for p in pulls] == [(b.address, part) for b in brokers for part in parts]
    assert all(p.complete and len(p.records) == 3 for p in pulls)


def test_a_record_that_cannot_be_read_leaves_the_others_of_the_page(cast: Cast) -> None:
    part = (STREAM, 3)
    broker = Broker(broker_address("wide"), cast.url("wide"))
    good = messages("g" * 20, 3, part=part)
    odd = json.dumps([99, [part[0], part[1], WINDOW.start_ms + 1, 0, "nobody", ""], {"not": "a message"}]).encode()
    assert deliver(broker.url, [*good, odd, b'{"no":"array"}', b"\xff\xfe"]) == {"received": 6, "new": 4, "refused": 2}
    client = a_client()
    (got,) = pull(client, [broker], parts=[part])
    client.close()
    assert got.complete
    assert {record.data for record in got.records} == {*good, odd}


def test_records_are_handed_over_in_the_order_served_and_the_pulls_hold_none(cast: Cast) -> None:
    part = (STREAM, 5)
    brokers = [Broker(broker_address(name), cast.url(name)) for name in ("wide", "narrow")]
    delivered = {broker.address: messages("s" * 20, 25, part=part) for broker in brokers}
    for broker in brokers:
        deliver(broker.url, delivered[broker.address])
    taken: dict[Address, list[bytes]] = {broker.address: [] for broker in brokers}

    def take(broker: Address, of: StreamPart, position: int, records: Sequence[bytes], form: str) -> None:
        assert (of, position, form) == (part, len(taken[broker]), "array")
        taken[broker] += records

    client = a_client()
    pulls = client.stream_window(brokers, [part], WINDOW, take, etags={}, deadline_ms=soon())
    client.close()
    assert taken == delivered
    assert [(got.complete, getattr(got, "records", ())) for got in pulls] == [(True, ())] * 2


def test_a_disk_that_is_full_is_not_the_brokers_fault(cast: Cast) -> None:
    part = (STREAM, 6)
    broker = Broker(broker_address("wide"), cast.url("wide"))
    deliver(broker.url, messages("f" * 20, 3, part=part))

    def refuse(*_: object) -> None:
        raise TransientError("no space left")

    client = a_client()
    with pytest.raises(TransientError, match="no space left"):
        client.stream_window([broker], [part], WINDOW, refuse, etags={}, deadline_ms=soon())
    client.close()


def test_a_dead_broker_costs_its_own_pulls_only(cast: Cast) -> None:
    alive = Broker(broker_address("wide"), cast.url("wide"))
    dead = Broker(broker_address("dead"), "http://127.0.0.1:1025")
    client = a_client()
    of_dead, of_alive = pull(client, [dead, alive], parts=[("nothing/here", 0)])
    client.close()
    assert of_alive.complete
    assert not of_dead.complete
    assert of_dead.error.startswith(PullFault.CONNECTION)


def test_records_beyond_the_limit_of_a_broker_are_not_taken(cast: Cast) -> None:
    part = (STREAM, 4)
    broker = Broker(broker_address("wide"), cast.url("wide"))
    deliver(broker.url, messages("l" * 20, 30, part=part))
    client = a_client(limits=Limits(broker_rows=10))
    (got,) = pull(client, [broker], parts=[part])
    client.close()
    assert len(got.records) == 10
    assert not got.complete
    assert got.etag is None
    assert got.error.startswith(PullFault.LIMIT)


def test_a_passed_deadline_is_said_without_a_request(tmp_path: Path) -> None:
    client = a_client()
    (got,) = pull(client, [Broker(broker_address("x"), "http://127.0.0.1:1025")], deadline_ms=soon(-5))
    client.close()
    assert got.error.startswith(PullFault.DEADLINE)


def test_several_threads_pull_with_one_client(cast: Cast) -> None:
    brokers = [Broker(broker_address(name), cast.url(name)) for name in ("wide", "narrow")]
    parts = [(f"threads.eth/{number}", number) for number in range(4)]
    for broker in brokers:
        for part in parts:
            deliver(broker.url, messages("t" * 20, 9, part=part))
    client = a_client()
    with ThreadPoolExecutor(5) as pool:
        results = list(pool.map(lambda _: pull(client, brokers, parts=parts), range(5)))
    client.close()
    assert all(got.complete and len(got.records) >= 9 for pulls in results for got in pulls)


@pytest.mark.parametrize("era", list(Era))
def test_a_broker_of_each_era_is_read_whole_although_its_pages_are_small(cast: Cast, era: Era) -> None:
    part = (STREAM, 7)
    broker = Broker(broker_address(f"era-{era}"), cast.url(f"era-{era}"))
    lines = messages("e" * 20, 40, part=part)
    bodies = [write_protobuf(read_legacy_array(line)) for line in lines]
    newest = era is Era.APRIL_2024
    body = b"".join(map(write_frame, bodies)) if newest else b"\n".join(lines)
    assert httpx.post(broker.url + "/ingest", content=body).json()["new"] == 40
    client = a_client()
    first, nothing = pull(client, [broker], parts=[part, ("nothing/here", 0)])
    client.close()
    assert (first.error, nothing.error) == ("", "")
    assert [record.data for record in first.records] == (bodies if newest else lines)
    assert nothing.records == ()
    read = read_protobuf if newest else read_legacy_array
    assert all(verify_message(read(record.data)) is VALID for record in first.records)


def test_a_broker_that_is_upgraded_in_place_is_read_before_and_after(tmp_path: Path) -> None:
    client = a_client()
    seen = []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for number, era in enumerate([Era.YEAR_2023, Era.JANUARY_2024, Era.APRIL_2024, Era.YEAR_2023]):
        (tmp_path / str(number)).mkdir()
        with run_cast(tmp_path / str(number)) as later:
            broker = Broker(broker_address("one"), later.broker("one", era=era, port=port))
            seen += pull(client, [broker], parts=[("nothing/here", 0)])
    client.close()
    assert [(got.complete, got.error) for got in seen] == [(True, "")] * 4
