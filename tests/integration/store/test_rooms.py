"""Windows, sets, archive, bundles, reports, chain and events, on both engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.builders import GENESIS_MS, a_key, a_record, flip_s, some_records
from tests.integration.store.conftest import NOW_MS, HandClock
from tests.integration.store.worker import CONFIG, INSTANCE
from tests.stored_events import load_events
from validator.ports.chain import PreparedTransaction
from validator.ports.peers import Attestation
from validator.ports.states import AnnouncedState, BundleState, ReportState, UploadState, WindowState
from validator.ports.storage import PreparedUpload
from validator.ports.stored import StoredBundle, StoredReport, StoredUpload, StoredWindow
from validator.protocol.codec.outcome import encode_observation, set_root
from validator.protocol.consensus.window import make_entries
from validator.protocol.errors import AlreadyDone, ConfigError, InvariantError
from validator.protocol.hashing import hash_body, hash_object
from validator.protocol.model import (
    NIL,
    Account,
    Address,
    Block,
    ChainState,
    InstanceId,
    InstanceKind,
    Node,
    Observation,
    PartitionEntry,
    Record,
    Root,
    StorageId,
    Store,
    UploadAnnouncement,
    Window,
)
from validator.protocol.parameters import Contracts
from validator.store import events, meta, schema, windows
from validator.store.chain import decode_state, encode_state
from validator.store.facade import SqlStore
from validator.store.reports import MAX_DIGESTS
from validator.store.segment_format import DamagedSegment
from validator.store.segments import SegmentStore
from validator.store.view.parties import count_rejections

BROKER, OTHER = a_key(8).address, a_key(9).address
A_WINDOW = Window(1_000, 2_000)


# --- windows ----------------------------------------------------------------------------------------


def test_windows_climb_and_never_fall(store: SqlStore) -> None:
    assert store.windows.open_window(A_WINDOW, 3) is True
    assert store.windows.open_window(A_WINDOW, 4) is False
    assert store.windows.load_window(1_000) == StoredWindow(A_WINDOW, 3, WindowState.OPEN)
    collected, agreed, kept = WindowState.COLLECTED, WindowState.AGREED, WindowState.HELD
    for state, then in ((agreed, agreed), (collected, agreed), (kept, kept), (kept, kept)):
        store.windows.save_state(1_000, state)
        held = store.windows.load_window(1_000)
        assert held is not None
        assert held.state == then
    with pytest.raises(InvariantError, match="never opened"):
        store.windows.save_state(9_000, WindowState.AGREED)


def test_windows_are_listed_by_their_start(store: SqlStore) -> None:
    assert store.windows.last_opened() is None
    for start in (3_000, 1_000, 2_000):
        store.windows.open_window(Window(start, start + 1_000), 0)
    assert store.windows.last_opened() == 3_000
    assert [w.window.start_ms for w in store.windows.load_windows(1_000, 3_000)] == [1_000, 2_000]


def test_a_frozen_observation_never_changes(store: SqlStore) -> None:
    store.windows.open_window(A_WINDOW, 0)
    first, second = (
        encode_observation(Observation(INSTANCE, Root(hash_body(word)), 1, 2)) for word in (b"first", b"second")
    )
    assert store.windows.load_serve_counts(1_000) is None
    store.windows.save_collected(1_000, first, [(hash_body(b"r"), "unsigned", BROKER, "no signature")], b"seen")
    store.windows.save_collected(1_000, second, [(hash_body(b"s"), "unsigned", BROKER, "no signature")], b"again")
    assert store.windows.load_serve_counts(1_000) == b"seen"
    held = store.windows.load_window(1_000)
    assert held == StoredWindow(A_WINDOW, 0, WindowState.COLLECTED, hash_object(first))
    assert store.instances.load_body(hash_object(second)) is None


def test_etags_come_back_and_the_newest_stands(store: SqlStore) -> None:
    store.windows.open_window(A_WINDOW, 0)
    store.windows.save_etags(1_000, {(BROKER, ("s", 0)): "one", (OTHER, ("s", 0)): "two"})
    store.windows.save_etags(1_000, {(BROKER, ("s", 0)): "three"})
    assert store.windows.load_etags(1_000) == {(BROKER, ("s", 0)): "three", (OTHER, ("s", 0)): "two"}
    assert store.windows.load_etags(2_000) == {}


def test_a_refused_record_counts_once_per_reason(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_REJECTIONS", 3)
    rows = [(hash_body(b"%d" % n), "bad_signature", BROKER, "d\0" * 400) for n in range(2)]
    store.windows.save_rejections(1_000, [*rows, rows[0], (rows[0][0], "outside_window", OTHER, "")])
    store.windows.save_rejections(1_000, rows)
    with store.database.read() as connection:
        assert count_rejections(connection) == {"bad_signature": 2, "outside_window": 1}
    more = [(hash_body(b"m%d" % n), "bad_signature", BROKER, "") for n in range(5)]
    store.windows.save_rejections(1_000, more)
    with store.database.read() as connection:
        assert count_rejections(connection) == {"bad_signature": 7, "outside_window": 1}  # counted, not kept
        kept = connection.execute(select(schema.rejections)).all()
    assert len(kept) == 4


# --- due --------------------------------------------------------------------------------------------


def test_an_earlier_wake_time_stands_unless_postponed(store: SqlStore) -> None:
    store.due.schedule("bundle.seal", "1", 50)
    store.due.schedule("bundle.seal", "1", 90)
    assert store.due.claim(50, 10, 10) == [("bundle.seal", "1")]
    assert store.due.claim(59, 10, 10) == []
    assert store.due.claim(60, 10, 10) == [("bundle.seal", "1")]  # its task was lost: it comes again
    store.due.postpone("bundle.seal", "1", 500)
    assert store.due.claim(499, 10, 10) == []
    store.due.schedule("bundle.seal", "1", 100)
    store.due.schedule("bundle.seal", "0", 99)
    assert store.due.claim(200, 10, 10) == [("bundle.seal", "0"), ("bundle.seal", "1")]
    assert store.due.pending("bundle.seal") == ["0", "1"]
    assert store.due.pending("bundle.verify") == []
    store.due.done("bundle.seal", "1")
    assert store.due.claim(1_000, 1, 10) == [("bundle.seal", "0")]


def test_a_clock_that_is_put_back_lets_nobody_wait_for_the_time_it_showed(store: SqlStore) -> None:
    hour_ms = 3_600_000
    now_ms = 10 * hour_ms
    store.due.claim(now_ms, 10, 10)
    store.due.schedule("bundle.verify", "1", now_ms + 2_000)
    store.due.schedule("window.collect", "2", now_ms + 5 * hour_ms)
    put_back_ms = now_ms - hour_ms
    assert store.due.claim(put_back_ms, 10, 1_000) == [("bundle.verify", "1")]
    assert store.due.claim(put_back_ms + 999, 10, 1_000) == []
    assert store.due.claim(put_back_ms + 1_000, 10, 1_000) == [("bundle.verify", "1")]
    assert store.due.claim(now_ms + 5 * hour_ms, 10, 1_000)[-1] == ("window.collect", "2")


def test_machines_whose_clocks_differ_a_little_disturb_nobody(store: SqlStore) -> None:
    store.due.claim(1_000_000, 10, 10)
    store.due.schedule("bundle.verify", "1", 1_002_000)
    for now_ms in (999_000, 1_001_000, 991_500):
        assert store.due.claim(now_ms, 10, 1_000) == []


# --- sets -------------------------------------------------------------------------------------------


def test_a_set_is_here_once_its_file_is_durable(store: SqlStore, tmp_path: Path, clock: HandClock) -> None:
    records = some_records(5)
    root = set_root(_entries(records))
    assert not store.sets.has_set(root)
    assert store.sets.load_entries(root) is None
    assert store.sets.load_messages(root, []) is None
    store.sets.save_set(root, records)
    store.sets.save_set(root, records)
    assert list(store.sets.iterate(root)) == records
    assert store.sets.load_messages(root, [records[3].leaf]) == [records[3].canonical]
    (file,) = (path for path in (tmp_path / "sets").rglob("*") if path.is_file())
    file.unlink()
    fresh = SqlStore(store.database, SegmentStore(str(tmp_path / "sets")), clock)
    with pytest.raises(DamagedSegment, match="gone"):
        list(fresh.sets.iterate(root))
    assert not fresh.sets.has_set(root)  # it can be obtained again
    fresh.sets.save_set(root, records)
    assert list(fresh.sets.iterate(root)) == records


def test_old_sets_can_be_found_and_dropped(store: SqlStore, clock: HandClock) -> None:
    records = some_records(2)
    root = set_root(_entries(records))
    store.sets.save_set(root, records)
    assert store.sets.old_sets(GENESIS_MS + 10, 9) == []  # saved just now
    clock.at_ms += 1_000
    assert store.sets.old_sets(clock.at_ms, 9) == [root]
    store.sets.delete_set(root)
    assert not store.sets.has_set(root)
    assert store.sets.old_sets(clock.at_ms, 9) == []


def _entries(records: list[Record]) -> list[PartitionEntry]:
    return list(make_entries(records))


# --- archive ----------------------------------------------------------------------------------------


def test_a_late_message_waits_until_an_agreed_set_holds_it(store: SqlStore) -> None:
    records = some_records(4)
    assert store.archive.save_late(records, 1) == records
    assert store.archive.save_late(records, 2) == []
    assert store.archive.load_late(GENESIS_MS + 1, GENESIS_MS + 3) == records[1:3]
    store.archive.save_identities(INSTANCE, [records[1].identity])
    store.archive.save_identities(INSTANCE, [records[1].identity])
    assert store.archive.load_late(GENESIS_MS, GENESIS_MS + 9) == [records[0], *records[2:]]
    assert store.archive.save_late([records[1]], 3) == []
    known = store.archive.stored_identities([r.identity for r in records])
    assert known == {records[1].identity}
    store.archive.forget(GENESIS_MS + 3)
    assert store.archive.load_late(0, 1 << 60) == records[3:]
    assert store.archive.stored_identities([records[1].identity]) == set()


def test_identities_are_found_among_thousands(store: SqlStore) -> None:
    identities = [("stream", n % 3, GENESIS_MS + n, hash_body(b"%d" % n)) for n in range(2_500)]
    store.archive.save_identities(INSTANCE, identities[::2])
    assert store.archive.stored_identities(identities) == set(identities[::2])


# --- bundles and uploads ------------------------------------------------------------------------------


def a_bundle(number: int = 1, state: BundleState = BundleState.OPEN) -> StoredBundle:
    return StoredBundle(number, CONFIG, 0, 1_000, 2_000, 3_000, state, previous_root=Root(NIL))


def test_a_bundle_takes_its_windows_and_is_sealed_once(store: SqlStore) -> None:
    for start in (0, 1_000, 2_000, 3_000):
        store.windows.open_window(Window(start, start + 1_000), 0)
    assert store.bundles.last_bundle() is None
    assert store.bundles.create_bundle(a_bundle()) is True
    assert store.bundles.create_bundle(a_bundle()) is False
    assert [w.bundle for w in store.windows.load_windows(0, 9_000)] == [None, 1, 1, None]
    sealed = StoredBundle(
        1, CONFIG, 0, 1_000, 2_000, 3_000, BundleState.SEALED, Root(NIL), Root(hash_body(b"r")), "p", 9, NIL, b"m", 4, 2
    )
    store.bundles.save_sealed(sealed)
    store.bundles.save_sealed(sealed)
    assert store.bundles.load_bundle(1) == store.bundles.last_bundle() == sealed
    store.bundles.save_bundle_state(1, BundleState.FINAL)
    store.bundles.save_bundle_state(1, BundleState.VERIFIED)
    bundle = store.bundles.load_bundle(1)
    assert bundle is not None
    assert bundle.state == "final"
    with pytest.raises(InvariantError):
        store.bundles.save_sealed(StoredBundle(1, CONFIG, 0, 1_000, 2_000, 3_000, BundleState.SEALED, root=Root(NIL)))
    with pytest.raises(InvariantError):
        store.bundles.save_sealed(a_bundle(2))


def test_the_observation_of_a_late_set_is_frozen_with_its_bundle(store: SqlStore) -> None:
    late = InstanceId(InstanceKind.LATE, 1)
    first, second = (encode_observation(Observation(late, Root(hash_body(word)), 1, 2)) for word in (b"a", b"b"))
    with pytest.raises(InvariantError, match="never opened"):
        store.windows.save_late_observation(1, first)
    store.bundles.create_bundle(a_bundle())
    assert store.windows.load_late_observation(1) is None
    store.windows.save_late_observation(1, first)
    store.windows.save_late_observation(1, second)
    assert store.windows.load_late_observation(1) == hash_object(first)
    assert store.instances.load_body(hash_object(first)) == first


def test_an_upload_attempt_is_saved_once_and_comes_back_as_it_was(store: SqlStore) -> None:
    prepared = PreparedUpload(StorageId(hash_body(b"id")), b"o" * 32, '{"id":"é"}', 1 << 100, 7, 8, hash_body(b"d"))
    other = PreparedUpload(StorageId(hash_body(b"id2")), b"o" * 32, "{}", 1, 7, 8, hash_body(b"d"))
    store.bundles.save_upload(StoredUpload(1, 0, prepared, UploadState.PREPARED))
    with pytest.raises(AlreadyDone):
        store.bundles.save_upload(StoredUpload(1, 0, other, UploadState.PREPARED))
    assert store.bundles.count_open_uploads() == 1
    store.bundles.save_upload_state(1, 0, UploadState.CONFIRMED)
    assert store.bundles.count_open_uploads() == 0, "it is charged, and the balance tells"
    store.bundles.save_upload_state(1, 0, UploadState.POSTED)
    assert store.bundles.load_uploads(1) == [StoredUpload(1, 0, prepared, UploadState.POSTED)]
    assert store.bundles.load_uploads(2) == []


def test_what_an_upload_replaces_and_who_took_it_first_stays(store: SqlStore) -> None:
    prepared = PreparedUpload(StorageId(hash_body(b"id")), b"o" * 32, "{}", 1, 7, 8, hash_body(b"d"))
    store.bundles.save_upload(StoredUpload(1, 1, prepared, UploadState.PREPARED, replaces=0))
    for host, kept in (("", ""), ("one:443", "one:443"), ("two", "one:443"), ("", "one:443")):
        store.bundles.save_posted(1, 1, host)
        assert store.bundles.load_uploads(1) == [StoredUpload(1, 1, prepared, UploadState.POSTED, 0, kept)]


def test_what_gateways_took_adds_up_until_it_is_forgotten(store: SqlStore) -> None:
    first, second = (StorageId(hash_body(b"%d" % n)) for n in range(2))
    store.bundles.save_seeds(first, {"one": 0b101, "two": 1 << 4_000})
    store.bundles.save_seeds(first, {"one": 0b010})
    store.bundles.save_seeds(second, {"one": 1})
    assert store.bundles.load_seeds(first) == {"one": 0b111, "two": 1 << 4_000}
    store.bundles.forget_seeds(first)
    assert (store.bundles.load_seeds(first), store.bundles.load_seeds(second)) == ({}, {"one": 1})


def test_how_deep_an_upload_was_read_back_only_grows(store: SqlStore) -> None:
    heard = UploadAnnouncement(CONFIG, 1, Root(NIL), StorageId(hash_body(b"1")), b"o" * 32, BROKER, bytes(65))
    store.bundles.save_announced(heard, 10)
    for read, kept in ((1, 1), (18, 18), (3, 18), (0, 18)):
        store.bundles.save_announced_state(heard, AnnouncedState.VERIFIED, "", read=read)
        (announced,) = store.bundles.load_announced(1)
        assert announced.read_confirmations == kept


def test_announcements_are_kept_in_order_and_bounded_per_member(store: SqlStore) -> None:
    def heard(n: int, signer: Address = BROKER) -> UploadAnnouncement:
        storage_id = StorageId(hash_body(b"%d" % n))
        return UploadAnnouncement(CONFIG, 1, Root(NIL), storage_id, b"o" * 32, signer, bytes(65))

    assert store.bundles.save_announced(heard(0), 10) is True
    assert store.bundles.save_announced(heard(0), 11) is False
    assert [store.bundles.save_announced(heard(n), 20 + n) for n in range(1, 20)].count(True) == 15
    assert store.bundles.save_announced(heard(0, OTHER), 5) is True
    store.bundles.save_announced_state(heard(0), AnnouncedState.REFUSED, "root differs")
    first, second, *_ = store.bundles.load_announced(1)
    assert (first.announcement, first.state, first.reason, first.announced_ms) == (
        heard(0, OTHER),
        "refused",
        "root differs",
        5,
    )
    assert (second.announcement, second.state) == (heard(0), "refused")


# --- reports ------------------------------------------------------------------------------------------


def test_after_a_raise_the_account_goes_on_from_the_report_that_was_accepted(store: SqlStore, clock: HandClock) -> None:
    """Drafts of one number differ where its windows were agreed anew; only one of them is ever the contract's."""
    old, accepted, newest = (StorageId(hash_body(b"%d" % n)) for n in range(3))
    for storage_id, ledger in ((old, b"before"), (accepted, b"accepted"), (newest, b"after")):
        store.reports.save_report(StoredReport(1, storage_id, hash_body(ledger), b"body", ledger, ReportState.DRAFTED))
        clock.at_ms += 10
    assert store.reports.load_ledger(1) == b"after"
    store.reports.save_final(1, accepted, hash_body(b"tx"), None)
    assert store.reports.load_ledger(1) == b"accepted"


