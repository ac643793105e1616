"""Reading back from gateways that have the data in one way and not in another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import GatewayProcess
from tests.integration.net.arweave.conftest import Bundle
from validator.net.arweave.storage import ArweaveStorage
from validator.ports.storage import PreparedUpload
from validator.protocol.errors import RemoteFault, TransientError

BY_NAME = "/[A-Za-z0-9_-]{43}$"


@pytest.fixture
def prepared(storage: ArweaveStorage, funded: GatewayProcess, bundle: Bundle) -> PreparedUpload:
    """Uploaded and mined."""
    prepared = storage.prepare(bundle.path, bundle.tags)
    storage.post(prepared)
    storage.seed(prepared, bundle.path)
    funded.mine()
    return prepared


def asked(gateway: GatewayProcess, route: str) -> int:
    return int(gateway.stats()["requests"].get(route, 0))


@pytest.mark.parametrize("status", [202, 400, 404, 405, 410])
def test_what_is_not_there_raw_is_read_by_name(
    status: int,
    storage: ArweaveStorage,
    funded: GatewayProcess,
    prepared: PreparedUpload,
    bundle: Bundle,
    tmp_path: Path,
) -> None:
    funded.fail("answer", "/raw/", status=status)
    assert storage.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 20) == 600_000
    assert (tmp_path / "back").read_bytes() == bundle.content
    assert funded.faults_left() == 0


@pytest.mark.parametrize("status", [404, 302])
@pytest.mark.parametrize("size", [1, 262_144, 262_145, 600_000])
def test_what_has_no_name_either_is_read_chunk_by_chunk(
    size: int,
    status: int,
    storage: ArweaveStorage,
    funded: GatewayProcess,
    build_bundle: Callable[[int], Bundle],
    tmp_path: Path,
) -> None:
    bundle = build_bundle(size)
    prepared = storage.prepare(bundle.path, bundle.tags)
    storage.post(prepared)
    storage.seed(prepared, bundle.path)
    funded.mine()
    funded.fail("answer", "/raw/", status=404)
    funded.fail("answer", BY_NAME, status=status, headers={"location": "/elsewhere"})
    heard: list[int] = []
    read = storage.download(prepared.storage_id, tmp_path / "back", 1 << 20, lambda done, total: heard.append(done))
    assert (read.size, read.sha256) == (size, prepared.data_sha256)
    assert (tmp_path / "back").read_bytes() == bundle.content
    assert heard[-1] == size
    assert funded.faults_left() == 0


def test_a_chunk_or_a_place_that_is_a_lie_reaches_no_file(
    storage: ArweaveStorage, funded: GatewayProcess, prepared: PreparedUpload, bundle: Bundle, tmp_path: Path
) -> None:
    lies: list[dict[str, Any]] = [
        {"path": "/chunk/", "body": '{"chunk": "AA", "data_path": "AA"}'},
        {"path": "/chunk/", "body": '{"chunk": 5}'},
        {"path": "/chunk/", "body": "<html>"},
        {"path": "/tx/[^/]+/offset", "body": '{"size": "600001", "offset": "600001"}'},
        {"path": "/tx/[^/]+/offset", "body": '{"size": "600000", "offset": "5"}'},
        {"path": "/tx/[^/]+/offset", "body": "[]"},
    ]
    for lie in lies:
        funded.fail("answer", "/raw/", status=404)
        funded.fail("answer", BY_NAME, status=404)
        funded.fail("answer", status=200, **lie)
        with pytest.raises(TransientError, match=r"not readable yet.*(not proven|chunk|offset|signed)"):
            storage.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 20)
        assert funded.faults_left() == 0, lie
    assert [path.name for path in tmp_path.iterdir()] == [bundle.path.name]


@pytest.mark.parametrize("kind", ["cut_before", "cut_within", "wrong_bytes"])
def test_a_gateway_that_breaks_off_or_gives_other_bytes_is_not_asked_in_another_way(
    kind: str, storage: ArweaveStorage, funded: GatewayProcess, prepared: PreparedUpload, tmp_path: Path
) -> None:
    before = asked(funded, "GET /chunk")
    funded.fail(kind, "/raw/")
    with pytest.raises((TransientError, RemoteFault)):
        storage.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 20)
    assert asked(funded, "GET /chunk") == before
    assert not (tmp_path / "back").exists()
