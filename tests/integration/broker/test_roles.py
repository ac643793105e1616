"""Two processes with one folder, one that ingests and one that serves, are one broker to everybody."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from tests.broker_fleet import PART, STREAM, Fleet, run_fleet
from tests.builders import a_key, a_record
from validator.net.streamr.bridge import BridgeBus
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.protobuf import write_protobuf

PATH = f"/v1/streams/{quote(STREAM, safe='')}/partitions/0"
COUNT, POSTED = 120, 10


@pytest.fixture(scope="module")
def fleet(anvil: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    keys = [a_key(2), a_key(2), a_key(3)]
    with run_fleet(tmp_path_factory.mktemp("roles"), anvil, keys, ("ingest", "serve", "all")) as fleet:
        yield fleet


@pytest.mark.timeout(120)
async def test_what_one_ingests_the_other_serves_and_what_is_posted_there_reaches_all(fleet: Fleet) -> None:
    ingest, serve, other = fleet.places
    first_ms = time.time_ns() // 1_000_000 - 60_000
    records = [
        a_record(a_key(31), stream_id=STREAM, timestamp_ms=first_ms + n, content=b'{"n":%d}' % n)
        for n in range(COUNT + POSTED)
    ]
    leaves = {record.leaf for record in records}
    await asyncio.gather(*(asyncio.to_thread(fleet.start, place) for place in fleet.places))
    bus = await BridgeBus.open(fleet.hub)
    for record in records[:COUNT]:
        await bus.publish(PART, write_protobuf(record.message))
    await bus.close()
    late = b"".join(write_frame(write_protobuf(record.message)) for record in records[COUNT:])
    posted = httpx.post(f"{serve.url}{PATH}/messages", content=late, timeout=60, trust_env=False).json()
    assert posted["stored"] == POSTED
    await asyncio.to_thread(fleet.wait_until, lambda: leaves <= serve.held() and leaves <= other.held())
    for place in (serve, other):
        answer = httpx.get(f"{place.url}{PATH}/summary", params={"from": first_ms, "to": first_ms + 1_000}, timeout=60)
        assert answer.json()["count"] == COUNT + POSTED
    assert ingest.ask("/status.json")["parts"]["joined"] > 0
    assert serve.ask("/status.json")["parts"]["joined"] == 0
    assert [place.ask("/evidence.json") for place in fleet.places] == [[], [], []]
    assert ingest.ask("/readyz")["key"]["ok"]
    assert [await asyncio.to_thread(fleet.end, place, signal.SIGTERM) for place in fleet.places] == [0, 0, 0]
