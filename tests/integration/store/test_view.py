"""The read side over a database in which something has happened, and the listener on top of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from tests.asgi import AsgiClient
from tests.builders import a_key
from tests.integration.store.conftest import NOW_MS, HandClock
from tests.integration.store.test_instances import V, W, a_quorum, a_statement, loaded, opened, save
from tests.integration.store.worker import CONFIG, INSTANCE
from validator.ports.peers import Attestation
from validator.ports.states import AnnouncedState, BundleState, ReportState, UploadState, WindowState
from validator.ports.storage import PreparedUpload, Tariff
from validator.ports.stored import StoredBundle, StoredReport, StoredUpload
from validator.protocol.codec.outcome import encode_observation, encode_outcome, entries_root, outcome_digest
from validator.protocol.codec.statement import decode_statement, encode_statement
from validator.protocol.hashing import EMPTY_ROOT, hash_body, hash_object
from validator.protocol.model import (
    NIL,
    Block,
    BrokerShare,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    Root,
    StatementKind,
    StorageId,
    UploadAnnouncement,
    Window,
)
from validator.server.operator import create_app
from validator.store.database import downgrade, head_revision
from validator.store.disk import Disk, measure_disk
from validator.store.facade import SqlStore
from validator.store.meta import Meta, replace_meta, save_retired
from validator.store.view.screen import SqlView
from validator.store.view.status import PaymentsView, UsedObservations, WalletView

BROKER = a_key(8).address
START = INSTANCE.number


@pytest.fixture
def view(store: SqlStore, clock: HandClock, tmp_path: Path) -> SqlView:
    return SqlView(store.database, clock, address=a_key().address, network="test", data_dir=tmp_path, disk_floor="1")


def fill(store: SqlStore) -> None:
    """Two windows, one of them decided; a late set, a bundle with uploads, a report; refusals, evidence, events."""
    for start in (START, START + 1_000):
        store.windows.open_window(Window(start, start + 1_000), 0)
    shares = (BrokerShare(BROKER, 100, 7),)
    observation = encode_observation(Observation(INSTANCE, EMPTY_ROOT, 0, 0, shares=shares))
    store.windows.save_collected(START, observation, [(hash_body(b"r"), "bad_signature", BROKER, "")], b"")
    store.instances.save_statements(
        [a_statement(StatementKind.OBSERVATION, V, member=m) for m in (1, 2, 3, 4)]
        + [a_statement(StatementKind.PREVOTE, V, 1, member=m) for m in (1, 2, 3)]
        + [a_statement(StatementKind.PREVOTE, W, 1, member=3), a_statement(StatementKind.PREVOTE, W, 0, member=2)]
    )
    pair = (a_statement(StatementKind.PREVOTE, V, 1, member=3), a_statement(StatementKind.PREVOTE, W, 1, member=3))
    stored = opened(store)
    save(
        store,
        stored,
        said=[a_statement(StatementKind.PRECOMMIT, V, 1)],
        evidence=[pair],
        round=1,
        step="precommit",
        leader=a_key(2).address,
        waits_for="1/3 precommits of round 1",
        wake_ms=NOW_MS + 500,
    )
    store.bundles.create_bundle(StoredBundle(4, CONFIG, 0, START, START, START + 1_000, BundleState.OPEN))
    late = InstanceId(InstanceKind.LATE, 4)
    store.instances.create_instance(late, CONFIG, 8)
    prepared = PreparedUpload(StorageId(hash_body(b"id")), b"o" * 32, "{}", 1, 7, 8, hash_body(b"d"))
    store.bundles.save_upload(StoredUpload(4, 0, prepared, UploadState.POSTED))
    for n, signer in enumerate((a_key(1).address, a_key(2).address)):
        storage_id = prepared.storage_id if n == 0 else StorageId(hash_body(b"id2"))
        store.bundles.save_announced(
            UploadAnnouncement(CONFIG, 4, Root(NIL), storage_id, b"o" * 32, signer, bytes(65)), 5 + n
        )
    store.reports.save_report(StoredReport(4, prepared.storage_id, hash_body(b"rep"), b"b", b"l", ReportState.DRAFTED))
    store.reports.save_attestation(Attestation(4, hash_body(b"rep"), a_key(2).address, bytes(65)))
    store.chain.save_head(Block(12, NIL, 9), Block(11, NIL, 8))
    store.events.save_event("error", "journal.unknown_statement", {"round": 1})
    store.events.save_event("info", "window.collected", {})


def test_one_screen_tells_what_happened(store: SqlStore, view: SqlView) -> None:
    fill(store)
    status = view.load_status()
    first, second = status.windows
    assert (first.start_ms, first.state, second.state, second.round) == (START, "collected", "open", None)
    round_ = first.round
    assert round_ is not None
    assert (round_.round, round_.step, round_.leader) == (1, "precommit", a_key(2).address)
    assert round_.votes == {"observation": 4, "proposal": 0, "prevote": 3, "precommit": 1}  # signers, in this round
    assert round_.waits_for == "1/3 precommits of round 1"
    assert [r.instance.number for r in status.late] == [4]
    assert status.window_counts == {"open": 1, "collected": 1, "agreed": 0, "held": 0}
    assert status.invalid_rejected == {"bad_signature": 1}
    (broker,) = status.brokers
    assert (broker.address, broker.served, broker.missed, broker.invalid) == (BROKER, 100, 7, {"bad_signature": 1})
    members = {m.address: m for m in status.members}
    assert members[a_key(3).address].statements["prevote"] == 2
    assert members[a_key(3).address].evidence == 1
    assert status.evidence_count == len(status.evidence) == 1
    (bundle,) = status.bundles
    assert [(u.own, u.state, u.by) for u in bundle.uploads] == [
        (True, "posted", a_key(1).address),
        (False, "heard", a_key(2).address),
    ]
    (report,) = status.reports
    assert report.signers == (a_key(2).address,)
    assert [event.event for event in status.events] == ["journal.unknown_statement"]
    assert status.head is not None
    assert (status.head.number, status.head.seen_ms) == (12, NOW_MS)
    assert status.certificates == ()


def test_gateways_wallet_and_what_was_paid_are_shown(store: SqlStore, view: SqlView) -> None:
    fill(store)
    empty = view.load_status()
    assert (empty.gateways, empty.wallet) == ((), None)
    assert empty.payments == PaymentsView(0, 0, 0, 0, 0, 0), "what is announced or posted is not paid yet"
    store.weave.save_gateway("two:443", "open", 5, "two:443: HTTP 503")
    store.weave.save_gateway("one", "closed", 0, "")
    store.weave.save_gateway("two:443", "closed", 0, "two:443: HTTP 503")
    store.weave.save_wallet(b"w" * 32, 10**18, Tariff(1_000, 500))
    store.weave.save_wallet(b"w" * 32, 7, Tariff(1_000, 600))
    store.bundles.save_sealed(
        StoredBundle(4, CONFIG, 0, START, START, START + 1, BundleState.OPEN, root=Root(NIL), size=900, messages=30)
    )
    store.bundles.save_upload_state(4, 0, UploadState.CONFIRMED)
    first, second = (heard.announcement for heard in store.bundles.load_announced(4))
    store.bundles.save_announced_state(first, AnnouncedState.VERIFIED, "")
    status = view.load_status()
    assert [(g.host, g.state, g.failures, g.error) for g in status.gateways] == [
        ("one", "closed", 0, ""),
        ("two:443", "closed", 0, "two:443: HTTP 503"),
    ]
    assert status.wallet == WalletView(b"w" * 32, 7, 1_000, 600, NOW_MS)
    assert status.payments == PaymentsView(1, 1, 0, 1, 30, 900)
    store.bundles.save_announced_state(second, AnnouncedState.REFUSED, "other bytes, in a block all the same")
    assert view.load_status().payments == PaymentsView(2, 1, 1, 1, 30, 900)


def test_the_observations_that_a_decided_outcome_used_are_shown_with_their_bodies(
    store: SqlStore, view: SqlView
) -> None:
    """Not the body that nobody has signed, nor the word of a member that the outcome does not name."""
    seen = [encode_observation(Observation(INSTANCE, EMPTY_ROOT, n, n, observer=a_key(n).address)) for n in range(1, 5)]
    named = [hash_object(body) for body in seen[:3]]
    outcome = Outcome(INSTANCE, 7, hash_body(b"block"), (), entries_root(()), 5, (), tuple(sorted(named)))
    said = {n: a_statement(StatementKind.OBSERVATION, hash_object(seen[n - 1]), member=n) for n in (1, 2, 4)}
    stored = opened(store)
    assert view.load_used_observations(INSTANCE) is None
    store.instances.save_statements([*said.values(), a_statement(StatementKind.PREVOTE, named[2], member=3)])
    for body in seen:
        store.instances.save_body(body)
    save(store, stored, certificate=a_quorum(value=outcome_digest(outcome)))
    assert view.load_used_observations(INSTANCE) is None
    store.instances.save_body(encode_outcome(outcome))
    used = view.load_used_observations(INSTANCE)
    assert used == UsedObservations(
        tuple(sorted(named)), tuple((encode_statement(said[n]), seen[n - 1]) for n in (1, 2))
    )


def test_a_decision_shows_its_certificate_and_signers(store: SqlStore, view: SqlView) -> None:
    fill(store)
    save(store, loaded(store), certificate=a_quorum(round_=1), round=3)
    store.windows.save_state(START, WindowState.HELD)
    status = view.load_status()
    (certificate,) = status.certificates
    assert (certificate.instance, certificate.round, certificate.value) == (INSTANCE, 1, V)
    assert set(certificate.signers) == {a_key(m).address for m in (1, 2, 3)}
    round_ = status.windows[0].round
    assert round_ is not None
    assert (round_.round, round_.waits_for) == (1, "")


def test_participation_tells_what_was_decided_from_what_we_said(
    store: SqlStore, view: SqlView, clock: HandClock
) -> None:
    fill(store)
    clock.at_ms = START + 10_000
    before = view.load_participation(START)
    assert (before.windows, before.observed, before.decided) == (2, 1, 0)
    save(store, loaded(store), certificate=a_quorum(round_=1), said=[a_statement(StatementKind.PREVOTE, W, 2)])
    after = view.load_participation(START)
    assert (after.decided, after.signed, after.included, after.disagreed) == (1, 1, 0, 1)
    assert view.load_status().participation == after
    assert view.load_participation(START + 5_000).windows == 0


def test_old_windows_are_shown_only_while_they_wait(store: SqlStore, view: SqlView) -> None:
    for number in range(10):
        store.windows.open_window(Window(number * 1_000, number * 1_000 + 1_000), 0)
        if number % 4:
            store.windows.save_state(number * 1_000, WindowState.HELD)
    shown = [w.start_ms // 1_000 for w in view.load_status(3).windows]
    assert shown == [0, 4, 7, 8, 9]


def test_the_listener_serves_the_database(store: SqlStore, view: SqlView) -> None:
    fill(store)
    client = AsgiClient(create_app(view))
    data = client.get("/status.json").json()
    assert data["windows"][0]["votes"] == {"observation": 4, "proposal": 0, "prevote": 3, "precommit": 1}
    assert data["windows"][0]["state"] == "observed"
    assert "1/3 precommits of round 1" in client.get("/").text
    assert 'logstore_rejected_records{reason="bad_signature"} 1.0' in client.get("/metrics").text
    answer = client.get("/statements.json", params={"instance": str(INSTANCE)}).json()
    own = a_statement(StatementKind.PRECOMMIT, V, 1)
    assert answer["statements"] == [encode_statement(own).hex()]
    assert decode_statement(bytes.fromhex(answer["statements"][0])) == own
    assert client.get("/readyz").status_code == 503  # nobody has looked for what is due
    store.due.claim(view._clock.now_ms(), 1, 1)
    assert client.get("/readyz").status_code == 200


def test_an_empty_database_has_a_page_too(view: SqlView) -> None:
    client = AsgiClient(create_app(view))
    assert client.get("/").status_code == 200
    assert client.get("/status.json").json()["windows"] == []
    assert client.get("/metrics").status_code == 200


def test_readiness_follows_database_schema_disk_and_chain(
    store: SqlStore, view: SqlView, clock: HandClock, tmp_path: Path, url: str
) -> None:
    def failing(of: SqlView) -> set[str]:
        return {check.name for check in of.check_ready() if not check.ok}

    assert failing(view) == {"chain", "beat"}  # no block seen yet, nobody has looked for what is due
    store.chain.save_head(Block(1, NIL, 1), Block(1, NIL, 1))
    store.due.claim(clock.at_ms, 1, 1)
    assert failing(view) == set()
    clock.at_ms += 61_000
    assert failing(view) == {"chain"}
    clock.at_ms += 120_000
    assert failing(view) == {"chain", "beat"}
    store.due.claim(clock.at_ms, 1, 1)
    assert failing(view) == {"chain"}
    full = SqlView(store.database, clock, address=None, network="t", data_dir=tmp_path, disk_floor="100%")
    assert failing(full) == {"chain", "disk"}
    with store.database.write() as connection:
        replace_meta(connection, Meta(bytes(32), 1, 1, 1, 1, NIL, b"", 0))
    assert failing(view) == {"chain"}
    with store.database.write() as connection:
        save_retired(connection, 5)  # as an export of the votes does
    assert failing(view) == {"chain", "votes"}
    with store.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))  # in the middle of an upgrade
    assert failing(view) == {"chain", "votes"}
    with store.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": head_revision()})
    store.database.close()
    downgrade(url, "base")
    assert {"database", "migrations"} <= failing(view)


def test_the_disk_is_measured_where_its_folder_will_be(tmp_path: Path) -> None:
    assert not measure_disk(tmp_path / "not" / "there", "0").is_full
    assert Disk(5, 10, 6).is_full
