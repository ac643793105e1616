"""The read side of the operator's screen: everything one validator knows, in a few queries over the reader engine.

Nothing here is asked of the network. Lists are bounded: the newest windows, and whatever older ones are unfinished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select
from sqlalchemy.exc import DBAPIError

from validator.ports.clock import Clock
from validator.ports.states import BundleState, ReportState, WindowState
from validator.protocol.codec.outcome import decode_observation, decode_outcome
from validator.protocol.codec.statement import decode_quorum, decode_upload, encode_statement
from validator.protocol.errors import ConfigError, ValidatorError
from validator.protocol.model import Address, Digest, InstanceId, InstanceKind, StatementKind
from validator.store import schema
from validator.store.database import Database, head_revision, load_revision
from validator.store.disk import measure_disk
from validator.store.due import LOOKED
from validator.store.rows import count_by, insert_or_replace, is_instance
from validator.store.statements import load_evidence

SHOWN_WINDOWS = 100
SHOWN_BUNDLES = 20
SHOWN_EVENTS = 20
SHARES_OF = 20
"""Newest own observations whose broker shares are added up."""
HEAD_AGE_MS = 60_000
LOOK_AGE_MS = 180_000
"""Three times the longest tick."""
"""A head watcher that has been silent for longer makes the validator not ready."""


@dataclass(frozen=True, slots=True)
class RoundView:
    """One instance: where it stands, who leads, how many members have spoken in its round, what it waits for."""

    instance: InstanceId
    state: str
    round: int
    step: str
    leader: Address | None
    votes: Mapping[str, int]
    waits_for: str
    opened_ms: int
    decided_ms: int | None


@dataclass(frozen=True, slots=True)
class WindowView:
    """One window and, once it is collected, its round."""

    start_ms: int
    end_ms: int
    epoch: int
    state: str
    bundle: int | None
    round: RoundView | None


@dataclass(frozen=True, slots=True)
class CertificateView:
    """A decision and who signed it."""

    instance: InstanceId
    round: int
    value: bytes
    signers: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class UsedObservations:
    """The observations that a decided outcome used: their digests, and (statement, body) of those that are kept."""

    named: tuple[Digest, ...]
    held: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class UploadView:
    """An announced or own upload of a bundle."""

    storage_id: bytes
    by: Address | None
    state: str
    reason: str
    own: bool


@dataclass(frozen=True, slots=True)
class BundleView:
    """One bundle and its uploads."""

    number: int
    epoch: int
    state: str
    first_ms: int
    last_ms: int
    messages: int
    size: int
    root: bytes | None
    sealed_ms: int
    uploads: tuple[UploadView, ...]


@dataclass(frozen=True, slots=True)
class ReportView:
    """One report with one storage id, and who attested it."""

    number: int
    storage_id: bytes
    digest: bytes
    state: str
    signers: tuple[Address, ...]
    transaction: bytes | None
    gas_used: int | None


@dataclass(frozen=True, slots=True)
class BrokerView:
    """Signed bytes served and missed in the newest own observations, and distinct records refused, by reason."""

    address: Address
    served: int
    missed: int
    invalid: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MemberView:
    """Statements of one member held for the windows shown, by kind, and evidence against it."""

    address: Address
    statements: Mapping[str, int]
    evidence: int


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """Two statements of one member where only one is allowed."""

    signer: Address
    instance: InstanceId
    round: int
    kind: str
    first: bytes
    second: bytes
    noticed_ms: int


@dataclass(frozen=True, slots=True)
class EventView:
    """A warning or alarm of this validator's log."""

    at_ms: int
    level: str
    event: str
    fields: str


@dataclass(frozen=True, slots=True)
class HeadView:
    """A block as the head watcher saw it last."""

    number: int
    timestamp_s: int
    seen_ms: int


