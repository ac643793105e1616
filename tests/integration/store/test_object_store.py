"""Sets in an object store: several machines' workers, one bucket, by moto's server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from tests.builders import some_records
from validator.operations.check_machine import check_sets
from validator.operations.findings import Level, guarded
from validator.protocol.codec.outcome import set_root
from validator.protocol.consensus.window import make_entries
from validator.protocol.errors import TransientError
from validator.protocol.model import Root
from validator.settings import Settings
from validator.store.segment_format import DamagedSegment
from validator.store.segments import SegmentStore

BUCKET = "sets-of-a-fleet"
URL = f"s3://{BUCKET}/validator-1"
SETTINGS = Settings(
    _env_file=None,
    network_file=Path("network.toml"),
    rpc_urls="https://a.example",
    gateway_urls="https://b.example",
    segments_url=URL,
)


class Server:
    """A server with one bucket, at one port, which comes and goes; what it holds stays."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    endpoint = f"http://127.0.0.1:{server.port}"
    httpx.put(f"{endpoint}/{BUCKET}", trust_env=False).raise_for_status()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setattr(S3FileSystem, "retries", 1)
        yield server
    server.stop()


def another_machine() -> SegmentStore:
    """The same bucket through a file system that shares nothing with earlier ones."""
    S3FileSystem.clear_instance_cache()
    return SegmentStore(URL)


def root_of(count: int) -> Root:
    return set_root(make_entries(some_records(count)))


def test_what_one_machine_writes_and_deletes_another_sees_at_once(server: Server) -> None:
    del server
    one, two, root = another_machine(), another_machine(), root_of(30)
    assert not one.exists(root)
    with pytest.raises(DamagedSegment, match="gone"):
        one.load_entries(root)
    two.save(root, some_records(30))
    assert one.exists(root)
    (entry,) = one.load_entries(root)
    assert entry.count == 30
    leaves = [record.leaf for record in some_records(30)]
    assert one.load_messages(root, leaves) == [record.canonical for record in some_records(30)]
    one.put_aside(root)
    assert not two.exists(root)
    assert len(two.salvage(root).messages) == 30
    two.save(root, some_records(30))
    one.glance(root, two.save(root, some_records(30)).size)  # equal sets take each other's place
    one.delete(root)
    two.delete(root)
    assert not two.exists(root)
    assert one.sweep(time.time() + 60, 10) == 1  # what was put aside
    assert two.sweep(time.time() + 60, 10) == 0


def check() -> list[str]:
    """What ``check`` says of the place."""
    S3FileSystem.clear_instance_cache()
    return [finding.level for finding in guarded("sets", partial(check_sets, SETTINGS))]


def test_a_store_that_does_not_answer_is_for_later(server: Server) -> None:
    assert check() == [Level.OK]
    store, root = another_machine(), root_of(5)
    store.save(root, some_records(5))
    fresh = another_machine()
    server.stop()
    for doing in (
        lambda: fresh.exists(root),
        lambda: fresh.load_entries(root),
        lambda: fresh.delete(root),
        lambda: fresh.sweep(0.0, 10),
        lambda: fresh.save(root_of(6), some_records(6)),
    ):
        with pytest.raises(TransientError):
            doing()
    assert check() == [Level.FAIL]
    server.start()
    assert [entry.count for entry in fresh.load_entries(root)] == [5]
    assert store.exists(root)
