"""Processes on several machines with one PostgreSQL are one broker to everybody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from tests import servers
from tests.broker_fleet import PART, STREAM, Fleet, run_fleet
from tests.builders import a_key, a_record
from validator.net.streamr.bridge import BridgeBus
from validator.protocol.codec.protobuf import write_protobuf

PATH = f"/v1/streams/{quote(STREAM, safe='')}/partitions/0"
COUNT = 100


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    with servers.make_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def fleet(anvil: str, cluster: servers.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    url = f"postgresql+psycopg://postgres@/postgres?host={cluster.data}"
    keys = [a_key(2)] * 3
    with run_fleet(tmp_path_factory.mktemp("machines"), anvil, keys, ("ingest", "serve", "serve"), url) as fleet:
        yield fleet


@pytest.mark.timeout(120)
async def test_what_one_machine_takes_in_the_others_answer_with_the_same_bytes(
    fleet: Fleet, cluster: servers.Cluster
) -> None:
    first_ms = time.time_ns() // 1_000_000 - 60_000
    records = [
        a_record(a_key(31), stream_id=STREAM, timestamp_ms=first_ms + n, content=b'{"n":%d}' % n) for n in range(COUNT)
    ]
    _ingest, *serving = fleet.places
    with cluster.running():
        await asyncio.gather(*(asyncio.to_thread(fleet.start, place) for place in fleet.places))
        bus = await BridgeBus.open(fleet.hub)
        for record in records:
            await bus.publish(PART, write_protobuf(record.message))
        await bus.close()

        def count(place: int) -> int:
            span = {"from": first_ms, "to": first_ms + COUNT}
            return int(httpx.get(f"{serving[place].url}{PATH}/summary", params=span, timeout=60).json()["count"])

        await asyncio.to_thread(fleet.wait_until, lambda: count(0) == count(1) == COUNT)