@dataclass(frozen=True, slots=True)
class Status:
    """One screen: the whole validator at one moment."""

    now_ms: int
    address: Address | None
    network: str
    observer: bool
    head: HeadView | None
    finalised: HeadView | None
    due: int
    window_counts: Mapping[str, int]
    windows: tuple[WindowView, ...]
    late: tuple[RoundView, ...]
    certificates: tuple[CertificateView, ...]
    bundle_counts: Mapping[str, int]
    bundles: tuple[BundleView, ...]
    report_counts: Mapping[str, int]
    reports: tuple[ReportView, ...]
    brokers: tuple[BrokerView, ...]
    members: tuple[MemberView, ...]
    invalid_rejected: Mapping[str, int]
    evidence: tuple[EvidenceView, ...]
    evidence_count: int
    events: tuple[EventView, ...]
    sets: int
    set_bytes: int
    damaged_sets: int
    reorganisations: int
    late_candidates: int


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness."""

    name: str
    ok: bool
    detail: str


class SqlView:
    """What the operator listener shows of one validator."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        address: Address | None,
        network: str,
        data_dir: Path,
        disk_floor: str = "",
        observer: bool = False,
    ) -> None:
        self._database = database
        self._clock = clock
        self._address = address
        self._network = network
        self._data_dir = data_dir
        self._disk_floor = disk_floor
        self._observer = observer

    def load_status(self, limit: int = SHOWN_WINDOWS) -> Status:
        """Everything for one screen, from one snapshot; ``limit`` windows at most, and as many unfinished ones."""
        now_ms = self._clock.now_ms()
        with self._database.read() as connection:
            windows = _load_windows(connection, limit)
            instances = _load_instances(connection, windows, limit)
            heads = _load_heads(connection)
            evidence = load_evidence(connection, 50)
            return Status(
                now_ms=now_ms,
                address=self._address,
                network=self._network,
                observer=self._observer,
                head=heads.get("head"),
                finalised=heads.get("finalised"),
                due=_count(connection, schema.due.c.key, schema.due.c.wake_ms <= now_ms),
                window_counts=_counts(connection, schema.windows.c.state, list(WindowState)),
                windows=tuple(_window(row, instances) for row in windows),
                late=tuple(r.view for i, r in sorted(instances.items()) if i.kind is InstanceKind.LATE),
                certificates=tuple(r.certificate for _, r in sorted(instances.items()) if r.certificate is not None),
                bundle_counts=_counts(connection, schema.bundles.c.state, list(BundleState)),
                bundles=_load_bundles(connection),
                report_counts=_counts(connection, schema.reports.c.state, list(ReportState)),
                reports=_load_reports(connection),
                brokers=_load_brokers(connection),
                members=_load_members(connection, instances),
                invalid_rejected=count_rejections(connection),
                evidence=tuple(
                    EvidenceView(
                        e.first.signer,
                        e.first.instance,
                        e.first.round,
                        e.first.kind.name.lower(),
                        encode_statement(e.first),
                        encode_statement(e.second),
                        e.noticed_ms,
                    )
                    for e in evidence
                ),
                evidence_count=_count(connection, schema.evidence.c.id),
                events=_load_events(connection),
                sets=_count(connection, schema.sets.c.set_root),
                set_bytes=int(connection.scalar(select(func.coalesce(func.sum(schema.sets.c.size), 0))) or 0),
                reorganisations=_count(connection, schema.reorganisations.c.at_s),
                damaged_sets=_count(connection, schema.damaged_sets.c.set_root),
                late_candidates=_count(connection, schema.late_candidates.c.identity),
            )

    def load_own_statements(self, instance: InstanceId) -> list[bytes]:
        """Own journaled statements of an instance under all configs, in the order they were made."""
        t = schema.journal
        query = select(t.c.bytes).where(t.c.instance_kind == int(instance.kind), t.c.instance_number == instance.number)
        with self._database.read() as connection:
            return list(connection.scalars(query.order_by(t.c.id)))

    def load_used_observations(self, instance: InstanceId) -> UsedObservations | None:
        """What the decided outcome of an instance used, as far as it is kept; None while the outcome is not here."""
        instances, bodies, statements = schema.instances, schema.bodies, schema.statements
        decided = select(instances.c.decided_value).where(
            is_instance(instances, instance), instances.c.decided_value.is_not(None)
        )
        with self._database.read() as connection:
            value = connection.scalar(decided.order_by(instances.c.opened_ms.desc()).limit(1))
            body = connection.scalar(select(bodies.c.bytes).where(bodies.c.digest == value))
            if body is None:
                return None
            named = decode_outcome(body).observations
            query = (
                select(statements.c.bytes, bodies.c.bytes)
                .join(bodies, bodies.c.digest == statements.c.value)
                .where(
                    is_instance(statements, instance),
                    statements.c.statement_kind == int(StatementKind.OBSERVATION),
                    statements.c.value.in_(named),
                )
                .order_by(statements.c.id)
            )
            return UsedObservations(named, tuple((said, what) for said, what in connection.execute(query)))

    def check_ready(self) -> list[Check]:
        """Whether this validator can work: database, schema, disk, chain, beat and worker. Never raises."""
        return [
            self._check("database", self._write_once),
            self._check("migrations", self._compare_revision),
            self._check("disk", self._measure_disk),
            self._check("chain", self._measure_head),
            self._check("beat", self._measure_look),
        ]

    def _check(self, name: str, ask: Any) -> Check:
        try:
            return Check(name, True, ask())
        except ValidatorError as error:
            return Check(name, False, error.message)
        except DBAPIError as error:  # such as a table that is not there
            return Check(name, False, str(error.orig).partition("\n")[0])

    def _write_once(self) -> str:
        now_ms = self._clock.now_ms()
        with self._database.write() as connection:
            insert_or_replace(connection, schema.cursors, {"name": "ready", "value": now_ms, "changed_ms": now_ms})
        return "writable"

    def _compare_revision(self) -> str:
        with self._database.read() as connection:
            current = load_revision(connection)
        if current != head_revision():
            raise ConfigError(f"schema is at {current}, this release needs {head_revision()}")
        return str(current)

    def _measure_disk(self) -> str:
        disk = measure_disk(self._data_dir, self._disk_floor)
        text = f"{disk.free >> 20} MiB free, floor {disk.floor >> 20} MiB"
        if disk.is_full:
            raise ConfigError(text)
        return text

    def _measure_head(self) -> str:
        with self._database.read() as connection:
            head = _load_heads(connection).get("head")
        if head is None:
            raise ConfigError("no block seen yet")
        age_ms = self._clock.now_ms() - head.seen_ms
        text = f"block {head.number}, seen {age_ms // 1000} s ago"
        if age_ms > HEAD_AGE_MS:
            raise ConfigError(text)
        return text

    def _measure_look(self) -> str:
        """Beat queues a look, a worker of queue ``round`` makes it: if either has ended, nothing is due any more."""
        with self._database.read() as connection:
            looked_ms = connection.scalar(select(schema.cursors.c.value).where(schema.cursors.c.name == LOOKED))
        if looked_ms is None:
            raise ConfigError("never looked for what is due; beat and a worker on queue round must run")
        age_ms = self._clock.now_ms() - looked_ms
        text = f"looked for what is due {max(age_ms, 0) // 1000} s ago"
        if age_ms > LOOK_AGE_MS:
            raise ConfigError(f"{text}; beat and a worker on queue round must run")
        return text


