"""What lies behind a broker's retention comes from the lake: on old paths, for the newest so many, for followers."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.asgi import AsgiClient
from tests.broker_parts import BrokerParts
from tests.builders import GENESIS_MS
from tests.certified_world import BUNDLE_MS, NETWORK, PART, STREAM, World, a_row
from validator.broker.gate import Terms
from validator.broker.reaching import read_last, read_page
from validator.protocol.model import Record

RETAINED_MS = GENESIS_MS + BUNDLE_MS
TAIL = [a_row(2 * BUNDLE_MS + 5 * n, 900 + n) for n in range(3)]
LATE = [a_row(150, 700), a_row(4_100, 701)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    world.add_bundle(([a_row(10 * n, n) for n in range(40)], [a_row(4_000 + n, n) for n in range(300)]))
    world.add_bundle(([a_row(BUNDLE_MS + n, n) for n in range(5)], []), LATE)
    return world


@pytest.fixture(scope="module")
def records(world: World) -> list[Record]:
    return sorted([*world.all_records, *TAIL], key=lambda record: record.order)


@pytest.fixture(scope="module")
def parts(world: World) -> Iterator[BrokerParts]:
    """A broker that has dropped the first bundle's days."""
    held = [r for r in (*world.all_records, *TAIL) if r.message.timestamp_ms >= RETAINED_MS]
    broker = world.broker("young", held, retained_from_ms=RETAINED_MS)
    parts = BrokerParts(broker.folder / "parts", streams={STREAM: 3}, terms=Terms(balance=False, streamr=True))
    parts.broker.store, parts.broker.history, parts.broker.network = broker.store, broker.history, NETWORK
    parts.broker.retained_from_ms = lambda: RETAINED_MS
    yield parts
    parts.close()


@pytest.mark.parametrize("count", [1, 3, 8, 9, 250, 308, 310, 350, 1_000])
def test_the_newest_go_on_in_the_lake(parts: BrokerParts, records: list[Record], count: int) -> None:
    page = read_last(parts.broker, PART, count)
    assert page.messages() == [record.canonical for record in records[-count:]]
    assert page.signed_bytes == sum(record.signed_bytes for record in records[-count:])
    assert page.leaf_list() == [record.leaf for record in records[-count:]]


@pytest.mark.parametrize("limit", [7, 1_000])
def test_pages_go_from_the_lake_to_the_store(parts: BrokerParts, records: list[Record], limit: int) -> None:
    found, after = list[bytes](), None
    while page := read_page(parts.broker, PART, GENESIS_MS, RETAINED_MS * 2, after=after, limit=limit):
        assert len(page) <= limit
        found += page.messages()
        after = page.last_key
    assert found == [record.canonical for record in records]


def test_the_old_paths_answer_from_both(parts: BrokerParts, records: list[Record]) -> None:
    client = AsgiClient(parts.app)
    base = f"/streams/{quote(STREAM, safe='')}/data/partitions/0"
    asked = {"fromTimestamp": str(GENESIS_MS), "toTimestamp": str(RETAINED_MS * 2)}
    rows = client.get(f"{base}/range", asked).json()
    assert [row["sequenceNumber"] for row in rows] == [record.message.sequence_number for record in records]
    newest = client.get(f"{base}/last", {"count": "320"}).json()
    assert newest == rows[-320:]


def test_a_lake_that_does_not_answer_is_an_error_and_no_empty_answer(world: World, parts: BrokerParts) -> None:
    client = AsgiClient(parts.app)
    base = f"/streams/{quote(STREAM, safe='')}/data/partitions/0"
    history, parts.broker.history = parts.broker.history, world.broker("away", retained_from_ms=RETAINED_MS).history
    world.gateways.is_down = True
    try:
        asked = {"fromTimestamp": str(GENESIS_MS), "toTimestamp": str(RETAINED_MS - 1)}
        assert client.get(f"{base}/range", asked).status_code == 503
        asked = {"fromTimestamp": str(RETAINED_MS), "toTimestamp": str(RETAINED_MS * 2)}
        assert len(client.get(f"{base}/range", asked).json()) == 8, "what is retained needs no lake"
    finally:
        world.gateways.is_down = False
        parts.broker.history = history
