"""Whatever fails between a validator and the weave: one header is paid for, all is there, and everybody reads it back.

One table of faults; each row makes something go wrong and says whether it did. The end is the same for all: by the
gateway's count of headers and by the wallets' balances one was paid, its data is complete, its report is final.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests import paths
from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.uploading import AR, CHUNK, IMPATIENT, MinedStorage, Miner, Struck, Uploading
from tests.gateway_doors import open_doors
from tests.gateway_process import GatewayProcess, run_gateway
from tests.integration.steps.test_paid_once import lose_announcements
from tests.integration.steps.test_settling_lies import turns
from validator.devnet.gateway.faults import FaultKind
from validator.net.arweave.storage import ArweaveStorage
from validator.net.arweave.wallet import ArweaveWallet, generate_wallet
from validator.ports.peers import Gossip
from validator.ports.queue import Task
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.codec.statement import sign_upload
from validator.protocol.model import UploadAnnouncement
from validator.steps.uploads import tags_of

MakeNetwork = Callable[..., SmallNetwork]
Arrange = Callable[[Uploading], Struck]

HTML = "<html>welcome</html>"
ONE_CHUNK_WINSTON = 501_000_000
"""What the gateway asks for a file of one chunk."""
_RSA = json.loads((paths.VECTORS / "arweave.json").read_text())["keys"]["rsa"]


# --- what goes wrong --------------------------------------------------------------------------------


def killed(point: str, times: int = 1) -> Arrange:
    return lambda uploading: uploading.signal_worker(signal.SIGKILL, point, times=times)


def stopped(point: str, times: int = 1) -> Arrange:
    return lambda uploading: uploading.signal_worker(signal.SIGSTOP, point, times=times)


def gateway_stopped(call: str) -> Arrange:
    return lambda uploading: uploading.at(call, uploading.stop_gateway)


def failing(kind: FaultKind, path: str, **rule: Any) -> Arrange:
    return lambda uploading: uploading.fail(kind, path, **rule)


def dead(call: str) -> Arrange:
    return lambda uploading: uploading.die(call)


def unheard_by_one(uploading: Uploading) -> Struck:
    lose_announcements(uploading.first, lambda to: to == uploading.second.address, silently=True)
    return uploading.die("SqlStore.due.done(")


def unheard_by_all(uploading: Uploading) -> Struck:
    lose_announcements(uploading.first, lambda _: True, silently=True)
    return uploading.die("SqlStore.due.done(")


def all_gateways_down(uploading: Uploading) -> Struck:
    """For more than all stages, from before the bundle is sealed on."""
    struck = uploading.fail(FaultKind.CUT_BEFORE, "/", times=1_000_000)
    uploading.run_for(60_000)
    was_struck = struck()
    uploading.gateway.control("faults", method="DELETE")
    return lambda: was_struck


def headers_forgotten_for_all_stages(uploading: Uploading) -> Struck:
    """Each is answered with 200 and not kept; both in turn have announced one by then."""
    struck = uploading.fail(FaultKind.FORGET, "/tx$", times=1_000_000)
    uploading.run_for(60_000)
    was_struck = struck()
    uploading.gateway.control("faults", method="DELETE")
    return lambda: was_struck


def price_at_the_cap(uploading: Uploading) -> Struck:
    """Nearly twice the price is believed, up to the cap: what is offered is the cap, and no more."""
    cap = 2 * ONE_CHUNK_WINSTON
    uploading.first.storage.reward_cap = cap  # type: ignore[attr-defined]
    struck = uploading.fail(FaultKind.LYING_PRICE, "/price/", amount=199)

    def is_the_cap() -> bool:
        (own,) = uploading.first.store.bundles.load_uploads(0)
        return struck() and own.prepared.reward == cap

    return is_the_cap


def price_above_the_cap(uploading: Uploading) -> Struck:
    uploading.first.storage.reward_cap = 2 * ONE_CHUNK_WINSTON  # type: ignore[attr-defined]
    struck = uploading.fail(FaultKind.LYING_PRICE, "/price/", amount=300)

    def is_paid_as_usual() -> bool:
        uploads = [u for m in (uploading.first, uploading.second) for u in m.store.bundles.load_uploads(0)]
        return struck() and [u.prepared.reward for u in uploads] == [ONE_CHUNK_WINSTON * 105 // 100]

    return is_paid_as_usual


def own_id(uploading: Uploading) -> str:
    (own,) = uploading.first.store.bundles.load_uploads(0)
    return encode_base64url(own.prepared.storage_id)


def dropped_by_the_mempool(uploading: Uploading) -> Struck:
    return uploading.at(
        "SqlStore.bundles.save_upload_state(", lambda: uploading.gateway.control(f"drop/{own_id(uploading)}")
    )


def chunk_lost_after_the_first_reading(uploading: Uploading) -> Struck:
    return uploading.at(
        "SqlStore.bundles.save_announced_state(",
        lambda: uploading.gateway.control(f"forget/{own_id(uploading)}/0"),
    )


def reorganised(drop: str) -> Arrange:
    return lambda uploading: uploading.at(
        "SqlStore.bundles.save_announced_state(", lambda: uploading.gateway.control(f"fork/2{drop}")
    )


def stranger_with_our_tags(uploading: Uploading) -> Struck:
    def post() -> None:
        bundle = uploading.first.store.bundles.load_bundle(0)
        assert bundle is not None
        prepared = uploading.stranger.prepare(Path(bundle.path), tags_of(uploading.first.context, bundle))
        uploading.stranger.post(prepared)
        uploading.stranger.seed(prepared, Path(bundle.path))

    return uploading.at("MinedStorage.find_uploads(", post)


def member_with_anothers_upload(uploading: Uploading) -> Struck:
    """The second in turn tells everybody that the first one's transaction is its own, before the first has spoken."""
    first, liar = uploading.first, uploading.second

    def tell() -> None:
        bundle = first.store.bundles.load_bundle(0)
        (own,) = first.store.bundles.load_uploads(0)
        assert bundle is not None
        assert bundle.root is not None
        for owner in (own.prepared.owner, uploading.wallets[1].address):
            header = own.prepared.header.encode()
            stolen = UploadAnnouncement(
                bundle.config_digest, 0, bundle.root, own.prepared.storage_id, owner, liar.address, header=header
            )
            lie = sign_upload(stolen, liar.key, liar.context.identity.signing)
            for member in uploading.network.members:
                if member is not liar:
                    member.service.receive(liar.address, Gossip(uploads=(lie,)))

    told = uploading.at("SqlStore.bundles.save_announced(", tell)
    return lambda: told() and uploading.network.world.reports[0].uploader == first.address