def shown_state(window: WindowView) -> str:
    """The window's rung, a decided or observed round being higher than a window that was only collected."""
    round_ = window.round
    if window.state in (WindowState.OPEN, WindowState.COLLECTED) and round_ is not None:
        if round_.state == "decided":
            return WindowState.AGREED
        if window.state == WindowState.COLLECTED and round_.step not in ("", "waiting"):
            return "observed"
    return window.state


def waits_for(window: WindowView, now_ms: int) -> str:
    """Why a window does not move; "" once it is agreed."""
    if window.round is not None and (window.state != WindowState.OPEN or window.round.waits_for):
        return window.round.waits_for
    if window.state != WindowState.OPEN:
        return ""
    return "its end" if now_ms < window.end_ms else "its cut-off: clock, chain and brokers"


def count_rejections(connection: Connection) -> dict[str, int]:
    """Distinct records refused per reason; those beyond the bound of kept rows are counted as they came."""
    counted = Counter(count_by(connection, schema.rejections.c.reason))
    t = schema.rejection_overflows
    for reason, count in connection.execute(select(t.c.reason, func.sum(t.c.count)).group_by(t.c.reason)):
        counted[reason] += int(count)
    return dict(sorted(counted.items()))


# --- windows and instances ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Instance:
    view: RoundView
    certificate: CertificateView | None


def _load_windows(connection: Connection, limit: int) -> list[Any]:
    t = schema.windows
    newest = connection.execute(select(t).order_by(t.c.start_ms.desc()).limit(limit)).all()
    oldest = newest[-1].start_ms if newest else 0
    waiting = select(t).where(t.c.start_ms < oldest, t.c.state != WindowState.HELD).order_by(t.c.start_ms).limit(limit)
    return [*connection.execute(waiting), *reversed(newest)]


