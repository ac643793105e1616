"""What we send, judged by arlocal: a second opinion on the wire, from code that the ecosystem uses.

Skipped by name where arlocal is not installed (``tests.arlocal``). What any storage does: ``test_port``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

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


@pytest.fixture
def arlocal(arlocal_url: str) -> Iterator[Arlocal]:
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield Arlocal(arlocal_url, client)


@pytest.fixture
def storage(arlocal: Arlocal, wallet: ArweaveWallet, build_storage: Callable[..., ArweaveStorage]) -> ArweaveStorage:
    arlocal.get(f"mint/{encode_base64url(wallet.address)}/{MINTED}")
    return build_storage(arlocal.url, reward_cap=MINTED, parallel=1)  # it joins chunks in the order in which they come


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
