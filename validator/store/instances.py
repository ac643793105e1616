"""Instances of agreement, and the one transaction in which a vote is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, or_, select, update

from validator.log import get_logger
from validator.ports.clock import Clock
from validator.ports.queue import Task
from validator.ports.states import BundleState
from validator.ports.store import StaleState
from validator.ports.stored import Accepted, InstanceChange, InstanceHead, StoredInstance
from validator.protocol.codec.outcome import body_digest
from validator.protocol.codec.statement import decode_quorum, encode_quorum
from validator.protocol.consensus.votes import AHEAD, BEHIND, KNOWN
from validator.protocol.errors import InvariantError
from validator.protocol.model import (
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    Root,
    Statement,
    StatementKind,
    VoteQuorum,
)
from validator.store import due, schema
from validator.store.bodies import drop_body, find_set, load_body, save_body
from validator.store.database import Database
from validator.store.meta import require_active
from validator.store.rows import at_instance, insert_new, is_instance, of_instance
from validator.store.statements import (
    drop_ahead,
    is_journaled,
    journal_vote,
    load_journal,
    load_observations,
    load_quorums,
    load_statements,
    save_evidence,
    save_foreign,
    save_named,
    save_quorum,
    save_statements,
    why_not_kept,
)

log = get_logger(__name__)

"""The task that is due at a round's wake time, with the instance as its key."""


_R, _P, _B = schema.instances, schema.quorums, schema.bodies
_NEWEST = select(_R).where(of_instance(_R)).order_by(_R.c.opened_ms.desc(), _R.c.config_digest).limit(1)
_OLDER = select(func.count()).where(
    _R.c.state == "open",
    or_(
        _R.c.order_ms < bindparam("at_order"),
        and_(_R.c.order_ms == bindparam("at_order"), _R.c.instance_kind < bindparam("at_kind")),
    ),
)
_CERTIFIED = (
    select(_P.c.round)
    .where(of_instance(_P, of_config=True), _P.c.statement_kind == int(StatementKind.PRECOMMIT))
    .limit(1)
)
_UNDECIDED = (
    select(_R.c.instance_kind, _R.c.instance_number, _R.c.version)
    .where(_R.c.state == "open")
    .order_by(_R.c.order_ms, _R.c.instance_kind)
    .limit(bindparam("at_most"))
)
_TAKE_FLAG = update(_R).where(of_instance(_R, of_config=True), _R.c.queued.is_(False)).values(queued=True)
_FREE_FLAG = update(_R).where(of_instance(_R), _R.c.queued.is_(True)).values(queued=False)
_SAY_WAIT = update(_R).where(of_instance(_R), _R.c.state == "open", _R.c.waits_for != bindparam("at_reason"))
_CHANGE = update(_R).where(of_instance(_R, of_config=True), _R.c.version == bindparam("at_version"))
_BODY_KIND = select(_B.c.kind).where(_B.c.digest == bindparam("at_digest"))