def _load_instances(connection: Connection, windows: Sequence[Any], limit: int) -> dict[InstanceId, _Instance]:
    """Rounds of these windows and of the newest late sets, each under its newest config."""
    t = schema.instances
    starts = [row.start_ms for row in windows]
    shown = or_(
        and_(t.c.instance_kind == int(InstanceKind.WINDOW), t.c.instance_number.in_(starts)),
        t.c.instance_kind == int(InstanceKind.LATE),
    )
    order = (t.c.instance_kind, t.c.instance_number.desc(), t.c.opened_ms.desc())
    rows: dict[InstanceId, Any] = {}
    for row in connection.execute(select(t).where(shown).order_by(*order).limit(4 * limit)):
        rows.setdefault(InstanceId(InstanceKind(row.instance_kind), row.instance_number), row)
    votes = _count_votes(connection, rows)
    return {instance: _round(instance, row, votes) for instance, row in rows.items()}


def _round(instance: InstanceId, row: Any, votes: Mapping[tuple[InstanceId, bytes, int, int], int]) -> _Instance:
    certificate = None
    if row.certificate is not None:
        quorum = decode_quorum(row.certificate)
        signers = tuple(signer for signer, _ in quorum.signatures)
        certificate = CertificateView(instance, quorum.round, quorum.value, signers)
    shown = row.round if row.decided_round is None else row.decided_round
    spoken = {
        kind.name.lower(): votes.get(
            (instance, row.config_digest, int(kind), 0 if kind is StatementKind.OBSERVATION else shown), 0
        )
        for kind in StatementKind
    }
    view = RoundView(
        instance=instance,
        state=row.state,
        round=shown,
        step=row.step,
        leader=None if row.leader is None else Address(row.leader),
        votes=spoken,
        waits_for="" if row.state == "decided" else row.waits_for,
        opened_ms=row.opened_ms,
        decided_ms=row.decided_ms,
    )
    return _Instance(view, certificate)


def _window(row: Any, instances: Mapping[InstanceId, _Instance]) -> WindowView:
    held = instances.get(InstanceId(InstanceKind.WINDOW, row.start_ms))
    return WindowView(row.start_ms, row.end_ms, row.epoch, row.state, row.bundle, None if held is None else held.view)


def _among(table: Any, instances: Iterable[InstanceId]) -> ColumnElement[bool]:
    by_kind: dict[InstanceKind, list[int]] = {}
    for instance in instances:
        by_kind.setdefault(instance.kind, []).append(instance.number)
    return or_(
        table.c.instance_kind == 0,  # none, where nothing is shown
        *(
            and_(table.c.instance_kind == int(kind), table.c.instance_number.in_(numbers))
            for kind, numbers in by_kind.items()
        ),
    )


def _count_votes(
    connection: Connection, instances: Iterable[InstanceId]
) -> dict[tuple[InstanceId, bytes, int, int], int]:
    """Signers by (instance, config digest, kind, round)."""
    t = schema.statements
    place = (t.c.instance_kind, t.c.instance_number, t.c.config_digest, t.c.statement_kind, t.c.round)
    query = select(*place, func.count(t.c.signer.distinct())).where(_among(t, instances)).group_by(*place)
    return {
        (InstanceId(InstanceKind(kind), number), config_digest, statement_kind, round_): count
        for kind, number, config_digest, statement_kind, round_, count in connection.execute(query)
    }


def _load_members(connection: Connection, instances: Iterable[InstanceId]) -> tuple[MemberView, ...]:
    t = schema.statements
    query = (
        select(t.c.signer, t.c.statement_kind, func.count())
        .where(_among(t, instances))
        .group_by(t.c.signer, t.c.statement_kind)
    )
    members: dict[Address, dict[str, int]] = {}
    for signer, kind, count in connection.execute(query):
        spoken = members.setdefault(Address(signer), {k.name.lower(): 0 for k in StatementKind})
        spoken[StatementKind(kind).name.lower()] = count
    e = schema.evidence
    rows = connection.execute(select(e.c.signer, func.count()).group_by(e.c.signer))
    guilty = {Address(signer): count for signer, count in rows}
    return tuple(
        MemberView(address, members.get(address, {}), guilty.get(address, 0))
        for address in sorted(members.keys() | guilty.keys())
    )