def test_reports_climb_and_a_final_one_stays(store: SqlStore, clock: HandClock) -> None:
    ids = [StorageId(hash_body(b"%d" % n)) for n in range(2)]
    for n, storage_id in enumerate(ids):
        store.reports.save_report(
            StoredReport(1, storage_id, hash_body(b"r%d" % n), b"body", b"ledger", ReportState.DRAFTED)
        )
        clock.at_ms += 1
    store.reports.save_report(StoredReport(1, ids[0], NIL, b"other", b"", ReportState.DRAFTED))
    store.reports.save_report_state(1, ids[0], ReportState.SUBMITTED)
    store.reports.save_final(1, ids[0], hash_body(b"tx"), 210_000)
    store.reports.save_report_state(1, ids[0], ReportState.REVERTED)
    first, second = store.reports.load_reports(1)
    assert first == StoredReport(1, ids[0], hash_body(b"r0"), b"body", b"ledger", ReportState.FINAL, hash_body(b"tx"))
    assert second.state == "drafted"
    assert store.reports.load_ledger(1) == b"ledger"
    assert store.reports.load_ledger(2) is None


def test_one_attestation_per_signer_and_report(store: SqlStore) -> None:
    attestations = [Attestation(1, CONFIG, a_key(n).address, bytes([n]) * 65) for n in (2, 1)]
    assert [store.reports.save_attestation(a) for a in attestations] == [True, True]
    assert store.reports.save_attestation(Attestation(1, CONFIG, a_key(1).address, bytes(65))) is False
    assert store.reports.load_attestations(CONFIG) == sorted(attestations, key=lambda a: a.signer)
    assert store.reports.load_attestations(NIL) == []