class InstanceRows:
    """The port ``Rounds``. An instance means its newest round, should a raised config count have opened another."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create_instance(self, instance: InstanceId, config_digest: Digest, now_ms: int) -> bool:
        """Open the instance under this config; False if it is open already."""
        with self._database.write() as connection:
            row = {
                "config_digest": config_digest,
                "instance_kind": int(instance.kind),
                "instance_number": instance.number,
                "order_ms": _order(connection, instance, now_ms),
                "version": 0,
                "state": "open",
                "round": 0,
                "step": "",
                "waits_for": "",
                "queued": False,
                "opened_ms": now_ms,
            }
            return insert_new(connection, schema.instances, row)

    def load_head(self, instance: InstanceId) -> InstanceHead | None:
        """The row of an instance without what hangs on it, and how many undecided ones are older."""
        with self._database.read() as connection:
            row = _newest(connection, instance)
            if row is None:
                return None
            older = 0
            if row.state == "open":
                place = {"at_order": row.order_ms, "at_kind": row.instance_kind}
                older = connection.execute(_OLDER, place).scalar_one()
            certified = row.certificate is not None
            if older and not certified:
                certified = connection.scalar(_CERTIFIED, at_instance(instance, row.config_digest)) is not None
            return InstanceHead(
                config_digest=Digest(row.config_digest),
                decided=row.state != "open",
                round=row.round,
                wake_ms=row.wake_ms,
                queued=row.queued,
                older=older,
                certified=certified,
            )

    def load_instance(self, instance: InstanceId) -> StoredInstance | None:
        """Progress, own votes from the journal, and every statement and quorum held, as of one moment."""
        with self._database.read() as connection:
            row = _newest(connection, instance)
            if row is None:
                return None
            return replace(
                _load_held(connection, instance, Digest(row.config_digest)),
                version=row.version,
                progress=row.progress,
                certificate=None if row.certificate is None else decode_quorum(row.certificate),
                wake_ms=row.wake_ms,
                opened_ms=row.opened_ms,
                waits_for=row.waits_for,
            )

    def load_unopened(self, instance: InstanceId, config_digest: Digest) -> StoredInstance:
        """What is held of an instance that has no row here: others may have opened it."""
        with self._database.read() as connection:
            return _load_held(connection, instance, config_digest)

    def save_instance(self, stored: StoredInstance, change: InstanceChange, now_ms: int) -> None:
        """One transaction: state on condition of ``stored.version``, own votes into the journal, when to look again.

        Only when it has returned may anything of it be heard. A decision, once saved, stays.

        Raises:
            StaleState: another worker was first; nothing is kept.
            ConfigError: there is a vote to write, but the database is retired; nothing is kept.
            DoubleVote: the journal holds another vote under the same key (an InvariantError); nothing is kept.
        """
        with self._database.write() as connection:
            _change(connection, stored, change)
            if change.said:
                require_active(connection)
            for statement in change.said:
                if (statement.instance, statement.config_digest) != (stored.instance, stored.config_digest):
                    raise InvariantError(f"a vote for {statement.instance} does not belong to {stored.instance}")
                journal_vote(connection, statement, now_ms)
            save_statements(connection, change.said, now_ms)
            for quorum in change.quorums:
                save_quorum(connection, quorum)
            for first, second in change.evidence:
                save_evidence(connection, first, second, now_ms)
            if change.certificate is not None:
                _decide(connection, stored, change.certificate, now_ms)
                # what follows a decision is owed, even if this process dies now
                due.postpone(connection, Task.ROUND_ADVANCE, str(stored.instance), now_ms)
            elif change.wake_ms is None:
                due.drop(connection, Task.ROUND_ADVANCE, str(stored.instance))
            else:
                due.postpone(connection, Task.ROUND_ADVANCE, str(stored.instance), change.wake_ms)

    def save_statements(self, statements: Sequence[Statement]) -> int:
        """Keep statements whose signatures are verified, for instances known or not; how many were new."""
        if not statements:
            return 0
        with self._database.write() as connection:
            return len(save_statements(connection, statements, self._clock.now_ms()))

    def accept(
        self,
        statements: Sequence[Statement],
        bodies: Mapping[Digest, bytes],
        quorums: Sequence[VoteQuorum],
        own: Address | None = None,
    ) -> Accepted:
        """Keep what peers sent, in one transaction, as far as the core would keep it; bodies only of what is kept.

        Signatures are verified, bodies decoded. Instances with news that are open here are marked as queued. What
        carries the signature of ``own``, and the journal lacks, is kept whatever its round, since the core bars us
        for it; where a decision has ended the looking, it is at least named.
        """
        dropped: Counter[str] = Counter()
        kept: list[Statement] = []
        now_ms = self._clock.now_ms()
        said = [s for s in statements if s.signer == own]
        said += [s for q in quorums for s in q.statements() if s.signer == own]
        with self._database.write() as connection:
            foreign = _keep_foreign(connection, said, now_ms)
            news = {statement.instance for statement in foreign}
            for instance in sorted({s.instance for s in statements}):
                row = _newest(connection, instance)
                at = 0 if row is None else row.round
                for statement in (s for s in statements if s.instance == instance):
                    reason = why_not_kept(connection, statement, at - BEHIND, at + AHEAD)
                    if reason and reason != KNOWN:
                        dropped[reason] += 1
                        continue
                    if _keep(connection, statement, bodies.get(statement.value), at + AHEAD, now_ms):
                        news.add(instance)
                    kept.append(statement)
            news |= {quorum.instance for quorum in quorums if save_quorum(connection, quorum)}
            enqueue = tuple(instance for instance in sorted(news) if _mark_queued(connection, instance))
        return Accepted(enqueue, tuple(kept), dropped, tuple(foreign))

    def save_observations(self, observations: Sequence[tuple[Statement, bytes]]) -> None:
        """Keep verified observations that an outcome names, in one transaction, however many of their signers are held.

        The caller has decoded the bodies, and asks for no more than what proposals name that are kept themselves: as
        many as there are members, of two proposals per leader and round.
        """
        now_ms = self._clock.now_ms()
        with self._database.write() as connection:
            for statement, body in observations:
                save_body(connection, body, now_ms)
                save_named(connection, statement, now_ms)

    def load_observations(
        self, instance: InstanceId, config_digest: Digest, digests: Collection[Digest]
    ) -> list[Statement]:
        """The statements held, whoever signed them, that name these observations."""
        with self._database.read() as connection:
            return load_observations(connection, config_digest, instance, digests)

    def save_quorum(self, quorum: VoteQuorum) -> bool:
        """Keep a verified polka or certificate; False if one for the same votes is there."""
        with self._database.write() as connection:
            return save_quorum(connection, quorum)

    def save_body(self, body: bytes) -> Digest:
        """Keep canonical bytes of an observation or outcome under their digest."""
        with self._database.write() as connection:
            return save_body(connection, body, self._clock.now_ms())

    def load_body(self, digest: Digest) -> bytes | None:
        """Its bytes, if they are here whole; what was altered is dropped, so that it can be obtained again."""
        with self._database.read() as connection:
            body = load_body(connection, digest)
        if body is None or body_digest(body) == digest:
            return body
        with self._database.write() as connection:
            drop_body(connection, digest)
        log.error("body.damaged", digest=digest)
        return None

    def find_set(self, set_root: Root, window_starts: Sequence[int]) -> InstanceId | None:
        """The instance of which this is an outcome's set, or an observed one: of these windows, or of any late set."""
        with self._database.read() as connection:
            return find_set(connection, set_root, window_starts)

    def mark_queued(self, instance: InstanceId) -> bool:
        """True: the flag was free and is set now; False: it was set, or the instance is decided or not open here."""
        with self._database.write() as connection:
            return _mark_queued(connection, instance)

    def clear_queued(self, instance: InstanceId) -> None:
        """At the start of every advance, before the state is loaded."""
        with self._database.write() as connection:
            connection.execute(_FREE_FLAG, at_instance(instance))

    def save_wait(self, instance: InstanceId, waits_for: str) -> None:
        """Why an open instance is not worked on, for the status page. The state is not touched."""
        with self._database.write() as connection:
            connection.execute(_SAY_WAIT, {**at_instance(instance), "at_reason": waits_for, "waits_for": waits_for})

    def load_certificate(self, instance: InstanceId) -> VoteQuorum | None:
        with self._database.read() as connection:
            row = _newest(connection, instance)
        return None if row is None or row.certificate is None else decode_quorum(row.certificate)

    def untouched(self, limit: int) -> list[InstanceId]:
        """Of the ``limit`` oldest undecided instances those that nobody has begun to work on, oldest first.

        A late set is as old as the end of its bundle.
        """
        with self._database.read() as connection:
            rows = connection.execute(_UNDECIDED, {"at_most": limit}).all()
        return [InstanceId(InstanceKind(kind), number) for kind, number, version in rows if version == 0]


