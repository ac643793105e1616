"""The development gateway judged by vectors that real libraries and the reference node's code made: what it must take.

What it must refuse is in ``test_gateway`` and ``test_gateway_index``.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.devnet_gateway import VECTORS, id_of, post, read_by_chunks, sign
from tests.vector_file import b64, bytes_of
from validator.devnet.gateway.weave import Weave
from validator.net.arweave.wallet import ArweaveWallet
from validator.protocol.codec import arweave
from validator.protocol.codec.arweave_text import encode_base64url

SPLIT_TEXT = "The attached data is split in an unknown way."


def wire_of(case: dict[str, Any], signature: str, data: str = "") -> dict[str, Any]:
    signed = case["signatures"][signature]
    tags = [{"name": encode_base64url(n), "value": encode_base64url(v)} for n, v in tags_of(case)]
    return {**case["fields"], "tags": tags, "data": data, "id": signed["id"], "signature": signed["signature"]}


def tags_of(case: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(tag["name"].encode(), tag["value"].encode()) for tag in case["tags"]]


def prepare(weave: Weave, case: dict[str, Any]) -> None:
    """Rewards and anchors of the vectors count here: no fee, rich wallets, and their anchor is the newest block's."""
    weave.price_permille = weave.next_price_permille = 0
    for owner in (arweave.compute_address(b64(case["fields"]["owner"])), b64(case["fields"]["target"])):
        if owner:
            weave.mint(owner, 10**21)
    anchor = b64(case["fields"]["last_tx"])
    if len(anchor) == arweave.ANCHOR_BYTES:
        weave.tip.hash = anchor
    elif anchor:
        weave.last_confirmed[arweave.compute_address(b64(case["fields"]["owner"]))] = anchor


@pytest.mark.parametrize("signature", ["salt0", "salt32", "max"])
@pytest.mark.parametrize("case", VECTORS["transactions"], ids=lambda case: str(case["name"]))
async def test_transactions_with_salts_of_any_length_are_taken_exactly_if_they_are_sound(
    case: dict[str, Any], signature: str, node: httpx.AsyncClient, weave: Weave
) -> None:
    prepare(weave, case)
    answer = await node.post("/tx", json=wire_of(case, signature))
    if case.get("valid") is False:
        assert (answer.status_code, answer.text) == (400, "Transaction verification failed.")
        return
    assert (answer.status_code, answer.text) == (200, "OK")
    wire = wire_of(case, signature)
    assert (await node.get(f"/unconfirmed_tx/{wire['id']}")).json() == wire


@pytest.mark.parametrize(
    "case",
    [case for case in VECTORS["transactions"] if case.get("valid") is not False and case["fields"]["data_root"]],
    ids=lambda case: str(case["name"]),
)
async def test_data_inside_the_header_is_taken_where_a_node_cuts_it_alike(
    case: dict[str, Any], node: httpx.AsyncClient, weave: Weave
) -> None:
    prepare(weave, case)
    content = bytes_of(case["data"])
    wire = wire_of(case, "salt0", encode_base64url(content))
    answer = await node.post("/tx", json=wire)
    expected = (200, "OK") if case["inline_ok"] else (400, SPLIT_TEXT)
    assert (answer.status_code, answer.text) == expected
    if case["inline_ok"]:
        weave.mine(1)
        assert (await node.get(f"/raw/{wire['id']}")).content == content
        header = (await node.get(f"/tx/{wire['id']}")).json()
        assert header == {**wire, "data": ""}, "a header is read without its data"
        assert await read_by_chunks(node, arweave.decode_transaction(header)) == content


@pytest.mark.parametrize("case", [c for c in VECTORS["chunking"] if c["chunks"]], ids=lambda c: str(c["data"]["size"]))
async def test_every_chunk_of_every_layout_is_taken_and_gives_the_data(
    case: dict[str, Any], node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    content = bytes_of(case["data"])
    tx = sign(wallet, weave, data_size=len(content), data_root=b64(case["data_root"]))
    assert await post(node, tx) == (200, "OK")
    for chunk in reversed(case["chunks"]):
        body = {"data_root": case["data_root"], "data_size": str(len(content)), "offset": str(chunk["offset"])}
        piece = encode_base64url(content[int(chunk["min"]) : int(chunk["max"])])
        answer = await node.post("/chunk", json={**body, "data_path": chunk["data_path"], "chunk": piece})
        assert (answer.status_code, answer.text) == (200, "OK")
    weave.mine(1)
    assert (await node.get(f"/raw/{id_of(tx)}")).content == content


@pytest.mark.parametrize("pair", VECTORS["priced_size"], ids=str)
async def test_prices_are_for_whole_chunks(pair: list[int], node: httpx.AsyncClient) -> None:
    size, paid = map(int, pair)
    assert (await node.get(f"/price/{size}")).text == (await node.get(f"/price/{paid}")).text
    if paid:
        assert (await node.get(f"/price/{paid + 1}")).text != (await node.get(f"/price/{paid}")).text
