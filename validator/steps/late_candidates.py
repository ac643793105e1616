"""Candidates of late sets: valid messages that no agreed set holds, found by later pulls, sent by peers, or left out.

What a bundle's late set may hold of them follows from agreed data and the bundle's blocks, the same for everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from validator.log import get_logger
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.codec.outcome import decode_observation, set_root
from validator.protocol.columns import MessageSet, Row, row_of
from validator.protocol.consensus.proposal import Span
from validator.protocol.consensus.window import Budget, Spending, unite
from validator.protocol.errors import TransientError, ValidatorError
from validator.protocol.joining import lacking
from validator.protocol.model import (
    Digest,
    Flag,
    InstanceId,
    InstanceKind,
    Record,
    StreamPart,
)
from validator.steps.agreed import load_outcome
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle, system_stream
from validator.steps.permissions import admission_or_silence, admits_record

log = get_logger(__name__)

LATE_BATCH = 2_000
"""Messages that become candidates together."""


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


def keep_left_out(context: Context, instance: InstanceId, held: MessageSet) -> None:
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
    sets = context.store.sets
    try:
        left = 0
        lacking_leaves = _left_out(sets.open_set(observed), held)
        while leaves := list(islice(lacking_leaves, LATE_BATCH)):
            keep_late(context, [record_from_canonical(data) for data in sets.load_messages(observed, leaves) or ()])
            left += len(leaves)
    except TransientError:
        if sets.has_set(observed):
            raise
        context.store.windows.forget_etags(instance.number)
        return
    if left:
        log.info("window.left_out", window=instance.number, messages=left)


def _left_out(seen: MessageSet, held: MessageSet) -> Iterator[Digest]:
    """Leaves of what one set holds and the other does not, by identity."""
    roots = {entry.stream_part: entry.root for entry in held.entries}
    for entry in seen.entries:
        part = entry.stream_part
        if roots.get(part) != entry.root:
            yield from (row.leaf for row, instead in lacking(seen.pages(part), held.pages(part)) if instead is None)


def late_candidates(context: Context, number: int) -> list[Record]:
    """What the late set of a bundle may hold of what we have, as the bundle's blocks say: one variant per identity."""
    bundle = require_bundle(context.store, number)
    config = context.cut_points.epoch_config(bundle.epoch)
    span = Span.of_late_set(bundle.end_ms, config.parameters)
    instance = InstanceId(InstanceKind.LATE, number)
    behind = behind_full_entry(context)
    admits = admission_or_silence(context, instance)
    records = context.store.archive.load_late(span.from_ms, span.until_ms)
    union = unite([r for r in records if admits_record(admits, r)], {})
    return [r for r in union.records if not behind(row_of(r))]


def behind_full_entry(context: Context) -> Callable[[Row], bool]:
    """Whether a message sorts after the end of a full entry of its own window (then the window has cut it).

    The system stream's limit holds per publisher, so there only the publisher's own messages count.
    """
    entries: dict[tuple[int, StreamPart], Spending | None] = {}

    def behind(row: Row) -> bool:
        window = context.network.window_at(row.timestamp_ms)
        if window is None:
            return False
        key = (window.start_ms, row.stream_part)
        if key not in entries:
            entries[key] = _full_entry(context, *key)
        spending = entries[key]
        if spending is None:
            return False
        limit = spending.limit_of(row.publisher_id)
        last = spending.last(limit)
        if spending.budget.per_publisher and (last is None or not spending.has_no_room(limit)):
            return False
        return last is None or row.order > last.order

    return behind


def _full_entry(context: Context, start_ms: int, part: StreamPart) -> Spending | None:
    """What the messages of a full entry use; None if it is not full."""
    outcome = load_outcome(context, InstanceId(InstanceKind.WINDOW, start_ms))
    entry = next((e for e in outcome.entries if e.stream_part == part), None) if outcome is not None else None
    epoch = context.network.epoch_at(start_ms)
    if outcome is None or entry is None or Flag.FULL not in entry.flags or epoch is None:
        return None
    parameters = epoch.parameters
    per_publisher = part[0] == system_stream(context.network)
    limit = parameters.partition_limit if per_publisher else entry.signed_bytes
    spending = Spending(Budget(limit, per_publisher, parameters.message_limit))
    spending.take_all(entry, context.store.sets.open_set(set_root(outcome.entries)).pages(part))
    return spending
