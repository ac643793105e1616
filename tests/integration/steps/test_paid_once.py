"""One header is paid for, whoever stops, dies or is not heard, and wherever in the upload that happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import CONFIRMATIONS, some_parameters
from tests.integration.steps.test_settling_lies import turns
from validator.ports.peers import Gossip
from validator.ports.storage import PreparedUpload, StorageStatus, Tariff
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Address, InstanceId, InstanceKind
from validator.protocol.quorum import quorum
from validator.steps.look_at_wallet import estimate_size
from validator.steps.uploads import UNSIGNED, hear

MakeNetwork = Callable[..., SmallNetwork]

LONG_MS = 14_000
"""Longer than the stage of ten seconds."""


def uploading(a_network: MakeNetwork, n: int = 4) -> tuple[SmallNetwork, list[Member]]:
    """A network with a message, and its members in the order of their turns to upload."""
    network = a_network(n)
    network.world.publish(100, b'{"i":1}')
    network.run_until(100)
    return network, turns(network)


def require_one_verified(network: SmallNetwork, uploader: Member | None = None) -> None:
    """One header is paid for, all of its data is there, everybody has read it back; by whom, where that is certain."""
    (paid,) = network.world.paid()
    assert network.world.transactions[paid].data is not None
    assert network.world.reports[0].storage_id == paid
    if uploader is not None:
        assert network.world.reports[0].uploader == uploader.address
    for member in network.members:
        states = member.rows(f"SELECT state FROM announcements WHERE storage_id = x'{paid.hex()}'")
        assert member.away or states == [("verified",)]


@pytest.mark.parametrize(
    ("call", "times"),
    [
        ("WorldStorage.find_uploads(", 1),
        ("WorldStorage.prepare(", 1),
        ("SqlStore.bundles.save_upload(", 1),
        ("SqlStore.bundles.save_announced(", 1),
        ("DirectPeers.send(", 1),
        ("DirectPeers.send(", 3),
        ("WorldStorage.find_uploads(", 2),
        ("WorldStorage.post(", 1),
        ("SqlStore.bundles.save_posted(", 1),
        ("WorldStorage.seed(", 1),
        ("SqlStore.bundles.save_upload_state(", 1),
    ],
)
def test_an_uploader_that_is_stopped_for_longer_than_a_stage_costs_no_second_payment(
    a_network: MakeNetwork, call: str, times: int
) -> None:
    """Its worker stands still just before that call, or a gateway does not answer it; its peers are answered."""
    network, (first, *_) = uploading(a_network)
    left = iter(range(times))

    def stop(member: Member, task: str, _key: str, at: str) -> bool:
        if member is first and task == "bundle.upload" and at.startswith(call) and next(left, None) == times - 1:
            first.idle = True
            end_ms = network.clock.now_ms() + LONG_MS
            network.run(lambda: network.clock.now_ms() >= end_ms)
            first.idle = False
        return False

    network.kill_at = stop
    network.run_to_final(limit_s=60)
    assert next(left, None) is None, "it was stopped"
    require_one_verified(network)


def lose_announcements(member: Member, lost: Callable[[Address], bool], *, silently: bool) -> None:
    """What the member announces does not reach some, and it does not notice or does."""
    peers = member.context.peers._port  # type: ignore[attr-defined]
    send = peers.send

    def deliver(to: Address, gossip: Gossip) -> None:
        if not gossip.uploads or not lost(to):
            send(to, gossip)
        elif not silently:
            raise TransientError("connection refused")

    peers.send = deliver


@pytest.mark.parametrize("lost_to", ["one", "all"])
def test_an_announcement_that_is_lost_costs_no_second_payment(a_network: MakeNetwork, lost_to: str) -> None:
    """And who announced it is dead as soon as it has seeded: others have heard of it, or find it on the weave."""
    network, (first, second, *_) = uploading(a_network)
    lose_announcements(first, lambda to: lost_to == "all" or to == second.address, silently=True)
    stopped: list[Member] = []

    def die(member: Member, _entry: object) -> None:
        member.away = True
        stopped.append(member)

    def is_seeded(member: Member, task: str, _key: str, call: str) -> bool:
        return not stopped and task == "bundle.upload" and call.startswith("SqlStore.due.done")

    network.kill_at, network.on_killed = is_seeded, die
    network.run_to_final(limit_s=60)
    assert stopped == [first]
    require_one_verified(network, first)


def test_who_reaches_nobody_posts_nothing_and_is_heard_when_it_is_asked(a_network: MakeNetwork) -> None:
    network, (first, *_) = uploading(a_network)
    lose_announcements(first, lambda _: True, silently=False)
    network.run_to_final(limit_s=60)
    assert "0 members have taken our announcement, 2 must" in {ran.detail for ran in network.log}
    require_one_verified(network, first)


def test_gateways_that_are_down_for_stages_cost_no_second_payment(a_network: MakeNetwork) -> None:
    network, _ = uploading(a_network)
    for member in network.members:
        member.storage.unavailable = True
    end_ms = network.clock.now_ms() + 45_000
    network.run(lambda: network.clock.now_ms() >= end_ms)
    for member in network.members:
        member.storage.unavailable = False
    network.run_to_final(limit_s=60)
    require_one_verified(network)


@pytest.mark.parametrize("announced", [False, True])
def test_two_that_prepare_at_the_same_time_send_the_header_of_one(a_network: MakeNetwork, announced: bool) -> None:
    """The second in turn acts while the first stands before its announcement, or just behind it."""
    network, (first, second, *_) = uploading(a_network)
    call = "WorldStorage.find_uploads(" if announced else "SqlStore.bundles.save_announced("
    stood: list[str] = []

    def stand(member: Member, task: str, key: str, at: str) -> bool:
        if member is first and task == "bundle.upload" and at.startswith(call) and first.storage.prepared and not stood:
            stood.append(at)
            second.queue.enqueue("bundle.upload", key)
            first.idle = True
            end_ms = network.clock.now_ms() + 300
            network.run(lambda: network.clock.now_ms() >= end_ms)
            first.idle = False
        return False

    network.kill_at = stand
    network.run_to_final(limit_s=60)
    assert stood
    require_one_verified(network)


@pytest.mark.parametrize(
    ("balance", "warnings"),
    [(11, []), (10, [("wallet.runs_low", 10)]), (1, [("wallet.runs_low", 1)]), (0, [("wallet.cannot_pay", None)])],
)
def test_who_has_few_uploads_left_is_warned_before_the_bundle_is_sealed(
    a_network: MakeNetwork, balance: int, warnings: list[tuple[str, int | None]]
) -> None:
    network, (member,) = uploading(a_network, 1)
    member.storage.fetch_balance = lambda: balance  # type: ignore[method-assign]
    with capture_logs() as captured:
        network.run_to_final()
    events = [line["event"] for line in captured]
    warned = [(line["event"], line.get("uploads_left")) for line in captured if line["event"].startswith("wallet.")]
    assert warned == warnings
    assert all(events.index(event) < events.index("bundle.sealed") for event, _ in warned)
    assert member.rows("SELECT balance, base, step FROM wallets") == [(str(balance), "1", "0")]


def test_an_empty_wallet_or_a_price_changes_nothing_of_what_is_sealed(a_network: MakeNetwork) -> None:
    """And gateways that do not answer hold nobody's sealing up."""
    network, (first, second, third, _) = uploading(a_network)
    first.storage.fetch_balance = lambda: 0  # type: ignore[method-assign]
    second.storage.fetch_tariff = lambda: Tariff(10**12, 10**12)  # type: ignore[method-assign]

    def silent() -> Tariff:
        raise TransientError("no gateway answers")

    third.storage.fetch_tariff = silent  # type: ignore[method-assign]
    network.run_to_final(limit_s=60)
    sealed = {tuple(m.rows("SELECT root, first_ms, last_ms, messages, size FROM bundles")) for m in network.members}
    assert len(sealed) == 1
    require_one_verified(network)


