"""What a leader proposes, and what the others hold against it: medians, flags, validity, acceptability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from msgspec import structs

from tests.builders import GENESIS_MS, a_key, a_p256_message, a_record, a_stream_id, some_records
from tests.outcomes_in_memory import build_outcome
from validator.protocol.codec.message import make_record
from validator.protocol.codec.outcome import decode_outcome, encode_outcome, entries_root, observation_digest, set_root
from validator.protocol.columns import RecordSet, Row, make_entry, row_of
from validator.protocol.consensus.proposal import (
    YES,
    Answer,
    Scope,
    Seen,
    Span,
    Verdict,
    contract_signed,
    incomplete_parts,
    judge_acceptability,
    judge_validity,
    lower_median,
    median_price,
    median_shares,
    no,
    not_yet,
)
from validator.protocol.consensus.window import Budget, make_entries, unite
from validator.protocol.model import (
    MIB,
    Address,
    Block,
    BrokerShare,
    Digest,
    EncryptionType,
    Equivocation,
    Flag,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    Record,
    SignatureType,
    StreamPart,
    Window,
)
from validator.protocol.parameters import ParameterSet

N = 4
PARAMETERS = ParameterSet(
    first_epoch=0, epoch_windows=100, window_ms=1_000, price_min=10, price_max=1_000, price_default=100
)
WINDOW = Window(GENESIS_MS, GENESIS_MS + 1_000)
INSTANCE = InstanceId(InstanceKind.WINDOW, GENESIS_MS)
LATE = InstanceId(InstanceKind.LATE, 3)
BLOCK = Block(9, Digest(b"\x09" * 32), 1)
PART: StreamPart = (a_stream_id(), 0)
EMPTY_PART: StreamPart = (a_stream_id(), 1)
SPAN = Span.of_window(WINDOW)
ONE, TWO = Address(b"\x01" * 20), Address(b"\x02" * 20)


def an_observation(number: int, records: Sequence[Record] = (), **fields: Any) -> Observation:
    """Distinct for distinct numbers: price and observer tell them apart."""
    values: dict[str, Any] = {
        "instance": INSTANCE,
        "set_root": set_root(make_entries(records)),
        "count": len(records),
        "signed_bytes": sum(r.signed_bytes for r in records),
        "price": 100 + number,
        "observer": Address(bytes([number + 1]) * 20),
    }
    return Observation(**{**values, **fields})


def named(observations: Sequence[Observation]) -> dict[Digest, Observation]:
    return {observation_digest(o): o for o in observations}


@dataclass(frozen=True, slots=True)
class Case:
    """A proposal as its leader built it, and what everybody else needs to judge it."""

    outcome: Outcome
    records: tuple[Record, ...]
    used: Mapping[Digest, Observation]
    scope: Scope
    span: Span = SPAN

    def validity(self, **changed: Any) -> Verdict:
        arguments = {"outcome": self.outcome, "used": self.used, "records": self.records, "span": self.span, **changed}
        messages = RecordSet(arguments.pop("records"))
        return judge_validity(**arguments, messages=messages, n=N, parameters=PARAMETERS)

    def acceptability(self, own: Sequence[Record] | None = None, **changed: Any) -> Verdict:
        late = self.outcome.instance.kind is InstanceKind.LATE
        arguments: dict[str, Any] = {
            "outcome": self.outcome,
            "messages": RecordSet(self.records),
            "scope": self.scope,
            "own": RecordSet(self.records if own is None else own),
            "worse_variant": None,
            "stored": set() if late else None,
        }
        return judge_acceptability(**{**arguments, **changed})


def seen_as(records: Sequence[Record], complete: bool) -> Seen:
    """Used observations hold these, of whatever partition."""
    return lambda _part: (map(row_of, records), complete)


def a_case(
    records: Sequence[Record] | None = None,
    *,
    budget: Budget = Budget(MIB, message_limit=1_000),
    observations: Sequence[Observation] | None = None,
    instance: InstanceId = INSTANCE,
    full_ends: Callable[[Row], bool] | None = None,
) -> Case:
    members = some_records(3) if records is None else list(records)
    seen = [an_observation(i, members, instance=instance) for i in range(3)] if observations is None else observations
    scope = Scope(BLOCK, {PART: budget, EMPTY_PART: budget})
    outcome, kept = build_outcome(instance, scope, unite(members, {}), named(seen), N, PARAMETERS, full_ends)
    return Case(outcome, kept, named(seen), scope)


def rebuilt(outcome: Outcome, entries: Sequence[Any]) -> Outcome:
    return replace(outcome, entries=tuple(entries), root=entries_root(entries))


# --- medians --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"), [([5], 5), ([9, 1], 1), ([3, 1, 2], 2), ([4, 1, 3, 2], 2), ([1, 1, 100], 1)]
)
def test_the_lower_median_is_an_element_never_a_mean(values: list[int], expected: int) -> None:
    assert lower_median(values) == expected


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ([100, 200, 300], 200),
        ([100, 200, 300, 400], 200),
        ([200, 300, None], 100),  # fewer than 2f + 1 readings: the default
        ([None, None, None], 100),
        ([1, 2, 3], 10),
        ([5_000, 6_000, 7_000], 1_000),
    ],
)
def test_a_price_needs_two_f_plus_one_readings_and_stays_in_bounds(prices: list[int | None], expected: int) -> None:
    assert median_price([an_observation(i, price=p) for i, p in enumerate(prices)], N, PARAMETERS) == expected


def test_broker_shares_are_medians_over_all_used_observations_with_absence_as_zero_and_a_cap() -> None:
    observations = [
        an_observation(0, shares=(BrokerShare(TWO, 50, 0), BrokerShare(ONE, 10_000, 3))),
        an_observation(1, shares=(BrokerShare(ONE, 80, 9),)),
        an_observation(2, shares=(BrokerShare(ONE, 9_999, 0),)),
    ]
    assert median_shares(observations, 100) == (BrokerShare(ONE, 100, 3),)
    assert median_shares(observations[:2], 1_000) == (BrokerShare(ONE, 80, 3),)


def test_an_entry_is_incomplete_unless_one_honest_observer_must_have_had_it_complete() -> None:
    listing, silent = an_observation(0, incomplete=(PART,)), an_observation(1)
    assert incomplete_parts([listing, silent, silent], N) == frozenset()
    assert incomplete_parts([listing, listing, silent], N) == {PART}


def test_a_contract_signature_counts_when_one_honest_observer_must_have_found_it_valid() -> None:
    digest = Digest(b"\x77" * 32)
    listing, silent = an_observation(0, erc1271=(digest,)), an_observation(1)
    assert contract_signed([listing, silent, silent], N) == frozenset()
    assert contract_signed([listing, listing, silent], N) == {digest}


# --- building -------------------------------------------------------------------------------------


def test_an_honest_proposal_is_valid_and_acceptable_and_survives_its_bytes() -> None:
    case = a_case()
    assert case.validity() == case.acceptability() == YES
    assert decode_outcome(encode_outcome(case.outcome)) == case.outcome
    assert [e.stream_part for e in case.outcome.entries] == [PART, EMPTY_PART]
    assert case.outcome.price == 101


def test_the_order_in_which_a_leader_met_records_and_observations_changes_nothing() -> None:
    records, observations = some_records(5), [an_observation(i) for i in range(4)]
    straight = a_case(records, observations=observations).outcome
    assert a_case(records[::-1], observations=observations[::-1]).outcome == straight


def test_a_late_set_has_entries_only_for_what_it_holds_and_neither_price_nor_shares() -> None:
    shares = (BrokerShare(ONE, 50, 0),)
    seen = [an_observation(i, instance=LATE, shares=shares) for i in range(3)]
    case = a_case(instance=LATE, observations=seen)
    assert [e.stream_part for e in case.outcome.entries] == [PART]
    assert (case.outcome.price, case.outcome.shares) == (0, ())
    assert case.validity() == case.acceptability() == YES


def test_what_lies_behind_a_full_entry_of_its_window_is_left_out_of_a_late_set() -> None:
    records = some_records(3)
    cut = records[1].order

    def behind(row: Row) -> bool:
        return row.order > cut

    case = a_case(records, instance=LATE, full_ends=behind)
    assert list(case.records) == records[:2]
    assert case.acceptability(own=records[:2], behind_full=behind) == YES
    assert a_case(records, instance=LATE).acceptability(behind_full=behind).answer is Answer.NO


def test_messages_out_of_scope_are_not_proposed() -> None:
    inside, outside = a_record(), a_record(a_key(2), stream_id=a_stream_id(2))
    assert a_case([inside, outside]).records == (inside,)


def test_a_cut_entry_is_full_and_an_observer_of_what_was_cut_accepts_it() -> None:
    records = some_records(4)
    budget = Budget(sum(r.signed_bytes for r in records) - 1, message_limit=1_000)
    case = a_case(records, budget=budget)
    assert len(case.records) == 3
    assert Flag.FULL in case.outcome.entries[0].flags
    assert case.validity() == case.acceptability(own=records) == YES


def test_flags_follow_variants_equivocations_and_observations() -> None:
    record = a_record(signature_type=SignatureType.ECDSA_SECP256K1_EVM)
    variant = make_record(structs.replace(record.message, encryption_type=EncryptionType.AES, group_key_id="any"))
    other = a_record(signature_type=SignatureType.ECDSA_SECP256K1_EVM, content=b'"other"')
    seen = [an_observation(i, incomplete=(EMPTY_PART,)) for i in range(3)]
    case = a_case([record, variant, other], observations=seen)
    assert [e.flags for e in case.outcome.entries] == [Flag.VARIANTS | Flag.EQUIVOCATION, Flag.INCOMPLETE]
    assert case.outcome.evidence_count == 1
    assert case.validity() == YES


# --- validity: the same for all -------------------------------------------------------------------


def test_a_missing_observation_is_not_yet_and_too_few_are_no() -> None:
    case = a_case()
    first = next(iter(case.used))
    assert case.validity(used={d: o for d, o in case.used.items() if d != first}).answer is Answer.NOT_YET
    few = replace(case.outcome, observations=case.outcome.observations[:2])
    twice = replace(case.outcome, observations=(*case.outcome.observations[:2], case.outcome.observations[0]))
    for outcome in (few, twice):
        assert case.validity(outcome=outcome) == no("fewer than a quorum of distinct observations")


def test_more_observations_than_members_are_no_whoever_holds_them() -> None:
    """Else one proposal would have everybody fetch as many as its leader cares to name."""
    case = a_case()
    many = tuple(sorted(Digest(bytes([i]) * 32) for i in range(1, N + 2)))
    verdict = case.validity(outcome=replace(case.outcome, observations=many))
    assert verdict == no("more observations than members")


def test_an_observation_of_another_instance_is_no() -> None:
    case = a_case()
    foreign = an_observation(9, instance=InstanceId(InstanceKind.WINDOW, GENESIS_MS + 1_000))
    digests = (*case.outcome.observations[:2], observation_digest(foreign))
    used = {**case.used, **named([foreign])}
    verdict = case.validity(outcome=replace(case.outcome, observations=digests), used=used)
    assert verdict == no("an observation is of another instance")


def bend(outcome: Outcome, **fields: Any) -> Outcome:
    """The outcome with other fields of its first entry."""
    return rebuilt(outcome, [replace(outcome.entries[0], **fields), *outcome.entries[1:]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda o: bend(o, count=o.entries[0].count + 1), "does not follow from its messages"),
        (lambda o: bend(o, signed_bytes=1), "does not follow from its messages"),
        (lambda o: bend(o, canonical_bytes=1), "does not follow from its messages"),
        (lambda o: bend(o, partition=7), "a message has no entry"),
        (lambda o: bend(o, flags=Flag.INCOMPLETE), "flag incomplete"),
        (lambda o: bend(o, flags=Flag.EQUIVOCATION), "flag equivocation"),
        (lambda o: replace(o, price=o.price + 1), "price is not the median"),
        (lambda o: replace(o, shares=(BrokerShare(ONE, 1, 0),)), "broker shares are not the medians"),
        (lambda o: replace(o, evidence_count=1), "evidence does not follow"),
        (
            lambda o: replace(o, evidence=(Equivocation(*PART, Digest(bytes(32)), Digest(b"\x01" * 32)),)),
            "evidence does not follow",
        ),
    ],
)
def test_what_does_not_follow_from_messages_and_observations_is_no(
    change: Callable[[Outcome], Outcome], reason: str
) -> None:
    case = a_case()
    verdict = case.validity(outcome=change(case.outcome))
    assert verdict.answer is Answer.NO
    assert reason in verdict.reason


def test_a_message_outside_the_window_or_with_an_identity_twice_is_no() -> None:
    early = a_case([a_record(timestamp_ms=GENESIS_MS - 1)])
    assert early.validity() == no("a message lies outside the window")
    behind = a_case([a_record(timestamp_ms=WINDOW.end_ms)])
    assert behind.validity() == no("a message lies outside the window")
    record = a_record(signature_type=SignatureType.ECDSA_SECP256K1_EVM)
    variant = make_record(structs.replace(record.message, encryption_type=EncryptionType.AES, group_key_id="any"))
    both = sorted((record, variant), key=lambda r: r.order)
    case = a_case([record])
    outcome = rebuilt(case.outcome, [make_entry(PART, both), case.outcome.entries[1]])
    assert case.validity(outcome=outcome, records=both) == no("an identity stands twice")


def test_a_contract_signature_that_too_few_found_valid_is_no() -> None:
    signed = make_record(structs.replace(a_p256_message(), signature_type=SignatureType.ERC_1271, publisher_id=ONE))
    listing = [an_observation(i, erc1271=(signed.signed_digest,)) for i in range(2)]
    enough = a_case([signed], observations=[*listing, an_observation(2)])
    assert enough.records == (signed,)
    assert enough.validity() == YES
    few = a_case([signed], observations=[listing[0], an_observation(1), an_observation(2)])
    assert few.records == ()
    outcome = rebuilt(few.outcome, [make_entry(PART, [signed]), few.outcome.entries[1]])
    assert few.validity(outcome=outcome, records=[signed]) == no(
        "a contract signature that too few observers found valid"
    )


def test_a_late_set_with_a_price_is_no() -> None:
    case = a_case(instance=LATE)
    for changed in (replace(case.outcome, price=5), replace(case.outcome, shares=(BrokerShare(ONE, 1, 0),))):
        assert case.validity(outcome=changed) == no("a late set has no price and no shares")


# --- acceptability: this validator's own view -----------------------------------------------------


def test_unknown_chain_state_is_not_yet_and_another_block_is_no() -> None:
    case = a_case()
    assert case.acceptability(scope=None).answer is Answer.NOT_YET
    other = Scope(replace(BLOCK, hash=Digest(b"\x08" * 32)), case.scope.budgets)
    assert case.acceptability(scope=other) == no("block is not the one this validator reads")


def test_entries_are_exactly_the_partitions_in_scope() -> None:
    case = a_case()
    budget = case.scope.budgets[PART]
    fewer = Scope(BLOCK, {PART: budget})
    more = Scope(BLOCK, {**case.scope.budgets, ("a.eth/x", 0): budget})
    for scope in (fewer, more):
        assert case.acceptability(scope=scope) == no("entries are not the partitions in scope")


def test_an_observed_message_that_is_missing_is_no() -> None:
    records = some_records(3)
    verdict = a_case(records[:2]).acceptability(own=records)
    assert verdict.answer is Answer.NO
    assert "lacks 1 observed" in verdict.reason


def test_more_than_the_own_chain_funds_is_no() -> None:
    case = a_case()
    total = sum(r.signed_bytes for r in case.records)
    poorer = {part: Budget(total - 1, message_limit=1_000) for part in case.scope.budgets}
    verdict = case.acceptability(scope=Scope(BLOCK, poorer))
    assert "exceeds its budget" in verdict.reason


def test_an_entry_marked_full_that_lacks_an_observed_message_before_its_end_is_no() -> None:
    records = some_records(4)
    size = records[0].signed_bytes
    budget = Budget(3 * size, message_limit=1_000)
    skipping = [records[0], *records[2:]]
    case = a_case(skipping, budget=budget)
    outcome = bend(case.outcome, flags=Flag.FULL)
    verdict = case.acceptability(own=records, outcome=outcome)
    assert "lacks an observed message before the end" in verdict.reason


def test_an_entry_marked_full_though_all_observed_messages_fit_is_no() -> None:
    records = some_records(4)
    case = a_case(records[:3], budget=Budget(4 * records[0].signed_bytes, message_limit=1_000))
    verdict = case.acceptability(own=records, outcome=bend(case.outcome, flags=Flag.FULL))
    assert "yet an observed message fits" in verdict.reason


def large_between_small() -> tuple[list[Record], Budget]:
    """The first and last fit together, and not with the large one between them."""
    small = some_records(3)
    large = a_record(timestamp_ms=small[1].message.timestamp_ms, content=b'{"large":"%s"}' % (b"x" * 500))
    return [small[0], large, small[2]], Budget(small[0].signed_bytes + small[2].signed_bytes, message_limit=1_000)


@pytest.mark.parametrize(
    ("shown", "complete", "expected"),
    [(True, True, Answer.YES), (True, False, Answer.YES), (False, False, Answer.NOT_YET), (False, True, Answer.NO)],
)
@pytest.mark.parametrize("instance", [INSTANCE, LATE])
def test_that_an_own_message_was_cut_is_accepted_once_the_message_before_it_that_did_not_fit_is_shown(
    instance: InstanceId, shown: bool, complete: bool, expected: Answer
) -> None:
    """Each observer's messages fit; together they do not. Were this a no for ever, two observers could block all."""
    records, budget = large_between_small()
    case = a_case(records, budget=budget, instance=instance)
    assert case.records == (records[0],)
    assert Flag.FULL in case.outcome.entries[0].flags
    own = [records[0], records[2]]
    verdict = case.acceptability(own=own, seen=seen_as(records if shown else own, complete))
    assert verdict.answer is expected


