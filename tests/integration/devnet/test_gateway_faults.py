"""Each way in which the development gateway goes wrong on request, as a client on a socket sees it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httpx
import pytest

from tests.devnet_gateway import PRICE, id_of, post, post_chunk, sign, tree_of, upload
from validator.devnet.gateway.weave import Weave
from validator.net.arweave.wallet import ArweaveWallet

QUERY = "{ transactions(first: 5) { edges { node { id owner { address } } } } }"


async def fail(node: httpx.AsyncClient, kind: str, path: str, **rule: Any) -> None:
    answer = await node.post("/devnet/faults", json={"kind": kind, "path": path, **rule})
    assert answer.status_code == 200, answer.text


async def test_faults_strike_in_order_and_never_the_controls(node: httpx.AsyncClient) -> None:
    await fail(node, "answer", "/height", status=418, skip=1, times=2, body="teapot")
    answers = [(await node.get("/height")).status_code for _ in range(4)]
    assert answers == [200, 418, 418, 200]
    await fail(node, "answer", ".*", times=9)
    assert (await node.get("/devnet/stats")).json()["faults"] == {"answer": 2}
    (spent, waiting) = (await node.get("/devnet/faults")).json()
    assert (spent["times"], waiting["times"]) == (0, 9)
    await node.delete("/devnet/faults")
    assert (await node.get("/height")).status_code == 200
    assert (await node.get("/devnet/stats")).json()["requests"] == {"GET /height": 5}


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "/"},
        {"path": "/", "kind": "?"},
        {"path": "(", "kind": "slow"},
        {"path": "/", "kind": "slow", "x": 1},
        {"path": "/", "kind": "slow", "times": "1"},
        {"path": "/", "kind": "slow", "times": -1},
        {"path": "/", "kind": "slow", "probability": 1.1},
        {"path": "/", "kind": "answer", "status": 99},
        {"path": "/", "kind": "answer", "headers": [1]},
        [],
    ],
)
async def test_a_rule_that_means_nothing_is_refused(wrong: object, node: httpx.AsyncClient) -> None:
    assert (await node.post("/devnet/faults", json=wrong)).status_code == 400
    assert (await node.get("/devnet/faults")).json() == []


async def test_a_rule_by_chance_strikes_the_same_requests_for_the_same_seed(node: httpx.AsyncClient) -> None:
    async def run(seed: int) -> list[int]:
        await node.delete("/devnet/faults")
        await fail(node, "answer", "/height", probability=0.5, seed=seed, times=100)
        return [(await node.get("/height")).status_code for _ in range(40)]

    first = await run(1)
    assert set(first) == {200, 500}
    assert await run(1) == first
    assert await run(2) != first


async def test_a_rule_for_one_method_spares_the_others(node: httpx.AsyncClient) -> None:
    await fail(node, "answer", "/devnot|/tx", method="POST", times=9)
    assert (await node.get("/tx/pending")).status_code == 200
    assert (await node.post("/tx", content=b"")).status_code == 500


async def test_limits_come_with_the_time_to_wait(node: httpx.AsyncClient) -> None:
    await fail(node, "answer", "/height", status=429, body="Too many", headers={"retry-after": "7"})
    answer = await node.get("/height")
    assert (answer.status_code, answer.headers["retry-after"], answer.text) == (429, "7", "Too many")


async def test_a_true_answer_comes_under_another_status(node: httpx.AsyncClient) -> None:
    height = (await node.get("/height")).text
    await fail(node, "status", "/height", status=500)
    answer = await node.get("/height")
    assert (answer.status_code, answer.text) == (500, height)


@pytest.mark.parametrize(("kind", "takes_effect"), [("cut_before", False), ("cut_after", True), ("cut_within", True)])
async def test_a_connection_is_cut_before_after_or_within_the_answer(
    kind: str, takes_effect: bool, node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tx = sign(wallet, weave)
    await fail(node, kind, "/tx$", method="POST")
    with pytest.raises(httpx.RemoteProtocolError if kind == "cut_within" else httpx.TransportError):
        await post(node, tx)
    assert (await post(node, tx))[0] == (208 if takes_effect else 200)


async def test_half_of_a_file_is_never_taken_for_the_whole(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    data = os.urandom(300_000)
    tx = sign(wallet, weave, data)
    await upload(node, tx, data)
    await node.post("/devnet/mine/1")
    await fail(node, "cut_within", "/raw/")
    read = b""
    with pytest.raises(httpx.TransportError):
        async with node.stream("GET", f"/raw/{id_of(tx)}") as answer:
            async for piece in answer.aiter_bytes():
                read += piece
    assert 0 < len(read) < len(data)
    assert data.startswith(read)


async def test_a_silent_gateway_does_nothing_and_frees_who_hangs_up(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tx = sign(wallet, weave)
    await fail(node, "silent", "/tx$", method="POST")
    asking = asyncio.create_task(post(node, tx))
    while (await node.get("/devnet/stats")).json()["faults"] != {"silent": 1}:
        await asyncio.sleep(0.01)
    assert not asking.done()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await post(node, tx) == (200, "OK")


async def test_a_slow_body_drips_and_is_the_true_one(node: httpx.AsyncClient) -> None:
    height = (await node.get("/height")).text
    await fail(node, "drip", "/height", seconds=0.001)
    assert (await node.get("/height")).text == height
    anchor = (await node.get("/tx_anchor")).text
    await fail(node, "drip", "/tx_anchor", seconds=0.001)
    async with node.stream("GET", "/tx_anchor") as answer:
        pieces = [piece async for piece in answer.aiter_raw()]
    assert b"".join(pieces).decode() == anchor
    assert len(pieces) > 1
    await fail(node, "slow", "/height", seconds=0.01)
    assert (await node.get("/height")).text == height


async def test_a_body_without_end_ends_with_its_reader(node: httpx.AsyncClient) -> None:
    await fail(node, "endless", "/height")
    size = 0
    async with node.stream("GET", "/height") as answer:
        async for piece in answer.aiter_bytes():
            size += len(piece)
            if size > 1 << 20:
                break
    assert (await node.get("/height")).status_code == 200


async def test_wrong_bytes_have_the_right_length(node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet) -> None:
    data = os.urandom(1000)
    tx = sign(wallet, weave, data)
    await upload(node, tx, data)
    await node.post("/devnet/mine/1")
    await fail(node, "wrong_bytes", "/raw/")
    wrong = (await node.get(f"/raw/{id_of(tx)}")).content
    assert (len(wrong), wrong[:-1], wrong != data) == (1000, data[:-1], True)
    assert (await node.get(f"/raw/{id_of(tx)}")).content == data


async def test_a_stale_gateway_tells_of_the_chain_of_some_blocks_ago(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tx = sign(wallet, weave, b"x", data=b"x")
    assert (await post(node, tx))[0] == 200
    await node.post("/devnet/mine/5")
    tip = (await node.get("/info")).json()
    await fail(node, "stale", "/", amount=4, times=3)
    stale = (await node.get("/info")).json()
    assert stale["height"] == tip["height"] - 4
    assert stale["current"] != tip["current"]
    assert (await node.get("/height")).text == str(stale["height"])
    assert (await node.get(f"/tx/{id_of(tx)}/status")).json()["number_of_confirmations"] == 1
    assert (await node.get(f"/tx/{id_of(tx)}/status")).json()["number_of_confirmations"] == 5
    await fail(node, "stale", "/", amount=99)
    assert (await node.get(f"/tx/{id_of(tx)}/status")).status_code == 404


async def test_a_price_may_be_a_lie(node: httpx.AsyncClient) -> None:
    price = int((await node.get("/price/1")).text)
    await fail(node, "lying_price", "/price/", amount=250)
    assert int((await node.get("/price/1")).text) == price * 250 // 100


async def test_a_header_that_was_taken_may_be_forgotten(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tx, bad = sign(wallet, weave), sign(wallet, weave, reward=1)
    await fail(node, "forget", "/tx$", method="POST", times=2)
    assert (await post(node, bad))[0] == 400, "what is refused is refused"
    assert await post(node, tx) == (200, "OK")
    assert (await node.get(f"/tx/{id_of(tx)}/status")).status_code == 404
    await node.post("/devnet/mine/1")
    assert weave.balances[wallet.address] == 100 * PRICE
    assert await post(node, tx) == (200, "OK")


async def test_a_chunk_that_was_taken_may_be_forgotten(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    data = os.urandom(300_000)
    tree, tx = tree_of(data), sign(wallet, weave, data)
    assert (await post(node, tx))[0] == 200
    await fail(node, "forget", "/chunk$")
    for index in (0, 1):
        assert (await post_chunk(node, tree, data, index)).status_code == 200
    await node.post("/devnet/mine/1")
    assert (await node.get(f"/raw/{id_of(tx)}")).status_code == 404
    assert (await post_chunk(node, tree, data, 0)).status_code == 200
    assert (await node.get(f"/raw/{id_of(tx)}")).content == data


async def test_an_index_may_repeat_rows_and_make_some_up(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tx = sign(wallet, weave)
    assert (await post(node, tx))[0] == 200

    async def ask() -> list[Any]:
        answer = (await node.post("/graphql", json={"query": QUERY})).json()
        return [edge["node"] for edge in answer["data"]["transactions"]["edges"]]

    (true,) = await ask()
    await fail(node, "duplicate_rows", "/graphql")
    assert await ask() == [true, true]
    await fail(node, "forged_rows", "/graphql")
    forged, same = await ask()
    assert (same, forged["owner"]) == (true, true["owner"])
    assert forged["id"] != id_of(tx)
    assert (await node.get(f"/tx/{forged['id']}")).status_code == 404