def test_the_estimate_follows_what_was_agreed_and_how_small_the_last_bundle_became(a_network: MakeNetwork) -> None:
    sets = [some_parameters(epoch_windows=4)]
    network = a_network(1, parameters=sets)
    (member,) = network.members
    for i in range(4):
        network.world.publish(100 + 2_000 * i, b"x" * 1_000)
    network.run_to_final(bundles=2, limit_s=120)
    first, second = (member.store.bundles.load_bundle(n) for n in range(2))
    assert first is not None
    assert second is not None
    agreed = [member.outcome(network.window(n)).canonical_bytes for n in range(4)]
    late = member.outcome(InstanceId(InstanceKind.LATE, 0)).canonical_bytes
    assert estimate_size(member.context, first) == sum(agreed[:2])
    assert estimate_size(member.context, second) == sum(agreed[2:]) * first.size // (sum(agreed[:2]) + late)


def test_an_attempt_names_the_one_that_it_replaces_and_every_state_is_written(a_network: MakeNetwork) -> None:
    """The first header is lost for good; the upload after it climbs the whole ladder."""
    network, (member,) = uploading(a_network, 1)
    written: list[tuple[int, str]] = []

    def note(*_: object) -> bool:
        for row in member.rows("SELECT attempt, state FROM uploads ORDER BY attempt"):
            if row not in written:
                written.append((int(row[0]), str(row[1])))
        return False

    network.kill_at = note
    network.run(lambda: (0, "seeded") in written)
    network.world.transactions.clear()

    def is_first(prepared: PreparedUpload, status: StorageStatus) -> bool:
        return status.state == "missing" and prepared.header.endswith(" 1]")

    post = member.storage.post

    def post_if_mined(prepared: PreparedUpload) -> str:
        if prepared.header.endswith(" 1]"):
            raise RemoteFault("Invalid anchor (last_tx).")
        return post(prepared)

    member.storage.fetch_is_dropped = is_first  # type: ignore[method-assign]
    member.storage.post = post_if_mined  # type: ignore[method-assign]
    network.run_to_final(limit_s=60)
    assert written == [
        *((0, state) for state in ("prepared", "posted", "seeded", "dropped")),
        *((1, state) for state in ("prepared", "posted", "seeded", "confirmed", "verified")),
    ]
    rows = member.rows("SELECT attempt, replaces, posted_to FROM uploads ORDER BY attempt")
    assert rows == [(0, None, "gateway"), (1, 0, "gateway")]
    assert member.rows("SELECT count(*) FROM seeds") == [(0,)], "nothing is remembered of what was taken"