@pytest.mark.parametrize("instance", [INSTANCE, LATE])
def test_a_message_that_did_not_fit_behind_the_own_one_justifies_nothing(instance: InstanceId) -> None:
    """Whoever leads could else drop what lies between."""
    small = some_records(2)
    large = a_record(timestamp_ms=small[1].message.timestamp_ms + 5, content=b'{"large":"%s"}' % (b"x" * 500))
    budget = Budget(2 * small[0].signed_bytes, message_limit=1_000)
    case = a_case([small[0]], budget=budget, instance=instance)
    outcome = bend(case.outcome, flags=Flag.FULL)
    verdict = case.acceptability(own=small, outcome=outcome, seen=seen_as([*small, large], True))
    assert "yet an observed message fits" in verdict.reason


@pytest.mark.parametrize("shown", ["what the entry holds itself", "one that fits", "one that just fits"])
def test_only_a_message_behind_the_end_that_does_not_fit_justifies_a_cut(shown: str) -> None:
    large, medium, small = (
        a_record(timestamp_ms=GENESIS_MS + place, content=b'{"n":"%s"}' % (b"x" * size))
        for place, size in ((0, 500), (1, 200), (2, 10))
    )
    least = a_record(timestamp_ms=medium.message.timestamp_ms)
    budget = Budget(large.signed_bytes + medium.signed_bytes, message_limit=1_000)
    assert 2 * large.signed_bytes > budget.limit
    case = a_case([large], budget=budget)
    others = {"what the entry holds itself": large, "one that fits": least, "one that just fits": medium}[shown]
    outcome = bend(case.outcome, flags=Flag.FULL)
    verdict = case.acceptability(own=[large, small], outcome=outcome, seen=seen_as([others], True))
    assert "yet an observed message fits" in verdict.reason