def test_an_attestation_that_the_contract_refuses_gives_way_to_one_that_it_takes(store: SqlStore) -> None:
    key = a_key(1)
    good = Attestation(1, CONFIG, key.address, key.sign(CONFIG))
    store.reports.save_attestation(replace(good, signature=flip_s(good.signature)))
    assert store.reports.save_attestation(good) is True
    assert store.reports.load_attestations(CONFIG) == [good]
    assert store.reports.save_attestation(replace(good, signature=flip_s(good.signature))) is False
    assert store.reports.load_attestations(CONFIG) == [good]


def test_no_flood_of_other_digests_keeps_the_signature_of_a_draft_out_or_drives_it_away(store: SqlStore) -> None:
    key = a_key(1)

    def flood(offset: int) -> None:
        for n in range(offset, offset + 2 * MAX_DIGESTS):
            digest = hash_body(b"nobody's %d" % n)
            assert store.reports.save_attestation(Attestation(1, digest, key.address, key.sign(digest)))

    digest = hash_body(b"drafted")
    right = Attestation(1, digest, key.address, key.sign(digest))
    flood(0)
    assert store.reports.save_attestation(right) is True
    store.reports.save_report(
        StoredReport(1, StorageId(hash_body(b"id")), digest, b"body", b"ledger", ReportState.DRAFTED)
    )
    flood(1_000)
    assert store.reports.load_attestations(digest) == [right]
    kept = [store.reports.load_attestations(hash_body(b"nobody's %d" % n)) for n in range(1_000 + 2 * MAX_DIGESTS)]
    assert len([k for k in kept if k]) == MAX_DIGESTS
    assert kept[-1], "the newest stay"


