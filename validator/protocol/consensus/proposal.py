"""What a leader proposes and what the others ask of it: medians, flags, validity, acceptability. Pure.

*Valid* is a function of bytes, the same for all: outcome, used observations, the messages behind the root.
*Acceptable* is what this validator holds against a fresh proposal: chain state, own observed set, variants.
Both answer YES, NO or NOT_YET; a caller asks again when data arrives.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import Enum

from validator.protocol.codec.outcome import entries_root, part_order
from validator.protocol.columns import (
    MessageSet,
    Page,
    Row,
    all_pages,
    contract_signed_rows,
    make_entry,
)
from validator.protocol.consensus.window import Budget, Spending
from validator.protocol.joining import Survey, lacking
from validator.protocol.model import (
    Address,
    Block,
    BrokerShare,
    Digest,
    Flag,
    Identity,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    PartitionEntry,
    StreamPart,
    Window,
)
from validator.protocol.parameters import ParameterSet
from validator.protocol.quorum import faulty, one_honest, quorum


class Answer(Enum):
    YES = "yes"
    NO = "no"
    NOT_YET = "not yet"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer with its reason, for logs and the status page."""

    answer: Answer
    reason: str = ""

    def __bool__(self) -> bool:
        raise TypeError("compare .answer: a verdict has three values")


YES = Verdict(Answer.YES)


def no(reason: str) -> Verdict:
    return Verdict(Answer.NO, reason)


def not_yet(reason: str) -> Verdict:
    return Verdict(Answer.NOT_YET, reason)


@dataclass(frozen=True, slots=True)
class Scope:
    """What the chain says of a window at its block: the block, and each partition in scope with its budget."""

    block: Block
    budgets: Mapping[StreamPart, Budget]


@dataclass(frozen=True, slots=True)
class Span:
    """Timestamps an instance may hold: [from_ms, until_ms), and for a late set what is already stored."""

    from_ms: int
    until_ms: int

    @classmethod
    def of_window(cls, window: Window) -> Span:
        return cls(window.start_ms, window.end_ms)

    @classmethod
    def of_late_set(cls, bundle_end_ms: int, parameters: ParameterSet) -> Span:
        return cls(max(0, bundle_end_ms - parameters.late_reach_ms), bundle_end_ms)

    def __contains__(self, timestamp_ms: int) -> bool:
        return self.from_ms <= timestamp_ms < self.until_ms


# --- medians --------------------------------------------------------------------------------------