def test_one_publishers_limit_justifies_no_cut_of_anothers_message() -> None:
    mine, theirs = a_record(a_key(1)), a_record(a_key(2), timestamp_ms=GENESIS_MS + 9)
    budget = Budget(mine.signed_bytes, per_publisher=True, message_limit=1_000)
    case = a_case([mine], budget=budget)
    outcome = bend(case.outcome, flags=Flag.FULL)
    verdict = case.acceptability(own=[mine, theirs], outcome=outcome, seen=seen_as([], True))
    assert "yet an observed message fits" in verdict.reason


def test_under_a_limit_per_publisher_each_has_an_end_of_its_own() -> None:
    """The entry ends late, with another's message; what is asked for is what lies before the publisher's own end."""
    mine = [a_record(a_key(1), timestamp_ms=GENESIS_MS + place) for place in (0, 2, 4)]
    theirs = a_record(a_key(2), timestamp_ms=GENESIS_MS + 9)
    budget = Budget(2 * max(r.signed_bytes for r in mine), per_publisher=True, message_limit=1_000)
    for kept, lacks in (([mine[0], mine[1], theirs], mine[2]), ([mine[0], mine[2], theirs], mine[1])):
        case = a_case(kept, budget=budget)
        outcome = bend(case.outcome, flags=Flag.FULL)
        verdict = case.acceptability(own=[*kept, lacks], outcome=outcome)
        if lacks is mine[2]:
            assert verdict == YES
        else:
            assert "lacks an observed message before the end" in verdict.reason


