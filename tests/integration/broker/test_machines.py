"""Processes on several machines with one PostgreSQL are one broker to everybody, whichever of them dies."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests import servers
from tests.broker_fleet import PART, STREAM, Fleet, Place, run_fleet
from tests.builders import a_key, a_record
from validator.broker.forms import FRAMES
from validator.broker.postgres.database import Database
from validator.broker.postgres.messages import PostgresMessageStore
from validator.net.streamr.bridge import BridgeBus
from validator.ports.message_store import StoredRow
from validator.protocol.codec.answer import Answer, decode_answer
from validator.protocol.codec.frames import take_frames, write_frame
from validator.protocol.codec.heartbeat import heartbeat_of
from validator.protocol.codec.limits import MAX_CANONICAL_BYTES
from validator.protocol.codec.login import Login, sign_login, write_login
from validator.protocol.codec.message import decode_message
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.receipt import sign_receipt, write_receipt
from validator.protocol.codec.statement import SigningContext
from validator.protocol.model import Record
from validator.protocol.parameters import parse_network

PATH = f"/v1/streams/{quote(STREAM, safe='')}/partitions/0"
BROKER, CONSUMER, PUBLISHER = a_key(2), a_key(7), a_key(31)
COUNT, LARGE = 60, 20_000
"""Messages, and bytes of each: together more than the MiB that a consumer may owe."""


@dataclass
class Machines:
    """Two that take in and two that serve, and the database between them."""

    fleet: Fleet
    url: str
    cluster: servers.Cluster
    server: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    process: subprocess.Popen[bytes] | None = None

    def start_database(self) -> None:
        self.process = self.server.enter_context(self.cluster.running())

    def crash_database(self) -> None:
        """At once, and without a word to anybody: what it said it has it must find in its log."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()
        self.server.close()

    @property
    def taking(self) -> list[Place]:
        return self.fleet.places[:2]

    @property
    def serving(self) -> list[Place]:
        return self.fleet.places[2:]

    def heartbeats(self) -> list[StoredRow]:
        """The newest, as they lie in the database."""
        database = Database(self.url)
        database.open()
        store = PostgresMessageStore(database)
        found = [row for part in store.parts() if part != PART for row in store.last(part, 50)]
        database.close()
        return [row for row in found if heartbeat_of(decode_message(row.canonical)) is not None]


