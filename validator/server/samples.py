"""What Prometheus is told of one moment, from the database and from what the lookout saw. ``deploy/alerts.yml`` and the
dashboard name these; a test holds them together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from validator.metrics import Sample
from validator.ports.states import WindowState
from validator.protocol.errors import TransientError
from validator.server.causes import Cause, find_causes
from validator.server.surroundings import Surroundings
from validator.server.verdict import Level, is_overdue, judge
from validator.steps.seat import Standing
from validator.store.view.status import Check, Status, shown_state

COIN = 10**18


class Measured(Protocol):
    """What is asked of the view."""

    def load_status(self, limit: int) -> Status: ...

    def check_ready(self) -> list[Check]: ...


WINDOWS = 20
"""Looked at for what waits; unfinished ones come beside them."""


def samples(view: Measured, around: Surroundings) -> Iterator[Sample]:
    """Gauges of one moment. ``logstore_up`` is 0, and alone, while the database does not answer."""
    try:
        status = view.load_status(WINDOWS)
    except TransientError:
        yield Sample("logstore_up", "1 if the database answers", 0)
        return
    yield Sample("logstore_up", "1 if the database answers", 1)
    for name, text, counts in (
        ("logstore_windows", "Windows by state", status.window_counts),
        ("logstore_bundles", "Bundles by state", status.bundle_counts),
        ("logstore_reports", "Reports by state", status.report_counts),
    ):
        for state, count in counts.items():
            yield Sample(name, text, count, {"state": state})
    for reason, count in status.invalid_rejected.items():
        yield Sample("logstore_rejected_records", "Distinct records refused, by reason", count, {"reason": reason})
    for broker in status.brokers:
        labels = {"broker": "0x" + broker.address.hex()}
        yield Sample("logstore_broker_served_bytes", "Signed bytes served, newest windows", broker.served, labels)
        yield Sample("logstore_broker_missed_bytes", "Signed bytes missed, newest windows", broker.missed, labels)
    yield Sample("logstore_evidence", "Double votes noticed", status.evidence_count)
    yield Sample("logstore_due", "Rows whose wake time has passed", status.due)
    yield Sample("logstore_late_candidates", "Valid messages in no agreed set yet", status.late_candidates)
    yield Sample("logstore_sets", "Sets of messages on disk", status.sets)
    yield Sample("logstore_set_bytes", "Bytes of the sets on disk", status.set_bytes)
    yield Sample(
        "logstore_reorganised_blocks", "Final blocks that the chain has replaced since", status.reorganisations
    )
    yield Sample("logstore_damaged_sets", "Sets whose file was damaged, not obtained again yet", status.damaged_sets)
    yield from _weave_samples(status)
    yield from _head_samples(status)
    yield from _participation_samples(status)
    yield from _surrounding_samples(around)
    checks = view.check_ready()
    level = list(Level).index(judge(status, checks, around).level)
    yield Sample("logstore_verdict", "0 healthy, 1 degraded, 2 not taking part", level)
    causes = [cause.name for cause in find_causes(status)]
    for name in Cause:
        yield Sample(
            "logstore_cause", "What stands still outside, by its one name", causes.count(name), {"cause": name}
        )
    for check in checks:
        yield Sample("logstore_ready", "1 if a condition of readiness holds", int(check.ok), {"check": check.name})


def _weave_samples(status: Status) -> Iterator[Sample]:
    """Gateways, wallet, and what was paid: a header paid for a bundle that another paid for already is a loss."""
    for gateway in status.gateways:
        labels = {"gateway": gateway.host}
        is_open = int(gateway.state == "open")
        yield Sample("logstore_gateway_open", "1 while a gateway is left alone after failures", is_open, labels)
        age = (status.now_ms - gateway.changed_ms) / 1000
        yield Sample("logstore_gateway_changed_seconds", "Time since that changed", age, labels)
    if status.wallet is not None:
        wallet = status.wallet
        yield Sample("logstore_wallet_winston", "Balance of the Arweave wallet", wallet.balance)
        yield Sample("logstore_upload_base_winston", "What a header costs without data", wallet.base)
        yield Sample("logstore_upload_step_winston", "What each chunk begun costs on top", wallet.step)
        age = (status.now_ms - wallet.seen_ms) / 1000
        yield Sample("logstore_wallet_age_seconds", "Time since balance and prices were seen", age)
    paid = status.payments
    yield Sample("logstore_paid_headers", "Headers in blocks, of all members", paid.headers)
    yield Sample("logstore_paid_bundles", "Bundles that they are for", paid.bundles)
    yield Sample("logstore_bundles_paid_twice", "Bundles for which more than one header was paid", paid.twice)
    yield Sample("logstore_own_paid_winston", "Paid for own uploads", paid.own_winston)
    yield Sample("logstore_own_paid_messages", "Messages in own uploads", paid.own_messages)
    yield Sample("logstore_own_paid_bytes", "Bytes in own uploads", paid.own_bytes)
    if paid.own_messages:
        each = paid.own_winston / paid.own_messages
        yield Sample("logstore_own_message_winston", "Paid per message of own uploads", each)
        each = paid.own_bytes / paid.own_messages
        yield Sample("logstore_own_message_bytes", "Bytes per message of own uploads", each)


def _head_samples(status: Status) -> Iterator[Sample]:
    """Windows that wait, rows that are due, and the chain."""
    ended = [w for w in status.windows if w.end_ms < status.now_ms]
    waiting = [w for w in ended if shown_state(w) not in (WindowState.AGREED, WindowState.HELD)]
    oldest = max((status.now_ms - w.end_ms for w in waiting), default=0)
    yield Sample("logstore_oldest_waiting_seconds", "Time since the end of the oldest undecided window", oldest / 1000)
    overdue = [w for w in status.windows if is_overdue(w, status.now_ms)]
    yield Sample(
        "logstore_overdue_windows", "Windows that have been undecided for a minute after their end", len(overdue)
    )
    since_ms = status.oldest_due_ms if status.oldest_due_ms is not None else status.now_ms
    age = max(0, status.now_ms - since_ms) / 1000
    yield Sample("logstore_oldest_due_seconds", "How long the oldest row has been due", age)
    for name, head in (("head", status.head), ("finalised", status.finalised)):
        if head is not None:
            yield Sample("logstore_block", "Newest block seen", head.number, {"kind": name})
            age = (status.now_ms - head.seen_ms) / 1000
            yield Sample("logstore_block_age_seconds", "Time since a block was seen", age, {"kind": name})
            age = status.now_ms / 1000 - head.timestamp_s
            yield Sample("logstore_block_behind_seconds", "How old the newest block is", age, {"kind": name})


def _participation_samples(status: Status) -> Iterator[Sample]:
    seen = status.participation
    results = {
        "ended": seen.windows,
        "decided": seen.decided,
        "observed": seen.observed,
        "included": seen.included,
        "signed": seen.signed,
        "disagreed": seen.disagreed,
        "incomplete": seen.incomplete,
    }
    for result, count in results.items():
        yield Sample("logstore_newest_windows", "Newest windows, by what became of them", count, {"result": result})


def _surrounding_samples(around: Surroundings) -> Iterator[Sample]:
    for purpose, held in around.balances.items():
        labels = {"of": purpose, "coin": "POL" if purpose == "gas" else "LSAN"}
        yield Sample("logstore_balance", "Whole coins of a key, and the node's stake", held / COIN, labels)
    if around.seat is not None:
        member = int(around.seat.standing is Standing.MEMBER)
        yield Sample("logstore_member", "1 while this validator has a seat", member)
    for peer in around.peers:
        labels = {"peer": peer.name or "0x" + peer.address.hex()}
        answers = int(peer.clock_ms is not None)
        yield Sample("logstore_peer_answers", "1 if a member answered the last handshake", answers, labels)
        if peer.clock_ms is not None:
            ahead = peer.clock_ms / 1000
            yield Sample("logstore_peer_clock_seconds", "How far a member's clock is ahead of ours", ahead, labels)
    if around.seen_ms:
        yield Sample("logstore_redis_up", "1 if Redis answers", int(around.queues is not None))
    for queue, count in (around.queues or {}).items():
        yield Sample("logstore_queue_messages", "Messages that wait in a queue", count, {"queue": queue})
