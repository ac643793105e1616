"""Candidates of late sets: valid messages that no agreed set holds, found by later pulls, sent by peers, or left out.

What a bundle's late set may hold of them follows from agreed data and the bundle's blocks, the same for everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from validator.log import get_logger
from validator.protocol.codec.outcome import (
    decode_observation,
    set_root,
)
from validator.protocol.consensus.proposal import Span
from validator.protocol.consensus.window import Budget, may_be_full, unite
from validator.protocol.errors import TransientError, ValidatorError
from validator.protocol.model import (
    Flag,
    InstanceId,
    InstanceKind,
    Record,
    StreamPart,
)
from validator.steps.agreed import load_outcome
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle, system_stream
from validator.steps.permissions import admission_or_silence
from validator.steps.records import load_records

log = get_logger(__name__)


def keep_late(context: Context, records: Iterable[Record]) -> list[Record]:
    """Keep what is valid and in no agreed set as candidates of a late set; push what is new to all peers."""
    batch = list(records)
    stored = context.store.archive.stored_identities([r.identity for r in batch])
    new = context.store.archive.save_late([r for r in batch if r.identity not in stored], context.clock.now_ms())
    if new:
        push_late(context, new)
    return new


def push_late(context: Context, records: Sequence[Record]) -> None:
    """Tell every member of the current committee; what does not arrive is found again by its own late pull."""
    epoch = context.network.epoch_at(context.clock.now_ms()) or context.network.epoch_at(
        records[0].message.timestamp_ms
    )
    if epoch is None:
        return
    for member in context.cut_points.epoch_config(epoch.number).committee:
        if member == context.identity.address:
            continue
        try:
            context.peers.push_late(member, [r.canonical for r in records])
        except ValidatorError as error:
            log.debug("late.push_failed", member=member, reason=str(error))


def keep_left_out(context: Context, instance: InstanceId, records: Sequence[Record]) -> None:
    """What we observed and the outcome does not hold is a candidate for the late set.

    Of a set that is damaged this is done when it has been obtained again; meanwhile later pulls ask brokers for the
    whole window once more, for it may never be.
    """
    stored = context.store.windows.load_window(instance.number)
    if stored is None or stored.observation is None:
        return
    body = context.store.instances.load_body(stored.observation)
    if body is None:
        return
    observed = decode_observation(body).set_root
    try:
        seen = load_records(context, observed)
    except TransientError:
        if context.store.sets.has_set(observed):
            raise
        context.store.windows.forget_etags(instance.number)
        return
    held = {r.identity for r in records}
    left = [r for r in seen if r.identity not in held]
    if left:
        log.info("window.left_out", window=instance.number, messages=len(left))
        keep_late(context, left)


def late_candidates(context: Context, number: int) -> list[Record]:
    """What the late set of a bundle may hold of what we have, as the bundle's blocks say: one variant per identity."""
    bundle = require_bundle(context.store, number)
    config = context.cut_points.epoch_config(bundle.epoch)
    span = Span.of_late_set(bundle.end_ms, config.parameters)
    instance = InstanceId(InstanceKind.LATE, number)
    behind = behind_full_entry(context)
    admits = admission_or_silence(context, instance)
    records = context.store.archive.load_late(span.from_ms, span.until_ms)
    union = unite([r for r in records if admits(r)], {})
    return [r for r in union.records if not behind(r)]


def behind_full_entry(context: Context) -> Callable[[Record], bool]:
    """Whether a record sorts after the end of a full entry of its own window (then the window has cut it).

    The system stream's limit holds per publisher, so there only the publisher's own records count.
    """
    entries: dict[tuple[int, StreamPart], dict[bytes, list[Record]] | None] = {}
    system = system_stream(context.network)

    def behind(record: Record) -> bool:
        window = context.network.window_at(record.message.timestamp_ms)
        if window is None:
            return False
        key = (window.start_ms, record.message.stream_part)
        if key not in entries:
            entries[key] = _full_entry(context, *key, per_publisher=key[1][0] == system)
        cut = entries[key]
        if cut is None:
            return False
        publisher = record.message.publisher_id if key[1][0] == system else b""
        if publisher not in cut:
            return key[1][0] != system
        return record.order > cut[publisher][-1].order

    return behind


def _full_entry(
    context: Context, start_ms: int, part: StreamPart, *, per_publisher: bool
) -> dict[bytes, list[Record]] | None:
    """The records of a full entry by publisher (under "" where the limit is of the whole); None if it is not full."""
    outcome = load_outcome(context, InstanceId(InstanceKind.WINDOW, start_ms))
    if outcome is None or not any(e.stream_part == part and Flag.FULL in e.flags for e in outcome.entries):
        return None
    epoch = context.network.epoch_at(start_ms)
    if epoch is None:
        return None
    by_publisher: dict[bytes, list[Record]] = {}
    for record in load_records(context, set_root(outcome.entries)):
        if record.message.stream_part == part:
            by_publisher.setdefault(record.message.publisher_id if per_publisher else b"", []).append(record)
    if not per_publisher:
        return by_publisher
    budget = Budget(epoch.parameters.partition_limit, message_limit=epoch.parameters.message_limit)
    return {who: records for who, records in by_publisher.items() if may_be_full(records, budget)}