def _load_held(connection: Connection, instance: InstanceId, config_digest: Digest) -> StoredInstance:
    return StoredInstance(
        instance=instance,
        config_digest=config_digest,
        version=0,
        progress=None,
        own=tuple(load_journal(connection, config_digest, instance)),
        statements=tuple(load_statements(connection, config_digest, instance)),
        quorums=tuple(load_quorums(connection, config_digest, instance)),
        certificate=None,
        wake_ms=None,
        opened_ms=0,
    )


def _newest(connection: Connection, instance: InstanceId) -> Any:
    return connection.execute(_NEWEST, at_instance(instance)).one_or_none()


def _may_be_pruned(connection: Connection, instance: InstanceId) -> bool:
    """Whether the journal of an instance may be incomplete: of what is final only the newest own statement is kept."""
    t = schema.bundles
    place = and_(t.c.first_ms <= instance.number, t.c.end_ms > instance.number)
    if instance.kind is InstanceKind.LATE:
        place = t.c.number == instance.number
    return connection.scalar(select(t.c.number).where(place, t.c.state == BundleState.FINAL).limit(1)) is not None


def _has_body(connection: Connection, digest: Digest) -> bool:
    return connection.scalar(_BODY_KIND, {"at_digest": digest}) is not None


def _keep_foreign(connection: Connection, said: Iterable[Statement], now_ms: int) -> list[Statement]:
    """Keep what our own key has signed and the journal lacks; returns what is news of it."""
    return [
        statement
        for statement in dict.fromkeys(said)
        if not is_journaled(connection, statement)
        and not _may_be_pruned(connection, statement.instance)
        and save_foreign(connection, statement, now_ms)
    ]


