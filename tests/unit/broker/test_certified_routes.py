"""Bundles and message proofs over HTTP: what is given verifies, and what is not there has a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette

from tests.asgi import AsgiClient
from tests.builders import GENESIS_MS
from tests.certified_world import BUNDLE_MS, Broker, World, a_row
from validator.broker.certified_routes import CertifiedRoutes
from validator.broker.history import History
from validator.protocol.codec.arweave_text import decode_base64url, encode_storage_id
from validator.protocol.codec.manifest import decode_manifest, manifest_root
from validator.protocol.codec.stored_message import decode_stored
from validator.protocol.model import Record
from validator.protocol.proof import verify_message

LATE = a_row(120, 900)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.add_bundle(([a_row(2 * n, n) for n in range(700)], [a_row(4_000, 1)]))
    world.add_bundle(([a_row(BUNDLE_MS, 1)], []), [LATE])
    return world


def client_of(broker: Broker) -> AsgiClient:
    assert isinstance(broker.history, History)
    return AsgiClient(Starlette(routes=CertifiedRoutes(broker.bundles, broker.history).routes()))


def asked(record: Record, **more: str) -> tuple[str, dict[str, str]]:
    m = record.message
    return f"/v1/proofs/0x{record.leaf.hex()}", {
        "stream": m.stream_id,
        "partition": str(m.partition),
        "timestamp": str(m.timestamp_ms),
        **more,
    }


@pytest.mark.parametrize("retained_from_ms", [0, GENESIS_MS + 10 * BUNDLE_MS])
def test_every_message_is_proven_up_to_the_contracts_root_from_the_store_and_from_the_lake(
    world: World, retained_from_ms: int
) -> None:
    client = client_of(world.broker("broker", retained_from_ms=retained_from_ms))
    for record in (*(a_row(2 * n, n) for n in (0, 255, 256, 511, 512, 699)), LATE, a_row(BUNDLE_MS, 1)):
        answer = client.get(*asked(record))
        assert answer.status_code == 200, answer.text
        stored = decode_stored(answer.content)
        assert stored.canonical == record.canonical
        assert stored.root == world.root_of(stored.number)
        verify_message(stored.proof, stored.canonical, stored.root)


def test_a_message_that_no_bundle_holds_is_not_found_and_as_of_says_which_count(world: World) -> None:
    client = client_of(world.broker("broker", [a_row(130, 950)]))
    for record, more in ((a_row(130, 950), {}), (a_row(131, 951), {}), (LATE, {"asOf": "0"})):
        answer = client.get(*asked(record, **more))
        assert (answer.status_code, answer.json()["field"]) == (404, "leaf")
    assert client.get(*asked(LATE, asOf="1")).status_code == 200
    answer = client.get(*asked(LATE, asOf="2"))
    assert (answer.status_code, answer.json()["field"], answer.json()["newest"]) == (404, "asOf", 1)


def test_a_bundle_is_its_manifest_and_what_the_contract_holds(world: World) -> None:
    client = client_of(world.broker("broker"))
    answer = client.get("/v1/bundles/1")
    assert manifest_root(decode_manifest(answer.content)) == world.root_of(1)
    assert answer.headers["logstore-root"] == f"0x{world.root_of(1).hex()}"
    assert answer.headers["logstore-end-ms"] == str(GENESIS_MS + 2 * BUNDLE_MS)
    answer = client.get("/v1/bundles/2")
    assert (answer.status_code, answer.json()) == (
        404,
        {"error": "bundle: 2 is not verified here", "field": "bundle", "newest": 1},
    )


def test_a_bundle_as_json_names_everything(world: World) -> None:
    said = client_of(world.broker("broker")).get("/v1/bundles/0", headers={"accept": "application/json"}).json()
    manifest = decode_base64url(said.pop("manifest"), "manifest", max_bytes=1 << 20)
    assert manifest_root(decode_manifest(manifest)) == world.root_of(0)
    assert said == {
        "number": 0,
        "root": f"0x{world.root_of(0).hex()}",
        "storage_id": encode_storage_id(world.chain.reports[0].storage_id),
        "first_ms": GENESIS_MS,
        "end_ms": GENESIS_MS + BUNDLE_MS,
        "block": 1,
    }


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/bundles/-1", "bundle"),
        ("/v1/bundles/99999999999999999999", "bundle"),
        ("/v1/proofs/zz", "leaf"),
        ("/v1/proofs/" + "00" * 31, "leaf"),
        ("/v1/proofs/" + "00" * 32, "stream"),
        ("/v1/proofs/" + "00" * 32 + "?stream=a&partition=x&timestamp=0", "partition"),
        ("/v1/proofs/" + "00" * 32 + "?stream=a&partition=0&timestamp=1e9", "timestamp"),
        ("/v1/proofs/" + "00" * 32 + "?stream=a&partition=0&timestamp=1&asOf=-1", "asOf"),
    ],
)
def test_what_is_asked_wrongly_is_refused_with_its_field(world: World, path: str, field: str) -> None:
    answer = client_of(world.broker("broker", follow=False)).get(path)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_what_nobody_gives_now_is_503_and_never_an_empty_answer(world: World) -> None:
    broker = world.broker("broker", retained_from_ms=GENESIS_MS + 10 * BUNDLE_MS)
    world.gateways.is_down = True
    answer = client_of(broker).get(*asked(a_row(0, 0)))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert client_of(world.broker("empty", follow=False)).get(*asked(a_row(0, 0))).status_code == 404
