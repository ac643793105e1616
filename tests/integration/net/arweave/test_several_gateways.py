"""One weave behind several gateways: who must have taken, seen and given back what, and what is sent to whom again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gateway_doors import Door, open_doors
from tests.gateway_process import GatewayProcess
from tests.integration.net.arweave.conftest import FAST, Bundle
from validator.net.arweave.storage import ArweaveStorage
from validator.ports.storage import GatewaySeed, PreparedUpload, StorageState, is_seeded
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.errors import TransientError

Build = Callable[..., ArweaveStorage]
CHUNKS = 20
RUN = 7


@pytest.fixture
def doors(funded: GatewayProcess) -> Iterator[list[Door]]:
    with open_doors(funded.url, 3) as doors:
        yield doors


@pytest.fixture
def large(build_bundle: Callable[[int], Bundle]) -> Bundle:
    return build_bundle((CHUNKS - 1) * 262_144 + 40_000)


def urls(doors: list[Door]) -> list[str]:
    return [door.url for door in doors]


def chunks_at(door: Door) -> int:
    return door.passed["POST /chunk"]


def in_runs(build: Build, doors: list[Door]) -> ArweaveStorage:
    """A new process whose clock goes on by a second with each chunk, and whose runs take so many seconds."""
    seconds = itertools.count()
    return build(*urls(doors), limits=replace(FAST, seed_s=RUN), now=lambda: float(next(seconds)))


def test_runs_send_each_chunk_once_to_each_gateway_and_the_next_process_goes_on(
    doors: list[Door], build_storage: Build, large: Bundle
) -> None:
    pair = doors[:2]
    prepared = build_storage(*urls(pair)).prepare(large.path, large.tags)
    taken: dict[str, int] = {}
    for run in itertools.count(1):
        seeds = in_runs(build_storage, pair).seed(prepared, large.path, taken)
        taken = {seed.host: seed.taken for seed in seeds}
        assert sum(bits.bit_count() for bits in taken.values()) == min(run * RUN, 2 * CHUNKS)
        if is_seeded(seeds):
            break
        assert any(seed.is_stopped_by_time for seed in seeds)
    assert run == -(-2 * CHUNKS // RUN)
    assert [chunks_at(door) for door in pair] == [CHUNKS, CHUNKS]


def test_a_run_that_was_not_saved_is_sent_again_and_nothing_else(
    doors: list[Door], funded: GatewayProcess, build_storage: Build, large: Bundle, tmp_path: Path
) -> None:
    prepared = in_runs(build_storage, doors[:1]).prepare(large.path, large.tags)
    (saved,) = in_runs(build_storage, doors[:1]).seed(prepared, large.path)
    in_runs(build_storage, doors[:1]).seed(prepared, large.path, {saved.host: saved.taken})  # and killed before saving
    (seed,) = build_storage(doors[0].url).seed(prepared, large.path, {saved.host: saved.taken})
    assert seed.is_complete
    assert chunks_at(doors[0]) == CHUNKS + RUN
    funded.mine()
    back = build_storage(doors[0].url)
    assert back.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 24) == len(large.content)
    assert (tmp_path / "back").read_bytes() == large.content


def test_two_of_three_gateways_are_enough_and_one_of_two_is_not(
    doors: list[Door], build_storage: Build, bundle: Bundle
) -> None:
    prepared = build_storage(*urls(doors)).prepare(bundle.path, bundle.tags)
    doors[0].refuses = lambda _method, path: 400 if path == "/chunk" else None
    seeds = build_storage(*urls(doors)).seed(prepared, bundle.path)
    assert [seed.is_complete for seed in seeds] == [False, True, True]
    assert is_seeded(seeds)
    seeds = build_storage(*urls(doors[:2])).seed(prepared, bundle.path)
    assert not is_seeded(seeds)
    assert str(seeds[0]).startswith(f"{doors[0].host} took 0 of 3 (")


def test_a_bit_for_each_chunk_of_each_gateway_makes_it_whole() -> None:
    assert GatewaySeed("g", 0b111, 3).is_complete
    assert not GatewaySeed("g", 0b011, 3).is_complete
    assert not is_seeded([GatewaySeed("g", 0b011, 3), GatewaySeed("h", 0b100, 3)]), "together is not each"


def test_what_one_of_two_gateways_says_is_confirmed_is_pending(
    doors: list[Door], funded: GatewayProcess, build_storage: Build, bundle: Bundle
) -> None:
    prepared = upload(build_storage(*urls(doors)), bundle)
    funded.mine(3)
    assert build_storage(*urls(doors[:2])).fetch_status(prepared.storage_id).confirmations == 3
    for refused in (404, 400):
        doors[0].refuses = lambda _method, _path, status=refused: status  # type: ignore[misc]
        assert build_storage(*urls(doors[:2])).fetch_status(prepared.storage_id).state == StorageState.PENDING
        assert build_storage(*urls(doors)).fetch_status(prepared.storage_id).confirmations == 3


def test_data_is_read_back_from_another_gateway_than_the_one_posted_to(
    doors: list[Door], funded: GatewayProcess, build_storage: Build, bundle: Bundle, tmp_path: Path
) -> None:
    doors[0].refuses = lambda _method, _path: 400
    storage = build_storage(*urls(doors[:2]))
    prepared = storage.prepare(bundle.path, bundle.tags)
    posted_to = storage.post(prepared)
    assert posted_to == doors[1].host, "who took it, not who is first"
    doors[0].refuses = lambda _method, _path: None
    storage.seed(prepared, bundle.path)
    funded.mine()
    before = doors[1].passed["GET /raw"]
    assert storage.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 20, posted_to=posted_to) == 600_000
    assert (doors[0].passed["GET /raw"], doors[1].passed["GET /raw"]) == (1, before)
    header = f"/tx/{encode_storage_id(prepared.storage_id)}"
    doors[0].refuses = lambda _method, path: None if path == header else 404
    with pytest.raises(TransientError):
        storage.fetch_data(prepared.storage_id, tmp_path / "again", 1 << 20, posted_to=posted_to)
    alone = build_storage(doors[1].url)
    assert alone.fetch_data(prepared.storage_id, tmp_path / "again", 1 << 20, posted_to=posted_to) == 600_000


def test_a_header_is_dropped_only_when_every_gateway_tells_a_height_past_its_life(
    doors: list[Door], funded: GatewayProcess, build_storage: Build, bundle: Bundle
) -> None:
    storage = build_storage(*urls(doors[:2]))
    prepared = storage.prepare(bundle.path, bundle.tags)
    funded.mine(50 + 18 + 7)
    status = storage.fetch_status(prepared.storage_id)
    assert status.state == StorageState.MISSING
    doors[0].refuses = lambda _method, path: 400 if path == "/info" else None
    assert not storage.fetch_is_dropped(prepared, status)
    doors[0].refuses = lambda _method, _path: None
    assert storage.fetch_is_dropped(prepared, status)


def upload(storage: ArweaveStorage, bundle: Bundle) -> PreparedUpload:
    prepared = storage.prepare(bundle.path, bundle.tags)
    storage.post(prepared)
    assert is_seeded(storage.seed(prepared, bundle.path))
    return prepared