def lower_median(values: Sequence[int]) -> int:
    """Element (k - 1) // 2 of the k sorted values."""
    return sorted(values)[(len(values) - 1) // 2]


def median_price(used: Sequence[Observation], n: int, parameters: ParameterSet) -> int:
    """Lower median of the prices if at least 2f + 1 used observations have one, else ``price_default``; clamped."""
    prices = [o.price for o in used if o.price is not None]
    price = lower_median(prices) if len(prices) >= 2 * faulty(n) + 1 else parameters.price_default
    return min(max(price, parameters.price_min), parameters.price_max)


def median_shares(used: Sequence[Observation], signed_bytes: int) -> tuple[BrokerShare, ...]:
    """Lower medians of served and missed per broker over all used observations; absent counts as 0."""
    served: dict[Address, list[int]] = defaultdict(list)
    missed: dict[Address, list[int]] = defaultdict(list)
    for observation in used:
        for share in observation.shares:
            served[share.broker].append(min(share.served, signed_bytes))
            missed[share.broker].append(min(share.missed, signed_bytes))
    result = []
    for broker in sorted(served):
        absent = [0] * (len(used) - len(served[broker]))
        share = BrokerShare(broker, lower_median(served[broker] + absent), lower_median(missed[broker] + absent))
        if share.served or share.missed:
            result.append(share)
    return tuple(result)


def incomplete_parts(used: Sequence[Observation], n: int) -> frozenset[StreamPart]:
    """Partitions that fewer than one_honest(n) of the used observations had complete."""
    listed = Counter(part for o in used for part in o.incomplete)
    return frozenset(part for part, times in listed.items() if len(used) - times < one_honest(n))


def contract_signed(used: Sequence[Observation], n: int) -> frozenset[Digest]:
    """ERC-1271 digests that one_honest(n) of the used observations found valid."""
    listed = Counter(d for o in used for d in o.erc1271)
    return frozenset(d for d, times in listed.items() if times >= one_honest(n))


# --- building -------------------------------------------------------------------------------------


class Draft:
    """An outcome that a leader builds while its messages go by: read ``pages`` to the end, then ask for ``outcome``.

    A window has one entry per partition in scope, empty ones too; a late set only those that hold something.
    ``full_ends`` says of a late message whether it sorts behind the end of a full entry of its own window.
    """

    def __init__(
        self,
        instance: InstanceId,
        scope: Scope,
        used: Mapping[Digest, Observation],
        n: int,
        parameters: ParameterSet,
        full_ends: Callable[[Row], bool] | None = None,
    ) -> None:
        self._instance = instance
        self._scope = scope
        self._used = used
        self._n = n
        self._parameters = parameters
        self._full_ends = full_ends
        self._allowed = contract_signed(list(used.values()), n)
        self._survey = Survey()
        self._flags: dict[StreamPart, Flag] = defaultdict(lambda: Flag(0))

    def pages(self, parts: Iterable[tuple[StreamPart, Iterable[tuple[Page, bool]]]]) -> Iterator[Page]:
        """What is kept of the union, which comes by partition in canonical order (``joining.unite_pages``)."""
        for part, united in parts:
            if part not in self._scope.budgets:
                continue
            spending = Spending(self._scope.budgets[part])
            for page, varied in united:
                if varied:
                    self._flags[part] |= Flag.VARIANTS
                candidates = self._candidates(page)
                kept = spending.take(candidates) if candidates is not None else None
                if kept is not None:
                    self._survey.add(kept)
                    yield kept
            if spending.full:
                self._flags[part] |= Flag.FULL
        self._survey.close()

    def _candidates(self, page: Page) -> Page | None:
        """Without contract signatures that too few observers found valid, and what a window has cut."""
        digests = page.list_digests()
        refused = {at for at in contract_signed_rows(page) if digests[at] not in self._allowed}
        counting = page.keep([at not in refused for at in range(len(page))])
        if counting is None or self._full_ends is None:
            return counting
        return counting.keep([not self._full_ends(row) for row in counting.rows()])

    def outcome(self, held: Sequence[PartitionEntry]) -> Outcome:
        """``held``: the entries of what was kept, flags zero."""
        used = list(self._used.values())
        late = self._instance.kind is InstanceKind.LATE
        totals = {entry.stream_part: entry for entry in held}
        incomplete = incomplete_parts(used, self._n)
        entries = []
        for part in sorted(self._scope.budgets, key=part_order):
            if late and part not in totals:
                continue
            flags = self._flags[part]
            if part in incomplete:
                flags |= Flag.INCOMPLETE
            if part in self._survey.equivocated:
                flags |= Flag.EQUIVOCATION
            entries.append(replace(totals.get(part) or make_entry(part, []), flags=flags))
        return Outcome(
            instance=self._instance,
            block_number=self._scope.block.number,
            block_hash=self._scope.block.hash,
            entries=tuple(entries),
            root=entries_root(entries),
            price=0 if late else median_price(used, self._n, self._parameters),
            shares=() if late else median_shares(used, sum(e.signed_bytes for e in entries)),
            observations=tuple(sorted(self._used)),
            evidence=self._survey.evidence(self._parameters.evidence_limit),
            evidence_count=len(self._survey.equivocations),
        )


# --- judging --------------------------------------------------------------------------------------


def judge_validity(
    outcome: Outcome,
    used: Mapping[Digest, Observation],
    messages: MessageSet,
    span: Span,
    n: int,
    parameters: ParameterSet,
) -> Verdict:
    """Whether the outcome follows from bytes alone.

    ``used`` are the observations it names that are held, each with a genuine statement of its observer (the caller's
    duty), whatever else that member has signed: were a third observation of a liar refused here, what is known of the
    liar would differ from member to member, and no proposal would suit all. ``messages`` are all behind the root,
    well-formed and signed (the caller's duty too).
    """
    verdict = _judge_used(outcome, used, n)
    if verdict.answer is not Answer.YES:
        return verdict
    observations = [used[d] for d in outcome.observations]
    verdict = _judge_messages(outcome, observations, messages, span, n, parameters)
    if verdict.answer is not Answer.YES:
        return verdict
    if outcome.instance.kind is InstanceKind.LATE:
        if outcome.price or outcome.shares:
            return no("a late set has no price and no shares")
        return YES
    if outcome.price != median_price(observations, n, parameters):
        return no("price is not the median")
    if outcome.shares != median_shares(observations, outcome.signed_bytes):
        return no("broker shares are not the medians")
    return YES


def _judge_used(outcome: Outcome, used: Mapping[Digest, Observation], n: int) -> Verdict:
    """Whether the observations it names are a quorum of different members', of its instance."""
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
    return YES


def _judge_messages(
    outcome: Outcome,
    observations: Sequence[Observation],
    messages: MessageSet,
    span: Span,
    n: int,
    parameters: ParameterSet,
) -> Verdict:
    """Whether entries, flags and evidence follow from the messages, and these may stand in the instance."""
    totals = {entry.stream_part: entry for entry in messages.entries}
    if set(totals) - {e.stream_part for e in outcome.entries}:
        return no("a message has no entry")
    for entry in outcome.entries:
        plain = totals.get(entry.stream_part) or make_entry(entry.stream_part, [])
        if replace(plain, flags=entry.flags) != entry:
            return no(f"entry {entry.stream_id}#{entry.partition} does not follow from its messages")
    survey = Survey()
    for page in all_pages(messages):
        survey.add(page)
    survey.close()
    if any(time_ms not in span for time_ms in survey.span_ms):
        return no("a message lies outside the window")
    if survey.twice:
        return no("an identity stands twice")
    found = (survey.evidence(parameters.evidence_limit), len(survey.equivocations))
    if found != (outcome.evidence, outcome.evidence_count):
        return no("evidence does not follow from the messages")
    incomplete = incomplete_parts(observations, n)
    for entry in outcome.entries:
        if (Flag.EQUIVOCATION in entry.flags) != (entry.stream_part in survey.equivocated):
            return no("flag equivocation does not follow from the messages")
        if (Flag.INCOMPLETE in entry.flags) != (entry.stream_part in incomplete):
            return no("flag incomplete does not follow from the observations")
    if survey.contract_signed - contract_signed(observations, n):
        return no("a contract signature that too few observers found valid")
    return YES


Seen = Callable[[StreamPart], tuple[Iterable[Row], bool]]
"""Messages of a partition in the sets of used observations that are here, and whether these are all of the sets."""


def judge_acceptability(
    outcome: Outcome,
    messages: MessageSet,
    scope: Scope | None,
    own: MessageSet,
    *,
    worse_variant: Callable[[Row, Row], bool] | None,
    counts: Callable[[Row], bool] | None = None,
    stored: Set[Identity] | None = None,
    behind_full: Callable[[Row], bool] | None = None,
    admits: Callable[[Page], bool] | None = None,
    seen: Seen | None = None,
) -> Verdict:
    """Whether a fresh proposal may be prevoted by this validator.

    ``scope`` is what the own chain says (None: not known yet); ``own`` the frozen observed set, of which is asked what
    ``counts``. ``worse_variant(theirs, ours)`` ranks two variants, None from round n on. For late sets ``stored`` are
    the identities among ``messages`` that an agreed set already holds, None if that is not known yet. ``admits`` says
    whether scope and permission let all messages of a page in, also where the set was held for another reason.
    ``seen``: see ``_judge_cut``; without it only what was observed here justifies that something was cut.
    """
    if scope is None:
        return not_yet("chain state at B is not known")
    if (outcome.block_number, outcome.block_hash) != (scope.block.number, scope.block.hash):
        return no("block is not the one this validator reads")
    verdict = _judge_scope(outcome, scope, stored)
    if verdict.answer is not Answer.YES:
        return verdict
    if admits is not None and not all(admits(page) for page in all_pages(messages)):
        return no("a message that the chain does not admit")
    if behind_full is not None and any(behind_full(row) for page in all_pages(messages) for row in page.rows()):
        return no("a message sorts behind the end of a full entry of its window")
    ours = {entry.stream_part: entry for entry in own.entries}
    for entry in outcome.entries:
        part = entry.stream_part
        different = part in ours and ours[part].root != entry.root
        lacks = lacking(own.pages(part), messages.pages(part)) if different else ()
        asked = (pair for pair in lacks if counts is None or counts(pair[0]))
        verdict = _judge_entry(entry, messages, asked, scope.budgets[part], worse_variant, seen)
        if verdict.answer is not Answer.YES:
            return verdict
    if outcome.instance.kind is InstanceKind.LATE:
        return _judge_left_out(outcome, scope, own, counts, seen)
    return YES


def _judge_scope(outcome: Outcome, scope: Scope, stored: Set[Identity] | None) -> Verdict:
    """Whether it has the entries that it should, and for a late set nothing that is stored already."""
    late = outcome.instance.kind is InstanceKind.LATE
    named = {e.stream_part for e in outcome.entries}
    if named - set(scope.budgets) or (not late and set(scope.budgets) - named):
        return no("entries are not the partitions in scope")
    if late and not all(e.count for e in outcome.entries):
        return no("an entry of a late set holds nothing")
    if late and stored is None:
        return not_yet("identities of earlier sets are not all known")
    return no("a message is already in an agreed set") if stored else YES


def _judge_left_out(
    outcome: Outcome, scope: Scope, own: MessageSet, counts: Callable[[Row], bool] | None, seen: Seen | None
) -> Verdict:
    """Whether a late set may lack whole entries for what was observed here."""
    named = {e.stream_part for e in outcome.entries}
    for part in (entry.stream_part for entry in own.entries):
        if part in scope.budgets and part not in named:
            spending = Spending(scope.budgets[part])
            rows = (row for page in own.pages(part) for row in page.rows() if counts is None or counts(row))
            verdict = _judge_cut("no entry", spending, _first_of_each(rows, spending), part, seen)
            if verdict.answer is Answer.NO:
                return no("an observed late message is not in the proposal")
            if verdict.answer is Answer.NOT_YET:
                return verdict
    return YES


def _judge_entry(
    entry: PartitionEntry,
    messages: MessageSet,
    lacks: Iterable[tuple[Row, Row | None]],
    budget: Budget,
    worse_variant: Callable[[Row, Row], bool] | None,
    seen: Seen | None,
) -> Verdict:
    """``lacks``: each message of our own that the entry lacks, with what it holds of that identity instead."""
    where = f"{entry.stream_id}#{entry.partition}"
    full = Flag.FULL in entry.flags
    spending = Spending(budget)
    spending.take_all(entry, messages.pages(entry.stream_part))
    if spending.full:
        return no(f"{where} exceeds its budget")
    if full and not spending.may_be_full():
        return no(f"{where} is marked full, yet any message would fit")
    worse = False
    count = 0
    first: dict[bytes, Row] = {}
    for row, instead in lacks:
        if instead is None:
            count += 1
            first.setdefault(spending.limit_of(row.publisher_id), row)
        elif worse_variant is not None and worse_variant(instead, row):
            worse = True
    if count and not full:
        return no(f"{where} lacks {count} observed messages")
    verdict = _judge_cut(where, spending, first, entry.stream_part, seen)
    if verdict.answer is not Answer.YES:
        return verdict
    return no(f"{where} holds a worse variant") if worse else YES


def _first_of_each(rows: Iterable[Row], spending: Spending) -> dict[bytes, Row]:
    """Of rows in canonical order the first under each limit."""
    first: dict[bytes, Row] = {}
    for row in rows:
        first.setdefault(spending.limit_of(row.publisher_id), row)
    return first


def _judge_cut(
    where: str,
    spending: Spending,
    missing: Mapping[bytes, Row],
    part: StreamPart,
    seen: Seen | None,
) -> Verdict:
    """Whether observed messages may be missing from a full entry, or from a late set without entry for them.

    An entry ends before the first message of the leader's union that does not fit. Nothing behind its end is asked,
    though it would fit itself: two members whose own messages fit, and fit no longer together, would block each other
    for ever, and one that shows a large message to leaders alone would block everybody. But that first message has to
    be shown: it is a missing one of our own, or it stands before that in the set of an observation the proposal
    names; else whoever leads could drop what a small budget holds. "Not yet" while such sets are not all here.

    ``spending``: the entry's; ``missing``: under each limit the first message that it lacks.
    """
    budget = spending.budget
    for limit, first in missing.items():
        last = spending.last(limit)
        if last is not None and first.order < last.order:
            return no(f"{where} lacks an observed message before the end of the full entry")
        room = budget.limit - spending.spent.get(limit, 0)
        if first.signed_bytes > room:
            continue
        others, complete = seen(part) if seen is not None else ((), True)
        if not any(
            row.order < first.order and (last is None or row.order > last.order) and row.signed_bytes > room
            for row in others
            if spending.limit_of(row.publisher_id) == limit
        ):
            reason = f"{where} is marked full, yet an observed message fits"
            return no(reason) if complete else not_yet(reason)
    return YES
