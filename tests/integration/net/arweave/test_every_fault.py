"""Every fault of the development gateway at every route that an upload uses: paid for once, and all of it there.

The caller here is as patient as the step that uploads: what fails is done again, and nothing is prepared twice unless
nothing was sent.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.gateway_process import GatewayProcess
from tests.integration.net.arweave.conftest import Bundle
from validator.devnet.gateway.faults import FaultKind
from validator.net.arweave.gateway import Limits
from validator.net.arweave.storage import ArweaveStorage
from validator.net.arweave.wallet import ArweaveWallet, generate_wallet
from validator.ports.storage import PreparedUpload, is_seeded
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.errors import Disagreement, RemoteFault, TransientError, UnknownOutcome

T = TypeVar("T")
IMPATIENT = Limits(
    connect_s=2, read_s=1, request_s=1.5, call_s=3, download_s=3, attempts=2, first_wait_s=0.01, open_s=0.1
)
TRIES = 20
ANCHOR_LIFE_BLOCKS = 50 + 18
"""After so many, and a few, nobody can mine a header any more."""

PREPARING = {"price": "/price/", "balance": "/wallet/", "anchor": "/tx_anchor", "height": "/info"}
SENDING = {"header": "/tx$", "chunks": "/chunk$"}
READING = {"status": "/tx/[^/]+/status", "data": "/raw/", "transaction": "/tx/[^/]+$"}
ANYWHERE: dict[FaultKind, dict[str, Any]] = {
    FaultKind.ANSWER: {"status": 503},
    FaultKind.STATUS: {"status": 500},
    FaultKind.CUT_BEFORE: {},
    FaultKind.CUT_AFTER: {},
    FaultKind.CUT_WITHIN: {},
    FaultKind.SILENT: {},
    FaultKind.SLOW: {"seconds": 0.05},
    FaultKind.DRIP: {"seconds": 0.002},
    FaultKind.WRONG_BYTES: {},
    FaultKind.ENDLESS: {},
}
"""What may happen to any request."""
AT_ONE_PLACE: list[tuple[FaultKind, str, dict[str, Any]]] = [
    (FaultKind.STALE, "/info", {"amount": 10}),
    (FaultKind.STALE, "/tx/[^/]+/status", {"amount": 10}),
    (FaultKind.LYING_PRICE, "/price/", {"amount": 150}),
    (FaultKind.LYING_PRICE, "/price/", {"amount": 50}),
    (FaultKind.FORGET, "/tx$", {}),
    (FaultKind.FORGET, "/chunk$", {}),
    (FaultKind.DUPLICATE_ROWS, "/graphql", {}),
    (FaultKind.FORGED_ROWS, "/graphql", {}),
    (FaultKind.ANSWER, "/tx$", {"status": 200, "body": "<html>welcome</html>"}),
    (FaultKind.ANSWER, "/tx$", {"status": 303, "headers": {"location": "/"}}),
    (FaultKind.ANSWER, "/tx$", {"status": 429, "headers": {"retry-after": "0"}}),
    (FaultKind.ANSWER, "/chunk$", {"status": 303}),
    (FaultKind.ANSWER, "/raw/", {"status": 200, "body": "<html>welcome</html>"}),
]
"""Lies that make sense in one answer only, and answers that look like successes."""


def persist(step: Callable[[], T]) -> T:
    """Do it again until it works; what is not in the list of errors that a caller may try again ends the test."""
    for _ in range(TRIES - 1):
        try:
            return step()
        except (TransientError, UnknownOutcome, RemoteFault, Disagreement):
            time.sleep(0.05)
    return step()


def send(gateway: GatewayProcess, storage: ArweaveStorage, bundle: Bundle) -> PreparedUpload:
    """Prepare and post; what can never be mined (a gateway lied about anchor or price) is prepared once more."""
    prepared = persist(lambda: storage.prepare(bundle.path, bundle.tags))
    try:
        persist(lambda: storage.post(prepared))
    except RemoteFault:
        assert not storage.fetch_is_dropped(prepared, storage.fetch_status(prepared.storage_id))
        gateway.mine(ANCHOR_LIFE_BLOCKS + 10)
        assert storage.fetch_is_dropped(prepared, storage.fetch_status(prepared.storage_id))
        prepared = persist(lambda: storage.prepare(bundle.path, bundle.tags))
        persist(lambda: storage.post(prepared))
    return prepared


def seed_whole(storage: ArweaveStorage, prepared: PreparedUpload, bundle: Bundle) -> None:
    seeds = storage.seed(prepared, bundle.path)
    if not is_seeded(seeds):
        raise TransientError("; ".join(map(str, seeds)))


def read_back(
    storage: ArweaveStorage, gateway: GatewayProcess, prepared: PreparedUpload, bundle: Bundle, target: Path
) -> None:
    """Seed and mine until the whole file comes back, as verifying does; then ask the index."""

    def attempt() -> None:
        storage.post(prepared)
        seed_whole(storage, prepared, bundle)
        gateway.mine()
        if storage.fetch_status(prepared.storage_id).state != "confirmed":
            raise TransientError("not confirmed yet")
        storage.fetch_transaction(prepared.storage_id)
        storage.fetch_data(prepared.storage_id, target, 1 << 20)
        if target.read_bytes() != bundle.content:
            raise RemoteFault("other bytes")
        found = storage.find_uploads(bundle.root, [prepared.owner])
        if found != [prepared.storage_id]:
            raise RemoteFault("found something else", found=len(found))

    persist(attempt)


def run(
    gateway: GatewayProcess, storage: ArweaveStorage, bundle: Bundle, tmp_path: Path, kind: FaultKind, rule: Any
) -> None:
    before = gateway.stats()
    gateway.fail(kind, **rule)
    prepared = send(gateway, storage, bundle)
    persist(lambda: seed_whole(storage, prepared, bundle))
    gateway.mine()
    read_back(storage, gateway, prepared, bundle, tmp_path / "back")

    after = gateway.stats()
    owner = encode_base64url(prepared.owner)
    assert after["faults"][kind] > before["faults"].get(kind, 0), "the fault has struck"
    assert gateway.paid(bundle.root) == 1
    assert int(before["balances"][owner]) - int(after["balances"][owner]) == prepared.reward
    (line,) = [line for line in after["transactions"] if line["bundle_root"] == bundle.root]
    assert line["complete"]


@pytest.fixture
def impatient(funded: GatewayProcess, build_storage: Callable[..., ArweaveStorage]) -> ArweaveStorage:
    return build_storage(funded.url, limits=IMPATIENT)


@pytest.mark.parametrize(
    ("kind", "path"),
    list(itertools.product(ANYWHERE, [*PREPARING.values(), *SENDING.values(), *READING.values()])),
)
def test_whatever_happens_once_to_a_request_the_bundle_is_paid_once_and_there(
    kind: FaultKind, path: str, funded: GatewayProcess, impatient: ArweaveStorage, bundle: Bundle, tmp_path: Path
) -> None:
    run(funded, impatient, bundle, tmp_path, kind, {"path": path, **ANYWHERE[kind]})


@pytest.mark.parametrize(("kind", "path", "rule"), AT_ONE_PLACE)
def test_whatever_an_answer_claims_the_bundle_is_paid_once_and_there(
    kind: FaultKind,
    path: str,
    rule: Any,
    funded: GatewayProcess,
    impatient: ArweaveStorage,
    bundle: Bundle,
    tmp_path: Path,
) -> None:
    run(funded, impatient, bundle, tmp_path, kind, {"path": path, **rule})


@pytest.mark.parametrize("seed", range(6))
def test_faults_of_all_kinds_by_chance_cost_time_only(
    seed: int, funded: GatewayProcess, impatient: ArweaveStorage, bundle: Bundle, tmp_path: Path
) -> None:
    for number, (kind, rule) in enumerate(ANYWHERE.items()):
        if kind is not FaultKind.SILENT:  # one of them takes a second
            chance = {"times": 3, "probability": 0.2, "seed": 100 * seed + number}
            funded.fail(kind, path="/", **chance, **rule)
    run(funded, impatient, bundle, tmp_path, FaultKind.FORGET, {"path": "/tx$"})


@pytest.mark.parametrize("lost", [False, True])
def test_a_reorganisation_costs_no_second_payment(
    lost: bool, funded: GatewayProcess, impatient: ArweaveStorage, bundle: Bundle, tmp_path: Path
) -> None:
    before = funded.stats()
    prepared = send(funded, impatient, bundle)
    impatient.seed(prepared, bundle.path)
    funded.mine(3)
    assert impatient.fetch_status(prepared.storage_id).confirmations == 3
    funded.control("fork/3/drop" if lost else "fork/3")
    assert impatient.fetch_status(prepared.storage_id).state == ("missing" if lost else "pending")
    assert funded.paid(bundle.root) == 0
    read_back(impatient, funded, prepared, bundle, tmp_path / "back")
    after, owner = funded.stats(), encode_base64url(prepared.owner)
    assert funded.paid(bundle.root) == 1
    assert int(before["balances"][owner]) - int(after["balances"][owner]) == prepared.reward


def test_a_stranger_who_posts_our_tags_and_data_is_not_taken_for_us(
    funded: GatewayProcess,
    impatient: ArweaveStorage,
    build_storage: Callable[..., ArweaveStorage],
    bundle: Bundle,
    tmp_path: Path,
) -> None:
    stranger = ArweaveWallet.from_jwk(generate_wallet())
    funded.control(f"mint/{encode_base64url(stranger.address)}/{10**12}")
    forger = build_storage(funded.url, wallet=stranger, limits=IMPATIENT)
    forged = send(funded, forger, bundle)
    funded.mine()
    assert impatient.find_uploads(bundle.root, [impatient.wallet_address() or b""]) == []
    prepared = send(funded, impatient, bundle)
    read_back(impatient, funded, prepared, bundle, tmp_path / "back")
    assert funded.stats()["paid"][bundle.root] == {
        encode_base64url(prepared.owner): 1,
        encode_base64url(forged.owner): 1,
    }


def test_every_kind_of_fault_is_tried() -> None:
    assert {*ANYWHERE, *(kind for kind, _, _ in AT_ONE_PLACE)} == set(FaultKind)
