"""What columns must agree with: proposals built and judged over records in memory, one object for each message."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set

from validator.protocol.codec.outcome import entries_root, part_order
from validator.protocol.columns import make_entry
from validator.protocol.consensus.proposal import (
    YES,
    Answer,
    Scope,
    Span,
    Verdict,
    contract_signed,
    incomplete_parts,
    median_price,
    median_shares,
    no,
    not_yet,
)
from validator.protocol.consensus.window import Budget, Union, group_by_part
from validator.protocol.model import (
    Digest,
    Equivocation,
    Flag,
    Identity,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    PartitionEntry,
    Record,
    SignatureType,
    StreamPart,
)
from validator.protocol.parameters import ParameterSet
from validator.protocol.quorum import quorum

Seen = Callable[[StreamPart], tuple[Sequence[Record], bool]]


def cut_to_budget(records: Sequence[Record], budget: Budget) -> tuple[list[Record], bool]:
    """The longest prefix within the budget, and whether the entry is *full*.

    Full exactly if something was cut, so one more message of that size would not fit. For the system stream the
    prefix is taken per publisher.
    """
    if budget.per_publisher:
        kept: list[Record] = []
        full = False
        spent: dict[bytes, int] = defaultdict(int)
        closed: set[bytes] = set()
        for record in records:
            publisher = record.message.publisher_id
            if publisher in closed or spent[publisher] + record.signed_bytes > budget.limit:
                closed.add(publisher)
                full = True
                continue
            spent[publisher] += record.signed_bytes
            kept.append(record)
        return kept, full
    total = 0
    for index, record in enumerate(records):
        if total + record.signed_bytes > budget.limit:
            return list(records[:index]), True
        total += record.signed_bytes
    return list(records), False


def may_be_full(records: Sequence[Record], budget: Budget) -> bool:
    """Whether a message can have been cut: one of the largest would not fit (any more, of some publisher).

    A *full* mark without it would keep late messages out for ever on one leader's word.
    """
    spent: dict[bytes, int] = defaultdict(int)
    for record in records:
        spent[record.message.publisher_id if budget.per_publisher else b""] += record.signed_bytes
    return max(spent.values(), default=0) + budget.message_limit > budget.limit


def find_equivocations(records: Sequence[Record], limit: int) -> tuple[tuple[Equivocation, ...], int, set[StreamPart]]:
    """Message ids with two identities: at most ``limit`` as evidence, their number, and the partitions they are in."""
    by_id: dict[tuple[str, int, int, int, bytes, str], list[Record]] = defaultdict(list)
    for record in records:
        by_id[record.message.message_id].append(record)
    found = []
    parts = set()
    for members in by_id.values():
        if len({r.signed_digest for r in members}) > 1:
            first, second = sorted(r.leaf for r in members)[:2]
            part = members[0].message.stream_part
            parts.add(part)
            found.append(Equivocation(part[0], part[1], first, second))
    found.sort(key=lambda e: (e.stream_id.encode(), e.partition, e.first, e.second))
    return tuple(found[:limit]), len(found), parts


def build_outcome(
    instance: InstanceId,
    scope: Scope,
    union: Union,
    used: Mapping[Digest, Observation],
    n: int,
    parameters: ParameterSet,
    full_ends: Callable[[Record], bool] | None = None,
) -> tuple[Outcome, tuple[Record, ...]]:
    """The outcome a leader proposes, and the records behind its root in canonical order.

    A window has one entry per partition in scope, empty ones too; a late set only those that hold something.
    ``full_ends`` says of a late record whether it sorts behind the end of a full entry of its own window.
    """
    allowed = contract_signed(list(used.values()), n)
    parts = group_by_part(
        r
        for r in union.records
        if r.message.stream_part in scope.budgets
        and (r.message.signature_type is not SignatureType.ERC_1271 or r.signed_digest in allowed)
        and not (full_ends is not None and full_ends(r))
    )
    varied = {(stream, partition) for stream, partition, _, _ in union.varied}
    incomplete = incomplete_parts(list(used.values()), n)
    kept: list[Record] = []
    drafts: list[tuple[StreamPart, list[Record], Flag]] = []
    for part in sorted(scope.budgets, key=part_order):
        members, full = cut_to_budget(parts.get(part, []), scope.budgets[part])
        if not members and instance.kind is InstanceKind.LATE:
            continue
        flags = Flag(0)
        if full:
            flags |= Flag.FULL
        if part in varied:
            flags |= Flag.VARIANTS
        if part in incomplete:
            flags |= Flag.INCOMPLETE
        drafts.append((part, members, flags))
        kept += members
    evidence, evidence_count, equivocated = find_equivocations(kept, parameters.evidence_limit)
    entries = tuple(
        make_entry(part, members, flags | Flag.EQUIVOCATION if part in equivocated else flags)
        for part, members, flags in drafts
    )
    late = instance.kind is InstanceKind.LATE
    signed_bytes = sum(e.signed_bytes for e in entries)
    outcome = Outcome(
        instance=instance,
        block_number=scope.block.number,
        block_hash=scope.block.hash,
        entries=entries,
        root=entries_root(entries),
        price=0 if late else median_price(list(used.values()), n, parameters),
        shares=() if late else median_shares(list(used.values()), signed_bytes),
        observations=tuple(sorted(used)),
        evidence=evidence,
        evidence_count=evidence_count,
    )
    return outcome, tuple(kept)


def judge_validity(
    outcome: Outcome,
    used: Mapping[Digest, Observation],
    records: Sequence[Record],
    span: Span,
    n: int,
    parameters: ParameterSet,
) -> Verdict:
    """Whether the outcome follows from bytes alone.

    ``used`` are the observations it names that are held, each with a genuine statement of its observer (the caller's
    duty), whatever else that member has signed: were a third observation of a liar refused here, what is known of the
    liar would differ from member to member, and no proposal would suit all. ``records`` are all messages behind the
    root, well-formed and signed (the caller's duty too).
    """
    if len(set(outcome.observations)) != len(outcome.observations) or len(outcome.observations) < quorum(n):
        return no("fewer than a quorum of distinct observations")
    if len(outcome.observations) > n:
        return no("more observations than members")
    if set(outcome.observations) - set(used):
        return not_yet("an observation is missing")
    observations = [used[d] for d in outcome.observations]
    if any(o.instance != outcome.instance for o in observations):
        return no("an observation is of another instance")
    if len({o.observer for o in observations}) < len(observations):
        return no("two observations of one observer")
    parts = group_by_part(records)
    if set(parts) - {e.stream_part for e in outcome.entries}:
        return no("a message has no entry")
    identities: set[Identity] = set()
    for entry in outcome.entries:
        members = parts.get(entry.stream_part, [])
        plain = make_entry(entry.stream_part, members, entry.flags)
        if plain != entry:
            return no(f"entry {entry.stream_id}#{entry.partition} does not follow from its messages")
        for record in members:
            if record.message.timestamp_ms not in span:
                return no("a message lies outside the window")
            if record.identity in identities:
                return no("an identity stands twice")
            identities.add(record.identity)
    evidence, evidence_count, equivocated = find_equivocations(records, parameters.evidence_limit)
    if (evidence, evidence_count) != (outcome.evidence, outcome.evidence_count):
        return no("evidence does not follow from the messages")
    incomplete = incomplete_parts(observations, n)
    for entry in outcome.entries:
        if (Flag.EQUIVOCATION in entry.flags) != (entry.stream_part in equivocated):
            return no("flag equivocation does not follow from the messages")
        if (Flag.INCOMPLETE in entry.flags) != (entry.stream_part in incomplete):
            return no("flag incomplete does not follow from the observations")
    allowed = contract_signed(observations, n)
    if any(r.message.signature_type is SignatureType.ERC_1271 and r.signed_digest not in allowed for r in records):
        return no("a contract signature that too few observers found valid")
    if outcome.instance.kind is InstanceKind.LATE:
        if outcome.price or outcome.shares:
            return no("a late set has no price and no shares")
        return YES
    if outcome.price != median_price(observations, n, parameters):
        return no("price is not the median")
    if outcome.shares != median_shares(observations, outcome.signed_bytes):
        return no("broker shares are not the medians")
    return YES


def judge_acceptability(
    outcome: Outcome,
    records: Sequence[Record],
    scope: Scope | None,
    own: Sequence[Record],
    *,
    worse_variant: Callable[[Record, Record], bool] | None,
    stored: Set[Identity] | None = None,
    behind_full: Callable[[Record], bool] | None = None,
    admits: Callable[[Record], bool] | None = None,
    seen: Seen | None = None,
) -> Verdict:
    """Whether a fresh proposal may be prevoted by this validator.

    ``scope`` is what the own chain says (None: not known yet); ``own`` the frozen observed set.
    ``worse_variant(theirs, ours)`` ranks two variants, None from round n on. For late sets ``stored`` are the
    identities among ``records`` that an agreed set already holds, None if that is not known yet. ``admits`` says
    whether scope and permission let a message in, also where the set was held for another reason. ``seen``: see
    ``_judge_cut``; without it only what was observed here justifies that something was cut.
    """
    if scope is None:
        return not_yet("chain state at B is not known")
    if (outcome.block_number, outcome.block_hash) != (scope.block.number, scope.block.hash):
        return no("block is not the one this validator reads")
    late = outcome.instance.kind is InstanceKind.LATE
    named = {e.stream_part for e in outcome.entries}
    if named - set(scope.budgets) or (not late and set(scope.budgets) - named):
        return no("entries are not the partitions in scope")
    if late and not all(e.count for e in outcome.entries):
        return no("an entry of a late set holds nothing")
    if late and stored is None:
        return not_yet("identities of earlier sets are not all known")
    if stored:
        return no("a message is already in an agreed set")
    if admits is not None and not all(admits(r) for r in records):
        return no("a message that the chain does not admit")
    if behind_full is not None and any(behind_full(r) for r in records):
        return no("a message sorts behind the end of a full entry of its window")
    parts = group_by_part(records)
    own_parts = group_by_part(own)
    for entry in outcome.entries:
        part = entry.stream_part
        verdict = _judge_entry(
            entry, parts.get(part, []), own_parts.get(part, []), scope.budgets[part], worse_variant, seen
        )
        if verdict.answer is not Answer.YES:
            return verdict
    if late:
        for part, lacking in own_parts.items():
            if part in scope.budgets and part not in named:
                verdict = _judge_cut("no entry", [], lacking, scope.budgets[part], part, seen)
                if verdict.answer is Answer.NO:
                    return no("an observed late message is not in the proposal")
                if verdict.answer is Answer.NOT_YET:
                    return verdict
    return YES


def _judge_entry(
    entry: PartitionEntry,
    members: Sequence[Record],
    own: Sequence[Record],
    budget: Budget,
    worse_variant: Callable[[Record, Record], bool] | None,
    seen: Seen | None,
) -> Verdict:
    where = f"{entry.stream_id}#{entry.partition}"
    full = Flag.FULL in entry.flags
    kept, _ = cut_to_budget(members, budget)
    if len(kept) != len(members):
        return no(f"{where} exceeds its budget")
    if full and not may_be_full(members, budget):
        return no(f"{where} is marked full, yet any message would fit")
    held = {r.identity: r for r in members}
    missing = [r for r in own if r.identity not in held]
    if missing and not full:
        return no(f"{where} lacks {len(missing)} observed messages")
    verdict = _judge_cut(where, members, missing, budget, entry.stream_part, seen)
    if verdict.answer is not Answer.YES:
        return verdict
    if worse_variant is not None:
        for record in own:
            theirs = held.get(record.identity)
            if theirs is not None and theirs.leaf != record.leaf and worse_variant(theirs, record):
                return no(f"{where} holds a worse variant")
    return YES


def _judge_cut(
    where: str,
    members: Sequence[Record],
    missing: Sequence[Record],
    budget: Budget,
    part: StreamPart,
    seen: Seen | None,
) -> Verdict:
    """Whether observed messages may be missing from a full entry, or from a late set without entry for them.

    An entry ends before the first message of the leader's union that does not fit. Nothing behind its end is asked,
    though it would fit itself: two members whose own messages fit, and fit no longer together, would block each other
    for ever, and one that shows a large message to leaders alone would block everybody. But that first message has to
    be shown: it is a missing one of our own, or it stands before that in the set of an observation the proposal
    names; else whoever leads could drop what a small budget holds. "Not yet" while such sets are not all here.
    """
    for publisher, lacking in _by_limit(missing, budget).items():
        kept = _by_limit(members, budget).get(publisher, [])
        spent = sum(r.signed_bytes for r in kept)
        first = lacking[0]
        if kept and first.order < kept[-1].order:
            return no(f"{where} lacks an observed message before the end of the full entry")
        if spent + first.signed_bytes > budget.limit:
            continue
        others, complete = seen(part) if seen is not None else ((), True)
        end = kept[-1].order if kept else None
        if not any(
            r.order < first.order and (end is None or r.order > end) and spent + r.signed_bytes > budget.limit
            for r in _by_limit(others, budget).get(publisher, [])
        ):
            reason = f"{where} is marked full, yet an observed message fits"
            return no(reason) if complete else not_yet(reason)
    return YES


def _by_limit(records: Sequence[Record], budget: Budget) -> dict[bytes, list[Record]]:
    """Records that share one limit, in canonical order: those of a publisher, or all."""
    groups: dict[bytes, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.order):
        groups[record.message.publisher_id if budget.per_publisher else b""].append(record)
    return groups