FAULTS: dict[str, Arrange] = {
    "worker killed before the header is saved": killed("SqlStore.bundles.save_upload("),
    "worker killed after the header is saved": killed("SqlStore.bundles.save_announced("),
    "worker killed before the post": killed("MinedStorage.post("),
    "worker killed after the post": killed("SqlStore.bundles.save_posted("),
    "worker killed before the first chunk": killed(f"{CHUNK}0"),
    "worker killed between two chunks": killed(f"{CHUNK}1"),
    "worker killed after the last chunk": killed("SqlStore.bundles.forget_seeds("),
    "worker killed before it says that chunks were taken": killed("SqlStore.bundles.save_upload_state("),
    "worker stopped before the header is saved": stopped("SqlStore.bundles.save_upload("),
    "worker stopped before the post": stopped("MinedStorage.post("),
    "worker stopped after the post": stopped("SqlStore.bundles.save_posted("),
    "worker stopped between two chunks": stopped(f"{CHUNK}1"),
    "gateway stopped before the price": gateway_stopped("MinedStorage.prepare("),
    "gateway stopped before the post": gateway_stopped("MinedStorage.post("),
    "gateway stopped before the chunks": gateway_stopped("MinedStorage.seed("),
    "announcement lost to the next in turn, uploader dead": unheard_by_one,
    "announcement lost to all, uploader dead": unheard_by_all,
    "uploader dead before the post": dead("MinedStorage.post("),
    "uploader dead before the chunks": dead("MinedStorage.seed("),
    "time-out before the header takes effect": failing(FaultKind.SILENT, "/tx$"),
    "time-out, and the header takes effect later": failing(FaultKind.SLOW, "/tx$", seconds=2),
    "connection cut before the header takes effect": failing(FaultKind.CUT_BEFORE, "/tx$"),
    "connection cut after the header took effect": failing(FaultKind.CUT_AFTER, "/tx$"),
    "connection cut after a chunk took effect": failing(FaultKind.CUT_AFTER, "/chunk$"),
    "429 for the header": failing(FaultKind.ANSWER, "/tx$", status=429, headers={"retry-after": "0"}),
    "503 with HTML for the header": failing(FaultKind.ANSWER, "/tx$", status=503, body=HTML),
    "503 with HTML for a chunk": failing(FaultKind.ANSWER, "/chunk$", status=503, body=HTML),
    "HTML with 200 for the header": failing(FaultKind.ANSWER, "/tx$", status=200, body=HTML),
    "HTML with 200 from the index": failing(FaultKind.ANSWER, "/graphql", status=200, body=HTML),
    "303 for the header": failing(FaultKind.ANSWER, "/tx$", status=303, headers={"location": "/"}),
    "303 for a chunk that is not kept": failing(FaultKind.ANSWER, "/chunk$", status=303),
    "header forgotten": failing(FaultKind.FORGET, "/tx$"),
    "headers forgotten for all stages": headers_forgotten_for_all_stages,
    "chunk forgotten": failing(FaultKind.FORGET, "/chunk$"),
    "chunk lost after the first reading": chunk_lost_after_the_first_reading,
    "forged rows of the index": failing(FaultKind.FORGED_ROWS, "/graphql"),
    "wrong bytes on reading": failing(FaultKind.WRONG_BYTES, "/raw/"),
    "price half as high again": failing(FaultKind.LYING_PRICE, "/price/", amount=150),
    "price up to the cap": price_at_the_cap,
    "price above the cap": price_above_the_cap,
    "transaction dropped by the mempool": dropped_by_the_mempool,
    "reorganisation, back in the mempool": reorganised(""),
    "reorganisation, and the transaction is lost": reorganised("/drop"),
    "all gateways down": all_gateways_down,
    "a stranger posts our file with our tags": stranger_with_our_tags,
    "a member announces another's upload": member_with_anothers_upload,
}