def test_a_late_set_need_not_hold_what_its_first_message_leaves_no_room_for() -> None:
    """Nothing of the partition is in it, so it has no entry there that could be marked."""
    large = a_record(content=b'{"large":"%s"}' % (b"x" * 500))
    small = a_record(timestamp_ms=large.message.timestamp_ms + 5)
    case = a_case([large, small], budget=Budget(small.signed_bytes, message_limit=1_000), instance=LATE)
    assert case.outcome.entries == ()
    assert case.acceptability(own=[large, small]) == YES
    assert case.acceptability(own=[small], seen=seen_as([large, small], True)) == YES
    assert case.acceptability(own=[small], seen=seen_as([small], False)).answer is Answer.NOT_YET
    assert case.acceptability(own=[small]).answer is Answer.NO


def test_what_the_chain_does_not_admit_is_no_though_the_set_is_held() -> None:
    case = a_case()
    assert case.acceptability(admits=lambda _page: True) == YES
    refused = case.acceptability(admits=lambda page: case.records[1].leaf not in page.list_leaves())
    assert refused == no("a message that the chain does not admit")


def test_an_entry_of_a_late_set_that_holds_nothing_is_no() -> None:
    """Else a leader could fill an outcome with partitions that nobody pays for."""
    case = a_case(instance=LATE)
    entries = tuple(sorted((*case.outcome.entries, make_entry(EMPTY_PART, [])), key=lambda e: e.partition))
    outcome = replace(case.outcome, entries=entries, root=entries_root(entries))
    assert case.acceptability(outcome=outcome) == no("an entry of a late set holds nothing")


