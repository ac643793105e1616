"""Pulling a window from every live broker: what they serve now, checked at the window's block.

After the cut-off at a recent block too, since a late message may be admitted by a later block; what is found then is a
candidate of a late set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from validator.log import get_logger
from validator.ports.queue import Ending, NotYet, StepResult
from validator.ports.sources import Broker, Pull
from validator.ports.stored import StoredWindow
from validator.protocol.codec.outcome import part_order
from validator.protocol.consensus.proposal import Span
from validator.protocol.errors import TransientError
from validator.protocol.model import (
    Address,
    ChainState,
    Reason,
    Record,
    StreamPart,
    Window,
)
from validator.protocol.parameters import Epoch
from validator.steps.context import Context
from validator.steps.late_candidates import keep_late
from validator.steps.permissions import AtBlock, recent_block
from validator.steps.pruned import is_pruned
from validator.steps.window_buffer import WindowBuffer

log = get_logger(__name__)

PULL_DEADLINE_MS = 10_000
PULL_SHARE = 20
"""A long window's pull may take this part of its length, where that is more."""
LATE_BATCH = 2_000


@contextmanager
def pulled(
    context: Context, window: Window, epoch: Epoch, *, later: bool = False
) -> Iterator[tuple[ChainState, list[Pull], WindowBuffer]]:
    """Everything that brokers serve of a window now, checked at its block.

    ``later``: after the cut-off's pull; then what has not changed since need not be served again.
    """
    parameters = epoch.parameters
    block = context.cut_points.block_for(window.start_ms, parameters)
    state = context.cut_points.state_at(block)
    at = [AtBlock(context, block, parameters)]
    if later:
        at.append(AtBlock(context, *recent_block(context)))  # a late message may be admitted by a later block too
    parts = {part for one in at for part in one.budgets}
    with WindowBuffer(context.data_dir / "scratch", parts) as buffer:
        pulls = _pull(context, state, window, parts, buffer, later=later)
        buffer.check(
            Span.of_window(window),
            lambda stream_id, publisher: any(one.permitted(stream_id, publisher) for one in at),
            lambda record: any(one.contract_check(record) for one in at),
            message_limit=parameters.message_limit,
        )
        yield state, pulls, buffer


def pull_late(context: Context, stored: StoredWindow) -> StepResult:
    """Pull a window once more: what is new is a candidate of a late set. Without a word where nothing can be checked.

    Raises:
        NotYet: the cut-off has not passed by clock and chain, or ``B`` is not finalised.
    """
    window, start_ms = stored.window, stored.window.start_ms
    epoch = context.network.epoch(stored.epoch)
    assert epoch is not None
    require_cut_off(context, window, epoch)
    try:
        with pulled(context, window, epoch, later=True) as (_, pulls, buffer):
            count_refusals(buffer.refusals())
            context.store.windows.save_rejections(start_ms, buffer.rejections)
            late = _keep_late_of(context, buffer)
            save_etags(context, start_ms, pulls, buffer)
        return StepResult(Ending.PULLED, f"{late} late messages")
    except TransientError as error:
        if not is_pruned(error):
            raise
        return StepResult(Ending.PRUNED, str(error))


def pull_again(context: Context, stored: StoredWindow) -> list[Record]:
    """Every valid message that brokers have of a window now, variants too, for who has lost a set of it."""
    epoch = context.network.epoch(stored.epoch)
    assert epoch is not None
    with pulled(context, stored.window, epoch) as (_, _, buffer):
        return [load() for _, load in buffer.identities()]


def require_cut_off(context: Context, window: Window, epoch: Epoch) -> None:
    """Own clock >= window end + grace, and a block with timestamp >= window end. Raises NotYet."""
    due_ms = window.end_ms + epoch.parameters.grace_ms
    if context.clock.now_ms() < due_ms:
        raise NotYet("the cut-off lies ahead", wake_ms=due_ms)
    heads = context.store.chain.load_head()
    if heads is None or heads[0].timestamp_s * 1000 < window.end_ms:
        raise NotYet("the chain shows no block at or after the window's end")


def _keep_late_of(context: Context, buffer: WindowBuffer) -> int:
    """``keep_late`` of a whole window, in batches; only what no agreed set holds is read again. Returns how many."""
    count = 0
    records = buffer.identities()
    while batch := list(islice(records, LATE_BATCH)):
        stored = context.store.archive.stored_identities([identity for identity, _ in batch])
        count += len(keep_late(context, [load() for identity, load in batch if identity not in stored]))
    return count


def _pull(
    context: Context,
    state: ChainState,
    window: Window,
    parts: Iterable[StreamPart],
    buffer: WindowBuffer,
    *,
    later: bool,
) -> list[Pull]:
    """Everything that brokers serve goes into ``buffer``."""
    brokers = [Broker(node.address, node.http_url) for node in state.brokers if node.http_url is not None]
    ordered = sorted(parts, key=part_order)
    etags: Mapping[tuple[Address, StreamPart], str] = context.store.windows.load_etags(window.start_ms) if later else {}
    until_ms = context.clock.now_ms() + max(PULL_DEADLINE_MS, (window.end_ms - window.start_ms) // PULL_SHARE)
    return context.source.stream_window(brokers, ordered, window, buffer.ingest, etags=etags, deadline_ms=until_ms)


def save_etags(context: Context, start_ms: int, pulls: Sequence[Pull], buffer: WindowBuffer) -> None:
    """After what was pulled is durable: the next pull is told "unchanged", and never hears of it again.

    So not where a message was refused that a later block may admit.
    """
    again = buffer.refused_parts(Reason.NOT_PERMITTED)
    context.store.windows.save_etags(
        start_ms,
        {(p.broker, p.stream_part): p.etag for p in pulls if p.complete and p.etag and p.stream_part not in again},
    )


def count_refusals(refusals: Mapping[tuple[Address, str], int]) -> None:
    """What brokers served and was refused, by reason, into the metrics."""
    from validator import metrics  # made where they are counted: the folder is known by then

    for (broker, reason), count in refusals.items():
        metrics.pull_refused.labels(f"0x{broker.hex()}", reason).inc(count)
