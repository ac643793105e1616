"""Bundles read back from a real gateway: by range, by proven chunks where it lies or cuts, and the second time here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import GENESIS_MS
from tests.certified_world import BUNDLE_MS, NETWORK, PART, World, a_row, read_marked
from tests.gateway_process import GatewayProcess, run_gateway
from tests.stored_network import funded_storage, upload
from validator.broker.certified_layer import CertifiedLayer
from validator.broker.store import SqliteMessageStore
from validator.net.arweave.ranges import ProvenRanges
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import StorageId

ROWS = 6_000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with run_gateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def world(gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> World:
    """One bundle of several chunks and row groups, on Arweave."""
    world = World(tmp_path_factory.mktemp("world"))
    rows = [a_row(number * 4_000 // ROWS, number, noise=400) for number in range(ROWS)]
    manifest = world.add_bundle((rows, [a_row(4_000, 1)]))
    storage = funded_storage(gateway)
    try:
        storage_id = upload(storage, gateway, NETWORK, world.folder / "0.parquet", manifest)
    finally:
        storage.close()
    world.report(manifest, world.gateways.files[world.chain.reports[0].storage_id], storage_id=storage_id)
    return world


@pytest.fixture
def stored(world: World, gateway: GatewayProcess) -> tuple[StorageId, bytes]:
    gateway.control("faults", method="DELETE")
    return world.chain.reports[0].storage_id, (world.folder / "0.parquet").read_bytes()


@pytest.fixture
def ranges(gateway: GatewayProcess, tmp_path: Path) -> Iterator[ProvenRanges]:
    storage = funded_storage(gateway)
    yield ProvenRanges(storage, tmp_path / "chunks", 1 << 20)
    storage.close()


def test_any_part_is_put_together_from_proven_chunks_and_kept(
    ranges: ProvenRanges, stored: tuple[StorageId, bytes], gateway: GatewayProcess, tmp_path: Path
) -> None:
    storage_id, data = stored
    assert len(data) > 3 << 18, "several chunks"
    for start, end in ((0, 4), (5, (1 << 18) + 1), ((1 << 18) - 1, (1 << 19) + 1), (len(data) - 9, len(data)), (7, 7)):
        assert ranges.read(storage_id, start, end) == data[start:end]
    assert ranges.size(storage_id) == len(data)
    size, tail = ranges.read_footer(storage_id)
    assert size == len(data) and data.endswith(tail)
    with gateway.stopped():
        assert ranges.read(storage_id, 100, 200) == data[100:200], "from disk"
    with pytest.raises(RemoteFault, match="bytes 0 to"):
        ranges.read(storage_id, 0, len(data) + 1)
    assert sum(path.stat().st_size for path in (tmp_path / "chunks").iterdir()) <= (1 << 20) + (1 << 18)


@pytest.mark.parametrize("kind", ["wrong_bytes", "cut_within"])
def test_chunks_that_are_altered_or_cut_are_never_taken(
    ranges: ProvenRanges, stored: tuple[StorageId, bytes], gateway: GatewayProcess, kind: str
) -> None:
    storage_id, data = stored
    gateway.fail(kind, "^/chunk/", times=20)
    with pytest.raises((RemoteFault, TransientError)):
        ranges.read(storage_id, 10, 20)
    gateway.control("faults", method="DELETE")
    assert ranges.read(storage_id, 10, 20) == data[10:20]


@pytest.mark.parametrize("fault", ["", "wrong_bytes", "cut_within"])
def test_an_empty_broker_is_filled_whatever_the_gateway_says_of_ranges(
    world: World, gateway: GatewayProcess, stored: tuple[StorageId, bytes], tmp_path: Path, fault: str
) -> None:
    if fault:
        gateway.fail(fault, f"^/raw/{encode_storage_id(stored[0])}", times=20)
    store = SqliteMessageStore(tmp_path / "messages")
    layer = CertifiedLayer(
        NETWORK,
        world.chain,  # type: ignore[arg-type]
        [gateway.url],
        tmp_path,
        store,
        lake_bytes=64 << 20,
        retained_from_ms=lambda: 0,
        now_ms=lambda: GENESIS_MS + 3_600_000,
    )
    try:
        assert layer.step()
        assert not layer.step()
        assert (layer.history.newest(), layer.filled) == (0, ROWS + 1)
        span = (GENESIS_MS + 1_000, GENESIS_MS + BUNDLE_MS)
        page = read_marked(layer.history, PART, *span, 0)
        assert len(page) == ROWS * 3 // 4 + 1
        assert all(marked.instance is not None for marked in page)
        assert [route.path for route in layer.routes()] == ["/v1/bundles/{number}", "/v1/proofs/{leaf}"]
    finally:
        layer.close()
        store.close()