# --- how it ends ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with run_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def jwks() -> list[dict[str, str]]:
    return [_RSA, *(generate_wallet() for _ in range(2))]


@pytest.fixture(scope="module")
def wallets(jwks: list[dict[str, str]]) -> list[ArweaveWallet]:
    return [ArweaveWallet.from_jwk(jwk) for jwk in jwks]


@pytest.fixture
def uploading(a_network: MakeNetwork, gateway: GatewayProcess, wallets: list[ArweaveWallet]) -> Iterator[Uploading]:
    network = a_network(4)
    network.world.publish(100, json.dumps({"i": os.urandom(16).hex()}).encode())
    network.run_until(0)
    first, second, *_ = turns(network)
    miner = Miner(network, gateway)
    owned = {first.address: wallets[0], second.address: wallets[1]}
    addresses = {member: wallet.address for member, wallet in owned.items()}
    network.world.nodes = tuple(replace(n, arweave=addresses.get(n.address)) for n in network.world.nodes)
    with ExitStack() as stack:
        for member in network.members:
            storage = MinedStorage([gateway.url], owned.get(member.address), miner)
            stack.callback(storage.close)
            member.storage = storage  # type: ignore[assignment]
            member.restart()
        stranger = ArweaveStorage([gateway.url], wallets[2], reward_cap=AR, limits=IMPATIENT)
        stack.callback(stranger.close)
        for wallet in wallets:
            gateway.control(f"mint/{encode_base64url(wallet.address)}/{AR}")
        yield Uploading(network, gateway, miner, first, second, stranger, wallets[:2], gateway.stats())
        gateway.control("faults", method="DELETE")


def publish_two_chunks(uploading: Uploading) -> None:
    for i in range(70):
        uploading.network.world.publish(200 + i, json.dumps({"i": os.urandom(4_500).hex()}).encode())


@pytest.mark.parametrize("fault", FAULTS)
def test_one_header_is_paid_for_and_all_is_there_after(
    fault: str, uploading: Uploading, jwks: list[dict[str, str]], record_property: Callable[[str, object], None]
) -> None:
    """And nothing that is logged meanwhile holds a private part of a wallet."""
    if "two chunks" in fault:
        publish_two_chunks(uploading)
    with capture_logs() as captured:
        is_struck = FAULTS[fault](uploading)
        ended = uploading.require_paid_once()
    assert is_struck(), "what was to go wrong did"
    for name, value in ended.items():
        record_property(name, value)
    assert captured
    private = {jwk[name] for jwk in jwks for name in ("d", "p", "q", "dp", "dq", "qi")}
    said = repr(captured)
    assert not [part for part in private if part in said]


def test_two_gateways_take_each_chunk_once_from_runs_of_processes_that_end(uploading: Uploading) -> None:
    """A run has time for one chunk, and its process is gone after it; one gateway takes none at first.

    It is seeded when both have all, and read back from the one that the header was not posted to.
    """
    publish_two_chunks(uploading)
    seconds = itertools.count()
    first, rows = uploading.first, uploading.first.rows
    states: list[str] = []
    with open_doors(uploading.gateway.url, 2) as doors:
        one, two = doors
        refusals = iter(range(IMPATIENT.attempts))
        two.refuses = lambda _method, path: 503 if path == "/chunk" and next(refusals, None) is not None else None
        storage = MinedStorage(
            [door.url for door in doors],
            uploading.wallets[0],
            uploading.miner,
            limits=replace(IMPATIENT, read_s=10, request_s=10, call_s=20, seed_s=1),
            parallel=1,
            now=lambda: float(next(seconds)),
        )
        first.storage = storage  # type: ignore[assignment]
        first.restart()
        runs: list[str] = []
        ended: list[str] = []

        def end_after_each_run(who: Member, task: str, _key: str, at: str) -> bool:
            states.extend(state for (state,) in rows("SELECT state FROM uploads") if state not in states)
            if who is not first or task != Task.BUNDLE_UPLOAD:
                return False
            runs.extend([at] if at.startswith("MinedStorage.seed(") else [])
            ends = at.startswith("Queue.enqueue(") and len(ended) < len(runs)
            ended.extend(runs[len(ended) :] if ends else [])
            return ends

        uploading.network.kill_at = end_after_each_run
        uploading.require_paid_once()
        storage.close()
    assert len(runs) >= 4
    assert len(ended) >= 3
    assert [door.passed["POST /chunk"] for door in doors] == [2, 2]
    assert rows("SELECT posted_to FROM uploads") == [(one.host,)]
    assert (one.passed["GET /raw"], two.passed["GET /raw"]) == (0, 2), "in its first block, and when it is deep"
    assert states == ["prepared", "posted", "seeded", "confirmed", "verified"]
    assert rows("SELECT count(*) FROM seeds") == [(0,)]
