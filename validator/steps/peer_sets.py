"""One member's set, from what is ours and what it has more, checked like broker data.

Compared by one reconciliation session over the partitions that differ; what is missing is fetched in pages.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from validator.log import get_logger
from validator.ports.queue import NotYet
from validator.protocol.codec.outcome import part_order, set_root
from validator.protocol.columns import MessageSet, Page, RecordSet
from validator.protocol.errors import Disagreement
from validator.protocol.joining import merge, without
from validator.protocol.model import Address, Digest, InstanceId, InstanceKind, Record, Root, StreamPart
from validator.steps.admission import check_canonical
from validator.steps.agreed import load_outcome
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle
from validator.steps.permissions import admission_to, admits_record
from validator.steps.reconcile import difference
from validator.steps.spool import Spool

log = get_logger(__name__)

FETCHED = 4_096
"""Messages that are asked for, and checked, before their objects go: some 3 kB each until then."""


def fetch_set(
    context: Context, instance: InstanceId, root: Root, member: Address, own: MessageSet, *, proven: bool = False
) -> int:
    """Save one member's set, from what is ours and what it has more; returns how many messages it has.

    Raises:
        Disagreement: what the member sent does not give the root, or does not pass our checks.
    """
    proven = proven or _is_certified(context, instance, root)
    with context.asking.session_with(member) as expired:
        for strong in (False, True):
            found = difference(context.peers, member, root, own, strong=strong, expired=expired)
            with Spool(context.data_dir / "scratch") as spool:
                fetched = _fetch(context, instance, root, member, found.need, spool, proven=proven)
                try:
                    entries = context.store.sets.save_ordered(_merged(own, set(found.have), fetched), expected=root)
                except Disagreement as error:
                    log.debug("set.other_root", instance=str(instance), member=member, reason=str(error))
                    continue
            count = sum(entry.count for entry in entries)
            log.info("set.obtained", instance=str(instance), member=member, fetched=len(found.need), of=count)
            return count
    raise Disagreement(f"the set of 0x{member.hex()} does not give its root", member=member, root=root)


Fetched = Mapping[StreamPart, Sequence[Sequence[Page]]]
"""By partition the pages of each batch that was fetched, in canonical order."""


def _fetch(
    context: Context,
    instance: InstanceId,
    root: Root,
    member: Address,
    need: Sequence[Digest],
    spool: Spool,
    *,
    proven: bool,
) -> Fetched:
    """Messages of a member that pass our checks. Their bytes go into ``spool``, their columns stay in memory."""
    fetched: dict[StreamPart, list[list[Page]]] = defaultdict(list)
    for start in range(0, len(need), FETCHED):
        items = context.peers.fetch_messages(member, root, need[start : start + FETCHED])
        batch = RecordSet(_check(context, instance, member, items, proven=proven))
        for entry in batch.entries:
            fetched[entry.stream_part].append([_put_down(page, spool) for page in batch.pages(entry.stream_part)])
    return fetched


def _put_down(page: Page, spool: Spool) -> Page:
    """The page with its canonical bytes in the spool."""

    def read(places: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        return [spool.read(place, size) for place, size in zip(places, sizes, strict=True)]

    start = spool.append(b"".join(page.canonical()))
    return replace(page, places=array("Q", accumulate(page.sizes, initial=start))[:-1], read=read)


def _merged(own: MessageSet, have: set[Digest], fetched: Fetched) -> Iterator[Page]:
    """Our set without what the member lacks, and with what it has more, in canonical order."""
    for part in sorted({entry.stream_part for entry in own.entries} | set(fetched), key=part_order):
        kept = without(own.pages(part), have) if have else own.pages(part)
        yield from merge([kept, *fetched.get(part, ())])


def _is_certified(context: Context, instance: InstanceId, root: Root) -> bool:
    """Whether a certificate says that this very set is the instance's, for who has lost it and mends it."""
    outcome = load_outcome(context, instance)
    return outcome is not None and set_root(outcome.entries) == root


def _any(_record: Record) -> bool:
    return True


def _anywhere(_stream_id: str, _publisher: bytes) -> bool:
    return True


def _check(
    context: Context, instance: InstanceId, member: Address, items: Sequence[bytes], *, proven: bool
) -> list[Record]:
    """The checks of broker data; of a proven value those by bytes alone, the rest would judge it a second time.

    Contract signatures: the observations say which are valid, not what a contract tells us.
    """
    if not items:
        return []
    limit = context.cut_points.instance_config(instance).parameters.message_limit
    if proven:
        return list(check_canonical(items, member, _any, _anywhere, _any, message_limit=limit).records.values())
    from_ms, until_ms = _bounds(context, instance)
    checked = check_canonical(
        items,
        member,
        lambda r: from_ms <= r.message.timestamp_ms < until_ms,
        _anywhere,
        _any,
        message_limit=limit,
    )
    if checked.rejections:
        window_ms = instance.number if instance.kind is InstanceKind.WINDOW else from_ms
        context.store.windows.save_rejections(window_ms, checked.rejections)
    admits = admission_to(context, instance)
    return [record for record in checked.records.values() if admits_record(admits, record)]


def _bounds(context: Context, instance: InstanceId) -> tuple[int, int]:
    if instance.kind is InstanceKind.WINDOW:
        window = context.network.window(instance.number)
        if window is None:
            raise NotYet(f"no window starts at {instance.number}")
        return window.start_ms, window.end_ms
    bundle = require_bundle(context.store, instance.number)
    reach = context.cut_points.instance_config(instance).parameters.late_reach_ms
    return max(0, bundle.end_ms - reach), bundle.end_ms