@pytest.mark.parametrize("count", [0, 3])
def test_an_entry_marked_full_where_any_message_would_fit_is_no_whatever_was_observed(count: int) -> None:
    case = a_case(some_records(count))
    verdict = case.acceptability(outcome=bend(case.outcome, flags=Flag.FULL))
    assert "any message would fit" in verdict.reason


def test_a_variant_that_ranks_worse_than_the_own_is_no_while_variants_are_asked() -> None:
    record = a_record(signature_type=SignatureType.ECDSA_SECP256K1_EVM)
    variant = make_record(structs.replace(record.message, encryption_type=EncryptionType.AES, group_key_id="any"))
    case = a_case([record])
    assert case.acceptability(own=[variant], worse_variant=lambda _theirs, _ours: True).answer is Answer.NO
    assert case.acceptability(own=[variant], worse_variant=lambda _theirs, _ours: False) == YES
    assert case.acceptability(own=[variant], worse_variant=None) == YES
    assert case.acceptability(own=[record], worse_variant=lambda _theirs, _ours: True) == YES


def test_a_late_set_waits_for_earlier_sets_and_refuses_what_they_hold() -> None:
    case = a_case(instance=LATE)
    assert case.acceptability(stored=None) == not_yet("identities of earlier sets are not all known")
    assert case.acceptability(stored={case.records[0].identity}) == no("a message is already in an agreed set")