def test_transactions_of_a_report_are_kept_once_the_newest_last(store: SqlStore) -> None:
    assert store.reports.load_transactions(1) == []
    sent = [PreparedTransaction(hash_body(b"%d" % n), b"raw%d" % n, 4, (1 << 80) + n) for n in range(2)]
    for transaction in sent:
        store.reports.save_transaction(1, StorageId(NIL), transaction)
    store.reports.save_transaction(1, StorageId(NIL), sent[0])
    assert store.reports.load_transactions(1) == sent


# --- chain ----------------------------------------------------------------------------------------------


def a_state() -> ChainState:
    nodes = (
        Node(BROKER, 1 << 90, "http://127.0.0.1:1", None, index=7),
        Node(OTHER, 0, None, "https://v.example", index=1 << 31),
    )
    stores = (Store("0xaa/ä", 1 << 120, 3, 1 << 90, 9), Store("0xab/b", 5, 1))
    return ChainState(
        Block(7, hash_body(b"b"), 99),
        tuple(sorted(nodes, key=lambda n: n.address)),
        stores,
        "0x/system",
        {BROKER: Account(3, 4)},
    )


def test_chain_state_is_kept_as_first_read(store: SqlStore) -> None:
    state = a_state()
    assert decode_state(encode_state(state)) == state
    assert store.chain.load_state(state.block.hash) is None
    store.chain.save_state(state)
    store.chain.save_state(ChainState(state.block, (), (), "x", {}))
    assert store.chain.load_state(state.block.hash) == state