# --- bundles, reports, brokers --------------------------------------------------------------------------


def _load_bundles(connection: Connection) -> tuple[BundleView, ...]:
    t, heard, own = schema.bundles, schema.announcements, schema.uploads
    rows = connection.execute(select(t).order_by(t.c.number.desc()).limit(SHOWN_BUNDLES)).all()
    numbers = [row.number for row in rows]
    uploads: dict[int, dict[bytes, UploadView]] = {number: {} for number in numbers}
    for row in connection.execute(select(heard).where(heard.c.number.in_(numbers)).order_by(heard.c.heard_ms)):
        announced = decode_upload(row.bytes)
        uploads[row.number][row.storage_id] = UploadView(
            row.storage_id, announced.signer, row.state, row.reason, own=False
        )
    for row in connection.execute(select(own).where(own.c.number.in_(numbers)).order_by(own.c.attempt)):
        known = uploads[row.number].get(row.storage_id)
        by = None if known is None else known.by
        uploads[row.number][row.storage_id] = UploadView(row.storage_id, by, row.state, "", own=True)
    return tuple(
        BundleView(
            row.number,
            row.epoch,
            row.state,
            row.first_ms,
            row.last_ms,
            row.messages,
            row.size,
            row.root,
            row.sealed_ms,
            tuple(uploads[row.number].values()),
        )
        for row in reversed(rows)
    )


def _load_reports(connection: Connection) -> tuple[ReportView, ...]:
    t, a = schema.reports, schema.attestations
    query = select(t).order_by(t.c.number.desc(), t.c.drafted_ms.desc()).limit(SHOWN_BUNDLES)
    rows = connection.execute(query).all()
    signers: dict[bytes, list[Address]] = {}
    signed = select(a.c.report_digest, a.c.signer).where(a.c.report_digest.in_([row.digest for row in rows]))
    for digest, signer in connection.execute(signed.order_by(a.c.signer)):
        signers.setdefault(digest, []).append(Address(signer))
    return tuple(
        ReportView(
            row.number,
            row.storage_id,
            row.digest,
            row.state,
            tuple(signers.get(row.digest, ())),
            row.transaction,
            row.gas_used,
        )
        for row in reversed(rows)
    )


def _load_brokers(connection: Connection) -> tuple[BrokerView, ...]:
    served: Counter[Address] = Counter()
    missed: Counter[Address] = Counter()
    w, b = schema.windows, schema.bodies
    newest = select(w.c.observation).where(w.c.observation.is_not(None)).order_by(w.c.start_ms.desc()).limit(SHARES_OF)
    for body in connection.scalars(select(b.c.bytes).where(b.c.digest.in_(newest))):
        for share in decode_observation(body).shares:
            served[share.broker] += share.served
            missed[share.broker] += share.missed
    invalid: dict[Address, dict[str, int]] = {}
    r = schema.rejections
    for source, reason, count in connection.execute(
        select(r.c.source, r.c.reason, func.count()).group_by(r.c.source, r.c.reason)
    ):
        invalid.setdefault(Address(source), {})[reason] = count
    return tuple(
        BrokerView(address, served[address], missed[address], invalid.get(address, {}))
        for address in sorted(served.keys() | missed.keys() | invalid.keys())
    )


def _load_heads(connection: Connection) -> dict[str, HeadView]:
    rows = connection.execute(select(schema.chain_heads))
    return {row.name: HeadView(row.number, row.timestamp_s, row.seen_ms) for row in rows}


def _load_events(connection: Connection) -> tuple[EventView, ...]:
    t = schema.events
    query = select(t).where(t.c.level.in_(("warning", "error"))).order_by(t.c.id.desc()).limit(SHOWN_EVENTS)
    return tuple(EventView(row.at_ms, row.level, row.event, row.fields) for row in connection.execute(query))


def _counts(connection: Connection, column: Any, states: Sequence[str]) -> dict[str, int]:
    return dict.fromkeys(states, 0) | count_by(connection, column)


def _count(connection: Connection, column: Any, *conditions: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count(column)).where(*conditions)).scalar_one()