def test_a_late_set_without_an_entry_for_an_observed_message_is_no() -> None:
    own = [*some_records(3), a_record(partition=1)]
    assert a_case(instance=LATE).acceptability(own=own) == no("an observed late message is not in the proposal")


def test_a_verdict_is_never_taken_for_a_boolean() -> None:
    with pytest.raises(TypeError):
        bool(YES)


def test_a_late_sets_span_reaches_horizon_and_margin_before_the_bundles_end() -> None:
    span = Span.of_late_set(10**12, PARAMETERS)
    reach = PARAMETERS.horizon_ms + PARAMETERS.margin_ms
    assert 10**12 - reach in span
    assert 10**12 - reach - 1 not in span
    assert 10**12 not in span
    assert Span.of_late_set(5, PARAMETERS).from_ms == 0


def test_two_observations_of_one_observer_count_as_none() -> None:
    case = a_case()
    twice = [replace(o, observer=Address(b"\x07" * 20)) for o in case.used.values()]
    used = named(twice)
    outcome = replace(case.outcome, observations=tuple(sorted(used)))
    verdict = judge_validity(outcome, used, RecordSet(case.records), SPAN, N, PARAMETERS)
    assert (verdict.answer, verdict.reason) == (Answer.NO, "two observations of one observer")


def test_a_broker_that_only_served_or_only_missed_has_a_share_and_one_that_did_neither_has_none() -> None:
    three = Address(b"\x03" * 20)
    shares = (BrokerShare(ONE, 5, 0), BrokerShare(TWO, 0, 7), BrokerShare(three, 0, 0))
    assert median_shares([an_observation(0, shares=shares)], 100) == shares[:2]