def test_cut_points_heads_permissions_and_stores_come_back(store: SqlStore) -> None:
    block, newer = Block(7, hash_body(b"b"), 99), Block(9, hash_body(b"c"), 101)
    assert store.chain.load_head() is None
    assert store.chain.load_stores() is None
    store.chain.save_block(100, block)
    store.chain.save_block(100, newer)
    assert (store.chain.load_block(100), store.chain.load_block(99)) == (block, None)
    for heads in ((block, block), (newer, block)):
        store.chain.save_head(*heads)
    assert store.chain.load_head() == (newer, block)
    long_key = bytes(2592)
    store.chain.save_permissions(block.hash, {("s", long_key): True, ("s", BROKER): False})
    assert store.chain.load_permission(block.hash, "s", long_key) is True
    assert store.chain.load_permission(block.hash, "s", BROKER) is False
    assert store.chain.load_permission(newer.hash, "s", BROKER) is None
    store.chain.save_stores(5, frozenset({"a"}))
    store.chain.save_stores(6, frozenset({"b"}))
    assert store.chain.load_stores() == (6, frozenset({"a", "b"}))


# --- meta and events ------------------------------------------------------------------------------------


def test_a_database_belongs_to_one_network(store: SqlStore) -> None:
    contracts = meta.encode_contracts(Contracts(*(Address(bytes([n]) * 20) for n in range(6))))
    first = meta.Meta(b"i" * 32, 1, 2, 3, 31337, NIL, contracts, 0)
    with store.database.write() as connection:
        assert meta.load_meta(connection) is None
        assert meta.create_meta(connection, first) == first
        again = meta.Meta(b"j" * 32, 9, 9, 9, 31337, NIL, contracts, 0)
        assert meta.create_meta(connection, again) == first
        with pytest.raises(ConfigError, match="chain_id differs"):
            meta.create_meta(connection, meta.Meta(b"j" * 32, 1, 2, 3, 1, NIL, contracts, 0))
        meta.save_retired(connection, 77)
        held = meta.load_meta(connection)
    assert held is not None
    assert held.retired_ms == 77
    assert held.contracts == contracts


def test_events_are_bounded_and_newest_first(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 3)
    for number in range(5):
        store.events.save_event("error" if number % 2 else "info", "round.stuck", {"n": number, "big": "x" * number})
    assert [event.fields["n"] for event in load_events(store.database)] == [4, 3, 2]
    assert [event.fields["n"] for event in load_events(store.database, levels=("error",))] == [3]
    store.events.save_event("info", "long", {"x": "y" * 10_000})
    assert len(str(load_events(store.database, limit=1)[0].fields)) < 3_000
    assert load_events(store.database, limit=1)[0].at_ms == NOW_MS


def test_late_numbers_and_window_starts_fit(store: SqlStore) -> None:
    late = InstanceId(InstanceKind.LATE, (1 << 63) - 1)
    store.instances.create_instance(late, CONFIG, 1)
    assert store.instances.untouched(5) == [late]


def test_a_record_of_a_window_is_equal_after_a_round_trip(store: SqlStore) -> None:
    record = a_record(content="ünïcode".encode(), sequence_number=3)
    root = set_root(_entries([record]))
    store.sets.save_set(root, [record])
    assert list(store.sets.iterate(root)) == [record]
