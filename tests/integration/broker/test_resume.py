"""A broker's process is killed in the middle of an answer: it goes on at another, by cursor."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from collections.abc import Iterator
from ipaddress import ip_network
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import uvicorn

from logstore.answer_check import Verify
from logstore.answers import QueryAnswer
from logstore.brokers import Brokers, Place
from tests.broker_parts import NOW_MS, PART, STREAM, BrokerParts, a_network
from tests.builders import a_key, a_message
from validator.broker.gate import Terms
from validator.net.http.client import BoundedClient
from validator.net.http.listening import listener_config
from validator.net.http.urls import check_url
from validator.protocol.codec.answer import Request
from validator.protocol.codec.message import make_record
from validator.protocol.codec.statement import SigningContext
from validator.protocol.model import Record

LOOPBACK = [ip_network("127.0.0.0/8")]
COUNT = 600
"""Messages of 32 KiB: more than sockets hold on the way, so that a killed process has not given them all."""
_SPAWN = multiprocessing.get_context("spawn")


def serve(folder: Path, secret: int, parent: Connection) -> None:
    parts = BrokerParts(folder, streams={STREAM: 3}, terms=Terms(balance=False))
    parts.broker.key = a_key(secret)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    port = listener.getsockname()[1]
    parent.send(port)
    config = listener_config(parts.app, "127.0.0.1", port, streams=True)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Several to a millisecond, so that a cursor is more than a time."""
    return [
        make_record(
            a_message(
                a_key(3),
                stream_id=STREAM,
                partition=PART[1],
                timestamp_ms=NOW_MS - 10_000 + number // 3,
                sequence_number=number % 3,
                content=b'{"number":%d,"text":"%b"}' % (number, b"x" * 32_768),
            )
        )
        for number in range(COUNT)
    ]


@pytest.fixture
def processes(records: list[Record], tmp_path: Path) -> Iterator[list[tuple[BaseProcess, str]]]:
    """Two brokers that hold the same, with their URLs."""
    begun = []
    for secret in (77, 79):
        folder = tmp_path / str(secret)
        parts = BrokerParts(folder)
        parts.store.insert(records, NOW_MS)
        parts.close()
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=serve, args=(folder, secret, theirs), daemon=True)
        process.start()
        begun.append((process, ours))
    started: list[tuple[BaseProcess, str]] = [(process, f"http://127.0.0.1:{port.recv()}") for process, port in begun]
    yield started
    for running, _ in started:
        running.kill()
        running.join()


def test_a_broker_killed_in_the_middle_costs_a_resume_and_no_message(
    records: list[Record], processes: list[tuple[BaseProcess, str]]
) -> None:
    network = a_network()
    context = SigningContext(network.chain_id, network.contracts.report_manager)
    places = [Place(check_url(url, allow_http=True, allow_nets=LOOPBACK)) for _, url in processes]
    client = BoundedClient(allow_nets=LOOPBACK)
    request = Request(*PART, NOW_MS - 20_000, NOW_MS)

    def no_reports() -> None:
        raise AssertionError("nothing certified is asked for")

    answer = QueryAnswer(request, Verify.SIGNATURES, network, Brokers(places, client, context), no_reports)  # type: ignore[arg-type]
    given = []
    for message in answer:
        given.append(message)
        if len(given) == 10:
            processes[0][0].kill()
            processes[0][0].join()
    client.close()
    assert given == [record.message for record in records]
    first, second = answer.proof.parts
    assert (first.trailer is None, second.trailer is not None) == (True, True)
    assert (first.broker, second.broker) == (a_key(77).address, a_key(79).address)
