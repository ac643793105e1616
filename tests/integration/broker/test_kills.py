"""A broker that is killed again and again while messages come: what it said that it has it has, the rest comes back."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from tests.broker_fleet import PART, STREAM, Fleet, Place, run_fleet
from tests.builders import a_key, a_record
from validator.net.streamr.bridge import BridgeBus
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.model import Digest, Record

KILLS = 20
EACH = 10
POSTED = 10
POST = f"/v1/streams/{quote(STREAM, safe='')}/partitions/0/messages"
PUBLISHER = a_key(31)


@pytest.fixture(scope="module")
def fleet(anvil: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The lower address visits at once, and it is the one that will be killed."""
    keys = sorted((a_key(2), a_key(3)), key=lambda key: key.address)
    with run_fleet(tmp_path_factory.mktemp("kills"), anvil, keys) as fleet:
        yield fleet


def make_records() -> Iterator[Record]:
    """Of the last two minutes: their slices are closed, so nobody waits for that before he mends."""
    first_ms = time.time_ns() // 1_000_000 - 120_000
    for number in itertools.count():
        yield a_record(PUBLISHER, stream_id=STREAM, timestamp_ms=first_ms + 9 * number, content=b'{"n":%d}' % number)


def post(place: Place, records: list[Record]) -> set[Digest]:
    """Those that it says it has stored."""
    body = b"".join(write_frame(write_protobuf(record.message)) for record in records)
    said = httpx.post(place.url + POST, content=body, timeout=60, trust_env=False).json()
    return {
        record.leaf for record, one in zip(records, said["messages"], strict=True) if one["fate"] in ("stored", "known")
    }


def check_files(place: Place) -> None:
    for file in (*(place.folder / "messages").glob("*.sqlite"), place.folder / "sums.sqlite"):
        with sqlite3.connect(file) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.timeout(240)
async def test_twenty_kills_under_load_lose_nothing_that_was_acknowledged_and_the_rest_comes_back(
    fleet: Fleet,
) -> None:
    killed, other = fleet.places
    await asyncio.gather(*(asyncio.to_thread(fleet.start, place) for place in fleet.places))
    bus, records, chance = await BridgeBus.open(fleet.hub), make_records(), random.Random(1)
    published: set[Digest] = set()
    acknowledged: set[Digest] = set()
    lost: list[int] = []

    async def publish() -> None:
        while True:
            for record in itertools.islice(records, EACH):
                await bus.publish(PART, write_protobuf(record.message))
                published.add(record.leaf)
            await asyncio.sleep(0.1)

    load = asyncio.create_task(publish())
    for _ in range(KILLS):
        acknowledged |= await asyncio.to_thread(post, killed, list(itertools.islice(records, POSTED)))
        await asyncio.sleep(chance.uniform(0, 0.3))
        status = await asyncio.to_thread(fleet.end, killed, signal.SIGKILL)
        assert status == signal.SIGKILL
        check_files(killed)
        held = killed.held()
        assert acknowledged <= held
        lost.append(len(published - held))
        await asyncio.to_thread(fleet.start, killed)
    load.cancel()
    await bus.close()
    everything = published | acknowledged
    await asyncio.to_thread(fleet.wait_until, lambda: everything <= killed.held() and everything <= other.held())
    brought = killed.ask("/status.json")["others"][f"0x{other.key.address.hex()}"]
    print(
        f"{len(everything)} messages, {len(acknowledged)} posted; missing at each kill: {lost}; last start: {brought}"
    )
    assert len(acknowledged) == KILLS * POSTED
    assert max(lost) > 0
    assert brought["stored"] > 0
    assert killed.ask("/evidence.json") == other.ask("/evidence.json") == []