def _keep(connection: Connection, statement: Statement, body: bytes | None, ceiling: int, now_ms: int) -> bool:
    """Keep a statement that the core would keep, and its body unless it is far ahead; whether either is news."""
    if statement.round > ceiling:
        drop_ahead(connection, statement, ceiling)
    is_news = bool(save_statements(connection, [statement], now_ms))
    if body is not None and statement.round <= ceiling and not _has_body(connection, statement.value):
        save_body(connection, body, now_ms)
        return True
    return is_news


def _mark_queued(connection: Connection, instance: InstanceId) -> bool:
    row = _newest(connection, instance)
    if row is None or row.state != "open" or row.queued:
        return False
    return connection.execute(_TAKE_FLAG, at_instance(instance, row.config_digest)).rowcount == 1


def _order(connection: Connection, instance: InstanceId, now_ms: int) -> int:
    if instance.kind is InstanceKind.WINDOW:
        return instance.number
    end_ms = connection.scalar(select(schema.bundles.c.end_ms).where(schema.bundles.c.number == instance.number))
    return now_ms if end_ms is None else end_ms


def _change(connection: Connection, stored: StoredInstance, change: InstanceChange) -> None:
    """Write on top of the loaded version; the row is locked from here to the end of the transaction."""
    loaded = {**at_instance(stored.instance, stored.config_digest), "at_version": stored.version}
    values = {
        "version": stored.version + 1,
        "progress": change.progress,
        "wake_ms": change.wake_ms,
        "round": change.round,
        "step": change.step,
        "leader": change.leader,
        "waits_for": change.waits_for,
    }
    if connection.execute(_CHANGE, {**values, **loaded}).rowcount != 1:
        raise StaleState(
            f"{stored.instance} has left version {stored.version}",
            instance=str(stored.instance),
            version=stored.version,
        )


def _decide(connection: Connection, stored: StoredInstance, certificate: VoteQuorum, now_ms: int) -> None:
    t = schema.instances
    row = connection.execute(select(t).where(is_instance(t, stored.instance, stored.config_digest))).one()
    if row.decided_value is not None:
        if row.decided_value != certificate.value:
            raise InvariantError(f"{stored.instance} was decided for 0x{row.decided_value.hex()} before")
        return
    values = {
        "state": "decided",
        "decided_value": certificate.value,
        "decided_round": certificate.round,
        "certificate": encode_quorum(certificate),
        "decided_ms": now_ms,
    }
    connection.execute(update(t).where(is_instance(t, stored.instance, stored.config_digest)).values(**values))
