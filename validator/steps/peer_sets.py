"""One member's set, from what is ours and what it has more, checked like broker data.

Compared by one reconciliation session over the partitions that differ; what is missing is fetched in pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from validator.log import get_logger
from validator.ports.queue import NotYet
from validator.protocol.codec.outcome import set_root
from validator.protocol.consensus.window import group_by_part, make_entries, make_entry
from validator.protocol.errors import Disagreement
from validator.protocol.model import Address, InstanceId, InstanceKind, Record, Root
from validator.steps.admission import check_canonical
from validator.steps.agreed import load_outcome
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle
from validator.steps.permissions import admission_to
from validator.steps.reconcile import OwnIndex, difference

log = get_logger(__name__)


def fetch_set(
    context: Context, instance: InstanceId, root: Root, member: Address, own: Sequence[Record], *, proven: bool = False
) -> list[Record]:
    """One member's set, from what is ours and what it has more.

    Raises:
        Disagreement: what the member sent does not give the root, or does not pass our checks.
    """
    parts = group_by_part(own)
    index = {
        part: (make_entry(part, members), [(r.message.timestamp_ms, r.leaf) for r in members])
        for part, members in parts.items()
    }
    proven = proven or _is_certified(context, instance, root)
    with context.asking.session_with(member) as expired:
        return _fetch_set(context, instance, root, member, own, index, expired, proven=proven)


def _fetch_set(
    context: Context,
    instance: InstanceId,
    root: Root,
    member: Address,
    own: Sequence[Record],
    index: OwnIndex,
    expired: Callable[[], bool],
    *,
    proven: bool,
) -> list[Record]:
    for strong in (False, True):
        found = difference(context.peers, member, root, index, strong=strong, expired=expired)
        fetched = context.peers.fetch_messages(member, root, found.need) if found.need else []
        records = _check(context, instance, member, fetched, proven=proven)
        have = set(found.have)
        merged = [r for r in own if r.leaf not in have] + records
        merged.sort(key=lambda r: r.order)
        if set_root(make_entries(merged)) == root:
            log.info("set.obtained", instance=str(instance), member=member, fetched=len(fetched), of=len(merged))
            return merged
    raise Disagreement(f"the set of 0x{member.hex()} does not give its root", member=member, root=root)


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
    return [record for record in checked.records.values() if admits(record)]


def _bounds(context: Context, instance: InstanceId) -> tuple[int, int]:
    if instance.kind is InstanceKind.WINDOW:
        window = context.network.window(instance.number)
        if window is None:
            raise NotYet(f"no window starts at {instance.number}")
        return window.start_ms, window.end_ms
    bundle = require_bundle(context.store, instance.number)
    reach = context.cut_points.instance_config(instance).parameters.late_reach_ms
    return max(0, bundle.end_ms - reach), bundle.end_ms