def test_one_contract_signature_too_few_found_valid_spoils_a_set_of_others() -> None:
    signed = make_record(structs.replace(a_p256_message(), signature_type=SignatureType.ERC_1271, publisher_id=ONE))
    case = a_case([a_record()])
    both = sorted([signed, *case.records], key=lambda r: r.order)
    outcome = rebuilt(case.outcome, [make_entry(PART, both), case.outcome.entries[1]])
    reason = "a contract signature that too few observers found valid"
    assert case.validity(outcome=outcome, records=both) == no(reason)


def test_a_late_set_of_nothing_but_refused_contract_signatures_is_empty() -> None:
    signed = make_record(structs.replace(a_p256_message(), signature_type=SignatureType.ERC_1271, publisher_id=ONE))
    assert a_case([signed], instance=LATE, full_ends=lambda _row: False).outcome.entries == ()


def test_own_messages_are_asked_for_as_far_as_they_count() -> None:
    records = some_records(3)
    for instance in (INSTANCE, LATE):
        case = a_case(records[:2] if instance == INSTANCE else [], instance=instance)
        assert case.acceptability(own=records, counts=lambda _row: True).answer is Answer.NO
        assert case.acceptability(own=records, counts=lambda row: row.leaf != records[2].leaf).answer is (
            Answer.YES if instance == INSTANCE else Answer.NO
        )
        assert case.acceptability(own=records, counts=lambda _row: False) == YES


def test_one_page_that_the_chain_does_not_admit_is_enough() -> None:
    case = a_case([*some_records(2), *some_records(2, partition=1)])
    assert case.acceptability(admits=lambda page: page.stream_part == PART).answer is Answer.NO


def test_a_late_message_out_of_scope_is_not_asked_for() -> None:
    own = [*some_records(3), a_record(a_key(2), stream_id=a_stream_id(2))]
    assert a_case(own, instance=LATE).acceptability(own=own) == YES


def test_who_lacks_nothing_accepts_an_entry_that_was_cut_for_others() -> None:
    records = some_records(4)
    budget = Budget(sum(r.signed_bytes for r in records) - 1, message_limit=1_000)
    case = a_case(records, budget=budget)
    assert Flag.FULL in case.outcome.entries[0].flags
    assert case.acceptability(own=records[:3]) == YES


def test_what_was_cut_from_a_full_entry_has_no_variant_to_compare() -> None:
    records = some_records(4)
    budget = Budget(sum(r.signed_bytes for r in records) - 1, message_limit=1_000)
    case = a_case(records, budget=budget)
    assert case.acceptability(own=records, worse_variant=lambda _theirs, _ours: True) == YES


def test_a_window_does_not_ask_for_what_it_observed_out_of_scope() -> None:
    own = [*some_records(3), a_record(a_key(2), stream_id=a_stream_id(2))]
    assert a_case(own).acceptability(own=own) == YES


def test_the_observations_of_all_members_may_be_used() -> None:
    assert a_case(observations=[an_observation(i) for i in range(N)]).validity() == YES
