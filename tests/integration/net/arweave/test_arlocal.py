"""What we send, taken by arlocal: a second opinion on the wire, from code that the ecosystem uses.

Skipped by name where arlocal is not installed (``tests.arlocal``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.arlocal import run_arlocal, what_is_missing
from validator.net.arweave.storage import ArweaveStorage
from validator.net.arweave.wallet import ArweaveWallet
from validator.ports.storage import StorageState
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.errors import ValidatorError

MINTED = 10**13


@dataclass(frozen=True)
class Arlocal:
    url: str
    client: httpx.Client

    def get(self, path: str) -> httpx.Response:
        answer = self.client.get(f"{self.url}/{path}")
        assert answer.status_code == 200, answer.text
        return answer


@pytest.fixture(scope="module")
def arlocal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arlocal]:
    missing = what_is_missing()
    if missing is not None:
        pytest.skip(missing)
    with run_arlocal(tmp_path_factory.mktemp("arlocal")) as url, httpx.Client(trust_env=False, timeout=30) as client:
        yield Arlocal(url, client)


@pytest.fixture
def storage(arlocal: Arlocal, wallet: ArweaveWallet, build_storage: Callable[..., ArweaveStorage]) -> ArweaveStorage:
    arlocal.get(f"mint/{encode_base64url(wallet.address)}/{MINTED}")
    return build_storage(arlocal.url, reward_cap=MINTED, parallel=1)  # it joins chunks in the order in which they come


@pytest.mark.parametrize("size", [1, 262_144, 262_145, 600_000])
def test_header_and_chunks_are_taken_found_and_given_back(
    size: int, arlocal: Arlocal, storage: ArweaveStorage, build_bundle: Callable[[int], Any], tmp_path: Path
) -> None:
    bundle = build_bundle(size)
    prepared = storage.prepare(bundle.path, bundle.tags)
    storage.post(prepared)
    storage.seed(prepared, bundle.path)
    assert storage.fetch_status(prepared.storage_id).state == StorageState.PENDING
    arlocal.get("mine")
    assert storage.fetch_status(prepared.storage_id).state == StorageState.CONFIRMED
    stored = storage.fetch_transaction(prepared.storage_id)
    assert (stored.owner, stored.data_size, list(stored.tags)) == (prepared.owner, size, bundle.tags)
    assert storage.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 20) == size, "by name: it has no /raw"
    assert (tmp_path / "back").read_bytes() == bundle.content
    assert storage.find_uploads(bundle.root, [prepared.owner]) == [prepared.storage_id]


def test_the_price_is_paid_and_a_header_sent_twice_costs_once(
    arlocal: Arlocal, storage: ArweaveStorage, wallet: ArweaveWallet, build_bundle: Callable[[int], Any]
) -> None:
    bundle = build_bundle(1000)
    balance = storage.fetch_balance()
    prepared = storage.prepare(bundle.path, bundle.tags)
    for _ in range(2):
        storage.post(prepared)
    storage.seed(prepared, bundle.path)
    arlocal.get("mine")
    storage.post(prepared)
    arlocal.get("mine")
    paid = balance - storage.fetch_balance()
    assert 0 < paid <= prepared.reward
    assert storage.find_uploads(bundle.root, [prepared.owner]) == [prepared.storage_id]


def test_a_header_with_one_other_byte_is_refused(
    arlocal: Arlocal, storage: ArweaveStorage, build_bundle: Callable[[int], Any]
) -> None:
    bundle = build_bundle(10)
    prepared = storage.prepare(bundle.path, bundle.tags)
    wrong = prepared.header.replace(f'"{prepared.reward}"', f'"{prepared.reward + 1}"')
    assert wrong != prepared.header
    answer = arlocal.client.post(f"{arlocal.url}/tx", content=wrong, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    with pytest.raises(ValidatorError):
        storage.fetch_transaction(prepared.storage_id)
    storage.post(prepared)
    assert storage.fetch_status(prepared.storage_id).state == StorageState.PENDING