def test_what_was_lost_after_it_was_read_back_is_sent_again_before_it_is_reported(a_network: MakeNetwork) -> None:
    network, members = uploading(a_network)
    network.run(lambda: any(m.rows("SELECT 1 FROM announcements WHERE state = 'verified'") for m in members))
    (posted,) = network.world.transactions.values()
    data, posted.data, network.world.confirms_without_data = posted.data, None, True
    network.run_to_final(limit_s=60)
    assert posted.data == data
    require_one_verified(network)
    depths = [m.rows("SELECT read_confirmations FROM announcements")[0][0] for m in members]
    assert sum(depth >= CONFIRMATIONS for depth in depths) >= quorum(len(members))


def test_what_one_has_found_on_the_weave_it_cannot_announce_in_anothers_name(a_network: MakeNetwork) -> None:
    """Found uploads are kept unsigned; told to a peer such a one is refused, and a signed one takes its place."""
    network, (first, second, third, _) = uploading(a_network)
    network.run(lambda: bool(second.store.bundles.load_announced(0)))
    bundle = third.store.bundles.load_bundle(0)
    assert bundle is not None
    (signed,) = (h.announcement for h in second.store.bundles.load_announced(0))
    assert signed.signer == first.address
    with third.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM announcements")
    unsigned = replace(signed, signature=UNSIGNED)
    third.service.receive(second.address, Gossip(uploads=(unsigned,)))
    assert third.store.bundles.load_announced(0) == []
    hear(third.context, bundle, unsigned, is_found=True)
    for told in (unsigned, signed, unsigned):
        third.service.receive(second.address, Gossip(uploads=(told,)))
    assert [h.announcement for h in third.store.bundles.load_announced(0)] == [signed]