@pytest.fixture(scope="module")
def machines(anvil: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    roles = ("ingest", "ingest", "serve", "serve")
    with servers.make_cluster() as cluster, contextlib.ExitStack() as stack:
        url = f"postgresql+psycopg://postgres@/postgres?host={cluster.data}"
        folder = tmp_path_factory.mktemp("machines")
        fleet = stack.enter_context(run_fleet(folder, anvil, [BROKER] * len(roles), roles, url))
        machines = Machines(fleet, url, cluster)
        stack.enter_context(machines.server)
        machines.start_database()
        for place in fleet.places:
            place.settings["unpaid_mib"] = 1
        with ThreadPoolExecutor(len(roles)) as pool:
            list(pool.map(fleet.start, fleet.places))
        yield machines


def _records(count: int, ago_s: int, size: int = 20) -> list[Record]:
    first_ms = time.time_ns() // 1_000_000 - ago_s * 1000
    content = b'"' + b"x" * size + b'"'
    return [a_record(PUBLISHER, stream_id=STREAM, timestamp_ms=first_ms + n, content=content) for n in range(count)]


def _span(records: list[Record]) -> dict[str, int]:
    return {"from": records[0].message.timestamp_ms, "to": records[-1].message.timestamp_ms + 1}


def _publish(fleet: Fleet, records: list[Record]) -> None:
    async def publish() -> None:
        bus = await BridgeBus.open(fleet.hub)
        for record in records:
            await bus.publish(PART, write_protobuf(record.message))
        await bus.close()

    asyncio.run(publish())


def _post(place: Place, records: list[Record]) -> Any:
    body = b"".join(write_frame(write_protobuf(record.message)) for record in records)
    return httpx.post(f"{place.url}{PATH}/messages", content=body, timeout=60, trust_env=False).json()


def _read(place: Place, records: list[Record], **headers: str) -> tuple[list[bytes], Answer]:
    """Canonical bytes of the messages, and the answer's end."""
    found = httpx.get(
        f"{place.url}{PATH}/messages",
        params=_span(records),
        headers={"accept": FRAMES, **headers},
        timeout=60,
        trust_env=False,
    )
    found.raise_for_status()
    *items, end = take_frames(bytearray(found.content), MAX_CANONICAL_BYTES)
    return items, decode_answer(end)


def _holds(place: Place, records: list[Record]) -> bool:
    with contextlib.suppress(httpx.HTTPStatusError):
        return _read(place, records)[0] == [record.canonical for record in records]
    return False


@pytest.mark.timeout(180)
def test_what_one_machine_takes_in_the_others_answer_with_the_same_bytes(machines: Machines) -> None:
    published, posted = _records(30, 60), _records(10, 50)
    _publish(machines.fleet, published)
    assert _post(machines.serving[0], posted)["stored"] == len(posted)
    for place in machines.serving:
        machines.fleet.wait_until(lambda place=place: _holds(place, published))  # type: ignore[misc]
        assert _holds(place, posted)
    (one, end), (other, other_end) = (_read(place, published) for place in machines.serving)
    assert one == other
    assert end.root == other_end.root
    assert [place.ask("/status.json")["leads"] for place in machines.serving] == [False, False]
    assert [place.ask("/readyz")["database"]["ok"] for place in machines.fleet.places] == [True] * 4


@pytest.mark.timeout(180)
def test_a_consumer_spends_once_whichever_machine_it_asks(machines: Machines) -> None:
    first, second = machines.serving
    records = _records(COUNT, 40, LARGE)
    assert _post(first, records)["stored"] == COUNT
    contracts = parse_network((machines.fleet.folder / "network.toml").read_text()).contracts
    login = Login(CONSUMER.address, BROKER.address, time.time_ns() // 1_000_000 + 600_000, b"n" * 32)
    context = SigningContext(31337, contracts.report_manager)
    token = {"authorization": write_login(sign_login(login, CONSUMER, context))}
    _, end = _read(first, records, **token)
    assert end.signed_bytes > 1 << 20
    for place in (second, first):
        refused = httpx.get(f"{place.url}{PATH}/last", headers=token, timeout=60, trust_env=False)
        assert (refused.status_code, refused.json()["field"]) == (402, "receipt")
    receipt = sign_receipt(
        CONSUMER,
        BROKER.address,
        epoch=1,
        cumulative_bytes=end.signed_bytes,
        max_price=1,
        chain_id=31337,
        query_manager=contracts.query_manager,
    )
    sent = httpx.post(f"{second.url}/v1/receipts", content=write_receipt(receipt), timeout=60, trust_env=False)
    assert sent.json()["kept"] is True
    assert httpx.get(f"{first.url}{PATH}/last", headers=token, timeout=60, trust_env=False).status_code == 200


@pytest.mark.timeout(180)
def test_when_the_one_that_leads_is_killed_another_does(machines: Machines) -> None:
    fleet = machines.fleet
    leads = {place.name: place for place in machines.taking}
    fleet.wait_until(lambda: sum(place.ask("/status.json")["leads"] for place in leads.values()) == 1)
    holder = next(place for place in leads.values() if place.ask("/status.json")["leads"])
    (other,) = (place for place in leads.values() if place is not holder)
    fleet.wait_until(lambda: bool(machines.heartbeats()))
    fleet.end(holder, signal.SIGKILL)
    before = machines.heartbeats()[-1].key
    fleet.wait_until(lambda: other.ask("/status.json")["leads"])
    fleet.wait_until(lambda: machines.heartbeats()[-1].key.msg_chain_id != before.msg_chain_id)
    fleet.start(holder)
    assert not holder.ask("/status.json")["leads"]
    chains = [row.key.msg_chain_id for row in machines.heartbeats()]
    assert len(set(chains)) == 2
    assert chains == sorted(chains, key=chains.index), "nobody speaks again once another has spoken"
    assert [place.ask("/readyz")["key"]["ok"] for place in fleet.places] == [True] * 4
    assert [place.ask("/evidence.json") for place in fleet.places] == [[]] * 4


@pytest.mark.timeout(240)
def test_a_database_that_was_away_costs_nothing_that_was_acknowledged(machines: Machines) -> None:
    fleet, (first, second) = machines.fleet, machines.serving
    kept, missed, refused = _records(20, 30), _records(20, 25), _records(5, 20)
    assert _post(first, kept)["stored"] == len(kept)
    machines.crash_database()
    fleet.wait_until(lambda: not any(place.ask("/readyz")["database"]["ok"] for place in fleet.places))
    assert [place.ask("/readyz")["disk"]["ok"] for place in fleet.places] == [True] * 4
    answer = _post(first, refused)
    assert {(said["reason"], said["again"]) for said in answer["messages"]} == {("disk", True)}
    asked = httpx.get(f"{second.url}{PATH}/messages", params=_span(kept), timeout=60, trust_env=False)
    assert (asked.status_code, asked.headers["retry-after"]) == (503, "5")
    _publish(fleet, missed)
    machines.start_database()
    fleet.wait_until(lambda: all(place.ask("/readyz")["database"]["ok"] for place in fleet.places))
    for place in (first, second):
        fleet.wait_until(lambda place=place: _holds(place, kept) and _holds(place, missed))  # type: ignore[misc]
    assert _post(second, refused)["stored"] == len(refused)
    fleet.wait_until(lambda: sum(place.ask("/status.json")["leads"] for place in machines.taking) == 1)
    assert [fleet.end(place, signal.SIGTERM) for place in fleet.places] == [0] * 4
