"""The development gateway's chain: forks, prices that change, a full mempool, data that is waited for in vain."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from tests.devnet_gateway import PRICE, Served, id_of, post, post_chunk, sign, tree_of, upload
from validator.devnet.gateway.weave import Weave
from validator.net.arweave.wallet import ArweaveWallet
from validator.protocol.codec.arweave import Transaction
from validator.protocol.codec.arweave_text import encode_base64url


async def status_of(node: httpx.AsyncClient, tx: Transaction) -> int:
    return (await node.get(f"/tx/{id_of(tx)}/status")).status_code


async def balance_of(node: httpx.AsyncClient, address: bytes) -> int:
    return int((await node.get(f"/wallet/{encode_base64url(address)}/balance")).text)


async def test_a_fork_puts_transactions_back_and_they_are_mined_and_paid_once(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    data = os.urandom(300_000)
    first, second = sign(wallet, weave, data), sign(wallet, weave, target=bytes(32), quantity=7)
    await upload(node, first, data)
    await node.post("/devnet/mine/2")
    assert (await post(node, second))[0] == 200
    await node.post("/devnet/mine/1")
    height = int((await node.get("/height")).text)
    place = (await node.get(f"/tx/{id_of(first)}/offset")).json()

    long_after = weave.clock() + 4000
    weave.clock = lambda: long_after  # its data was stored for good when it was mined, and is not thrown away now
    assert (await node.post("/devnet/fork/3")).json() == [id_of(first), id_of(second)]
    assert int((await node.get("/height")).text) == height + 1, "the other branch is the longer one"
    assert [await status_of(node, tx) for tx in (first, second)] == [202, 202]
    assert (await node.get(f"/raw/{id_of(first)}")).status_code == 404
    assert await balance_of(node, wallet.address) == 100 * PRICE
    assert encode_base64url(bytes(32)) not in (await node.get("/devnet/stats")).json()["balances"]
    assert (await node.get(f"/wallet/{encode_base64url(wallet.address)}/last_tx")).text == ""
    assert (await node.get("/devnet/stats")).json()["paid"] == {}

    await node.post("/devnet/mine/1")
    assert await balance_of(node, wallet.address) == 98 * PRICE - 7
    assert (await node.get(f"/raw/{id_of(first)}")).content == data
    assert (await node.get(f"/tx/{id_of(first)}/offset")).json() == place
    stats = (await node.get("/devnet/stats")).json()
    assert sum(map(int, stats["balances"].values())) + int(stats["spent"]) == int(stats["minted"])


async def test_a_fork_may_lose_what_was_in_its_blocks(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    kept, lost = sign(wallet, weave, b"k", data=b"k"), sign(wallet, weave, b"l", data=b"l")
    assert (await post(node, kept))[0] == 200
    await node.post("/devnet/mine/1")
    assert (await post(node, lost))[0] == 200
    await node.post("/devnet/mine/1")
    assert (await node.post("/devnet/fork/1/drop")).json() == [id_of(lost)]
    assert [await status_of(node, tx) for tx in (kept, lost)] == [200, 404]
    assert (await node.get(f"/tx/{id_of(lost)}")).status_code == 404, "nothing was wrong with it"
    assert await post(node, lost) == (200, "OK"), "it can be sent again while its anchor is good"
    assert (await node.post("/devnet/fork/1/other")).status_code == 404


async def test_what_is_anchored_in_a_replaced_block_can_never_be_mined(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    first = weave.tip
    assert (await node.post("/devnet/fork/99")).json() == []
    assert weave.tip is first, "the blocks that a network begins with stay"
    await node.post("/devnet/mine/4")
    moved = sign(wallet, weave, b"y", data=b"y", last_tx=weave.tip.hash)
    assert (await post(node, moved))[0] == 200
    await node.post("/devnet/mine/1")
    assert (await node.post("/devnet/fork/3")).json() == [id_of(moved)]
    await node.post("/devnet/mine/1")
    gone = await node.get(f"/tx/{id_of(moved)}")
    assert (gone.status_code, gone.text) == (410, "invalid_last_tx")


async def test_a_price_that_rises_strands_a_header_until_it_falls_or_the_anchor_ends(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    usual = int((await node.get("/price/1")).text)
    tx = sign(wallet, weave, b"x", data=b"x", reward=usual)
    assert (await post(node, tx))[0] == 200
    await node.post("/devnet/price/2000")
    assert int((await node.get("/price/1")).text) == 2 * usual, "who asks is told the higher of now and next"
    assert (await post(node, sign(wallet, weave, b"y", data=b"y", reward=usual)))[0] == 200, "the block's price is low"
    await node.post("/devnet/mine/2")
    assert await status_of(node, tx) == 202
    cheap = sign(wallet, weave, b"z", data=b"z", reward=2 * usual - 1)
    assert (await post(node, cheap))[0] == 400
    assert (await node.get(f"/tx/{id_of(cheap)}")).text == "tx_too_cheap"
    await node.post("/devnet/price/1000")
    await node.post("/devnet/mine/1")
    assert await status_of(node, tx) == 200
    assert int((await node.get("/price/1")).text) == usual


async def test_a_full_mempool_pushes_out_who_pays_least(
    served: Served, tmp_path: Path, node: httpx.AsyncClient, wallet: ArweaveWallet
) -> None:
    weave = Weave(tmp_path / "small", mempool_bytes=4_000)  # two headers fit
    weave.folder.mkdir()
    weave.mint(wallet.address, 100 * PRICE)
    served.choose(weave)
    dear, cheap, middle = (sign(wallet, weave, reward=PRICE * share) for share in (3, 1, 2))
    for tx in (dear, cheap, middle):
        assert (await post(node, tx))[0] == 200
    assert [await status_of(node, tx) for tx in (dear, cheap, middle)] == [202, 404, 202]
    await node.post("/devnet/mine/1")
    assert [await status_of(node, tx) for tx in (dear, middle)] == [200, 200]


async def test_chunks_of_a_header_that_is_not_mined_are_taken_for_half_an_hour(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    data = os.urandom(300_000)
    tree, tx = tree_of(data), sign(wallet, weave, data)
    assert (await post(node, tx))[0] == 200
    assert (await post_chunk(node, tree, data, 0)).status_code == 200
    start = weave.clock()
    weave.clock = lambda: start + 1801
    late = await post_chunk(node, tree, data, 1)
    assert (late.status_code, late.json()) == (400, {"error": "data_root_not_found"})
    await node.post("/devnet/mine/1")
    assert (await node.get(f"/raw/{id_of(tx)}")).status_code == 404
    assert (await post_chunk(node, tree, data, 1)).status_code == 200, "a mined header's data is taken at any time"
    assert (await node.get(f"/raw/{id_of(tx)}")).status_code == 404, "what came first was not waited for"
    assert (await post_chunk(node, tree, data, 0)).status_code == 200
    assert (await node.get(f"/raw/{id_of(tx)}")).content == data


async def test_reasons_of_a_refusal_are_told_for_half_an_hour(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tx = sign(wallet, weave, reward=1)
    assert (await post(node, tx))[0] == 400
    assert (await node.get(f"/tx/{id_of(tx)}")).status_code == 410
    start = weave.clock()
    weave.clock = lambda: start + 1801
    assert (await node.get(f"/tx/{id_of(tx)}")).status_code == 404


async def test_a_node_that_does_not_keep_chunks_says_so_and_keeps_none(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    data = b"x" * 10
    tree, tx = tree_of(data), sign(wallet, weave, data)
    assert (await post(node, tx))[0] == 200
    await node.post("/devnet/keep/no")
    assert (await post_chunk(node, tree, data, 0)).status_code == 303
    await node.post("/devnet/mine/1")
    assert (await node.get(f"/raw/{id_of(tx)}")).status_code == 404
    await node.post("/devnet/keep/yes")
    assert (await post_chunk(node, tree, data, 0)).status_code == 200
    assert (await node.get(f"/raw/{id_of(tx)}")).content == data
    assert (await node.post("/devnet/keep/perhaps")).status_code == 404


@pytest.mark.parametrize("path", ["fork/x", "price/-1", "fork/1.5", "price/"])
async def test_controls_refuse_what_is_no_number(path: str, node: httpx.AsyncClient) -> None:
    assert (await node.post(f"/devnet/{path}")).status_code in (400, 404)
