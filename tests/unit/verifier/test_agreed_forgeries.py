"""What was agreed on: every forgery of observations, outcomes and sets is caught by the claim that is there for it.

The tables say which claim must fail and in which words, so a forgery passes again as soon as its check is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.builders import GENESIS_MS, a_key
from tests.bundle_builder import CONTEXT, MEMBERS, certify
from tests.fakes.finished_run import (
    BROKERS,
    MONEY,
    POOR,
    STREAMS,
    SYSTEM,
    FinishedRun,
    Plan,
    Published,
    _config,
    a_long_plan,
    a_network,
    a_plan,
    a_publication,
    a_said,
    late,
    replace_entries,
    window,
)
from tests.fakes.forgery import (
    ChangePlan,
    ChangeRun,
    Forgery,
    add_message,
    both,
    hold_back,
    in_entries,
    in_lines,
    in_manifest,
    in_outcomes,
    in_report,
)
from tests.verifier.claims import Claim
from validator.protocol.codec.config import config_digest
from validator.protocol.codec.outcome import encode_observation
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import sign_message
from validator.protocol.codec.statement import encode_statement, sign_statement
from validator.protocol.hashing import hash_object
from validator.protocol.merkle import compute_root
from validator.protocol.model import (
    Address,
    BrokerShare,
    Digest,
    Equivocation,
    Flag,
    InstanceId,
    InstanceKind,
    Manifest,
    Observation,
    Outcome,
    PartitionEntry,
    Root,
    Statement,
    StatementKind,
)


def empty_entry(stream: str, partition: int, flags: Flag = Flag(0)) -> PartitionEntry:
    return PartitionEntry(stream, partition, compute_root([]), 0, 0, 0, flags)


# --- observations ---------------------------------------------------------------------------------


def observers(*kept: SigningKey) -> ChangePlan:
    """Only these say what they saw."""

    def apply(plan: Plan) -> None:
        named = {key.address for key in kept}
        plan.observe = lambda observation: observation if observation.observer in named else None

    return apply


def use_too(observation: Observation) -> ChangePlan:
    """The outcome of its instance uses this observation too."""
    digest = hash_object(encode_observation(observation))
    return in_outcomes(
        lambda o: replace(o, observations=tuple(sorted((*o.observations, digest)))), observation.instance
    )


def hand_over(observation: Observation, key: SigningKey, **changes: Any) -> ChangeRun:
    """A line more in what was collected: the observation under a statement of ``key``."""
    config = config_digest(_config(0))
    body = encode_observation(observation)

    def apply(run: FinishedRun) -> None:
        line = a_said(body, observation.instance, key, config)
        fields: dict[str, Any] = {"kind": StatementKind.OBSERVATION, "config_digest": config, "round": 0}
        fields |= {"instance": observation.instance, "value": hash_object(body), "signer": key.address}
        statement = sign_statement(Statement(**{**fields, **changes}), key, CONTEXT)
        line["statement"] = encode_statement(statement).hex()
        in_lines("observations.jsonl", lambda lines: [*lines, line])(run)

    return apply


def an_invention(observer: Address = MEMBERS[3].address, place: InstanceId = window(0)) -> Observation:
    return Observation(place, Root(b"\x07" * 32), 1, 1, observer=observer)


def invented(name: str, words: str, key: SigningKey, observer: Address = MEMBERS[3].address, **changes: Any) -> Forgery:
    """Window 0 uses an observation that member 3 never made, as that was handed over."""
    observation = an_invention(observer)
    plan = both(observers(*MEMBERS[:3]), use_too(observation))
    return Forgery(name, Claim.OBSERVATIONS, words, plan, hand_over(observation, key, **changes))


def unsign(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last byte of a signature is another one."""
    first = lines[0]["statement"]
    return [{**lines[0], "statement": first[:-2] + ("1b" if first[-2:] != "1b" else "1c")}, *lines[1:]]


def misplace(place: InstanceId) -> ChangePlan:
    """Window 0 uses an observation of another instance."""

    def apply(plan: Plan) -> None:
        observers(*MEMBERS[:3])(plan)
        digest = hash_object(encode_observation(an_invention(place=place)))
        in_outcomes(lambda o: replace(o, observations=tuple(sorted((*o.observations, digest)))), window(0))(plan)

    return apply


OBSERVATIONS = [
    Forgery(
        "an outcome used one observation",
        Claim.QUORUMS,
        "used 1 observations where 3 are needed",
        in_outcomes(lambda o: replace(o, observations=o.observations[:1]), window(0)),
    ),
    Forgery(
        "a late set used none",
        Claim.QUORUMS,
        "used 0 observations where 3 are needed",
        in_outcomes(lambda o: replace(o, observations=()), late(0)),
    ),
    Forgery(
        "an outcome used two words of one member",
        Claim.QUORUMS,
        "used two observations of one member",
        both(observers(*MEMBERS[:2]), use_too(an_invention(MEMBERS[0].address))),
        hand_over(an_invention(MEMBERS[0].address), MEMBERS[0]),
    ),
    Forgery(
        "an observation that an outcome used is nowhere",
        Claim.OBSERVATIONS,
        "is held by no validator that was asked",
        run=in_lines("observations.jsonl", lambda lines: lines[1:]),
    ),
    Forgery(
        "an observation has another signature",
        Claim.OBSERVATIONS,
        "is not signed: ",
        run=in_lines("observations.jsonl", unsign),
    ),
    invented("a member is given the words of another", "as observer and is signed by", MEMBERS[2]),
    invented("an observation is of no member", "who is no member", BROKERS[0], BROKERS[0].address),
    invented(
        "an observation was made under another config",
        "was made under another config",
        MEMBERS[3],
        config_digest=Digest(b"\x09" * 32),
    ),
    invented(
        "a vote stands for an observation",
        "comes with a statement of something else",
        MEMBERS[3],
        kind=StatementKind.PREVOTE,
    ),
    invented("an observation is signed for another window", "is about", MEMBERS[3], instance=window(1)),
    Forgery(
        "an observation of another window is used",
        Claim.OBSERVATIONS,
        "is about window:",
        misplace(window(1)),
        hand_over(an_invention(place=window(1)), MEMBERS[3]),
    ),
]


# --- medians --------------------------------------------------------------------------------------


def price(amount: int) -> ChangePlan:
    return in_outcomes(lambda o: replace(o, price=amount))


def observe_prices(*prices: int | None) -> ChangePlan:
    """What each member reads as the price."""

    def apply(plan: Plan) -> None:
        of = {key.address: amount for key, amount in zip(MEMBERS, prices, strict=True)}
        plan.observe = lambda o: replace(o, price=of[o.observer]) if o.instance.kind is InstanceKind.WINDOW else o

    return apply


def share_out(*shares: tuple[int, int, int]) -> ChangePlan:
    """(broker, served, missed) in the outcome."""
    lines = sorted((BrokerShare(BROKERS[n].address, s, m) for n, s, m in shares), key=lambda share: share.broker)
    return in_outcomes(lambda o: replace(o, shares=tuple(lines)), window(0))


def observe_shares(change: Callable[[Observation], Observation]) -> ChangePlan:
    """All members lie alike about window 0, and the outcome follows from what they say."""

    def apply(plan: Plan) -> None:
        plan.observe = lambda o: change(o) if o.instance == window(0) else o

    return apply


def all_served(observation: Observation) -> Observation:
    shares = tuple(replace(share, served=observation.signed_bytes) for share in observation.shares)
    return replace(observation, shares=shares)


def incomplete_at(*who: int) -> ChangePlan:
    """These members had nothing complete of the first stream in window 0."""

    def apply(plan: Plan) -> None:
        named = {MEMBERS[n].address for n in who}

        def observe(o: Observation) -> Observation:
            is_meant = o.instance == window(0) and o.observer in named
            return replace(o, incomplete=((STREAMS[0], 0),)) if is_meant else o

        plan.observe = observe

    return apply


MEDIANS = [
    Forgery("the price of a window is the highest", Claim.PRICES, "has price 2097152, not", price(MONEY["price_max"])),
    Forgery("the price exceeds its bound", Claim.PRICES, "has price 10485760, not", price(5 * MONEY["price_max"])),
    Forgery("the price is below its bound", Claim.PRICES, "has price 0, not", price(0)),
    Forgery(
        "the observed prices are passed over",
        Claim.PRICES,
        "has price 1048576, not 1500000",
        both(observe_prices(1_400_000, 1_500_000, 1_600_000, 9_000_000), price(1 << 20)),
    ),
    Forgery(
        "a price that too few have read is taken",
        Claim.PRICES,
        "has price 1400000, not 1048576",
        both(observe_prices(1_400_000, 1_500_000, None, None), price(1_400_000)),
    ),
    Forgery(
        "a price beyond the bound that all have read is taken",
        Claim.PRICES,
        "has price 3000000, not 2097152",
        both(observe_prices(*[3_000_000] * 4), price(3_000_000)),
    ),
    Forgery(
        "one broker is said to have served all", Claim.SHARES, "served 0 and missed 0, not", share_out((1, 300, 0))
    ),
    Forgery("a broker is said to have missed", Claim.SHARES, "missed 300, not", share_out((0, 0, 300), (1, 300, 0))),
    Forgery("no broker is said to have served", Claim.SHARES, "served 0 and missed 0, not", share_out()),
    Forgery(
        "a broker that nobody names gets a share",
        Claim.SHARES,
        "served 5 and missed 0, not 0 and 0",
        in_outcomes(lambda o: replace(o, shares=(BrokerShare(Address(b"\xaa" * 20), 5, 0), *o.shares)), window(0)),
    ),
    Forgery(
        "all members let a broker have served what never reached it",
        Claim.SERVED,
        "ever reached it",
        observe_shares(all_served),
    ),
    Forgery(
        "a window is marked incomplete for nothing",
        Claim.INCOMPLETE,
        "is marked incomplete",
        in_entries(lambda e: replace(e, flags=e.flags | Flag.INCOMPLETE)),
    ),
    Forgery(
        "an incomplete partition is not marked",
        Claim.INCOMPLETE,
        "is not marked incomplete",
        both(incomplete_at(0, 1, 2), in_entries(lambda e: replace(e, flags=Flag(0)), window(0))),
    ),
    Forgery(
        "a partition is marked incomplete that two of four had",
        Claim.INCOMPLETE,
        "is marked incomplete",
        both(incomplete_at(0, 1), in_entries(lambda e: replace(e, flags=Flag.INCOMPLETE), window(0))),
    ),
]


# --- scope, budgets, boundaries -------------------------------------------------------------------


def with_entry(entry: PartitionEntry, *instances: InstanceId) -> ChangePlan:
    return in_outcomes(lambda o: replace_entries(o, [*o.entries, entry]), *instances)


def without(stream: str) -> ChangePlan:
    return in_entries(lambda e: None if e.stream_id == stream and not e.count else e)


def a_full_plan() -> Plan:
    """The first stream has room for three of its four messages in window 0; the last is stored nowhere."""
    plan = a_plan()
    plan.network = a_network(partition_limit=350, message_limit=200)
    for number in (40, 42, 44):
        add_message(a_publication(3_000 + number, number))(plan)
    return plan


def force(place: InstanceId) -> ChangePlan:
    """The set holds what was planned, whatever the budget."""

    def apply(plan: Plan) -> None:
        plan.forced.add(place)

    return apply


def keep_the_cut_one(plan: Plan) -> None:
    plan.sets[late(0)].append(plan.published[-1].record)
    plan.sets[window(0)].remove(plan.published[-1].record)
    plan.forced.add(late(0))
    in_entries(lambda e: replace(e, flags=Flag.FULL) if e.stream_id == STREAMS[0] else e, window(0))(plan)


SHORT_REACH = {"horizon_ms": 1_000, "margin_ms": 36_000}


def bundles(*spans: tuple[int, ...], **parameters: int) -> ChangePlan:
    def apply(plan: Plan) -> None:
        plan.spans = spans
        plan.network = a_network(**parameters)
        places = [*map(late, range(len(spans))), *(window(n) for span in spans for n in span)]
        plan.sets |= {place: [] for place in places if place not in plan.sets}

    return apply


def renumber(manifest: Manifest) -> Manifest:
    """Bundle 1, whose late set is empty, calls itself and its late set 5."""
    outcome = replace(manifest.late.outcome, instance=late(5))
    header = replace(manifest.header, number=5)
    return replace(manifest, header=header, late=certify(outcome, header.config_digest))


SETS = [
    Forgery(
        "partitions that the store lacks",
        Claim.SCOPE,
        "#7: has an entry although it is not in scope",
        with_entry(empty_entry(STREAMS[0], 7)),
    ),
    Forgery(
        "an entry of no store",
        Claim.SCOPE,
        "not-a-store#0: has an entry although it is not in scope",
        with_entry(empty_entry(f"0x{'ee' * 20}/not-a-store", 0)),
    ),
    Forgery(
        "an entry of a store below the floor",
        Claim.SCOPE,
        "poor#0: has an entry although it is not in scope",
        with_entry(empty_entry(POOR, 0)),
        start=a_long_plan,
    ),
    Forgery(
        "an empty partition is left out",
        Claim.SCOPE,
        "has no entry although it is in scope",
        without(STREAMS[0]),
    ),
    Forgery("the system stream is left out", Claim.SCOPE, "system#0: has no entry", without(SYSTEM)),
    Forgery(
        "a late set has an entry that holds nothing",
        Claim.SCOPE,
        "that holds nothing of it",
        with_entry(empty_entry(STREAMS[1], 0), late(0)),
    ),
    Forgery(
        "a late set has an entry of no store",
        Claim.SCOPE,
        "not-a-store#0: has an entry although it is not in scope",
        with_entry(empty_entry(f"0x{'ee' * 20}/not-a-store", 0), late(1)),
    ),
    Forgery(
        "an entry holds more than is funded",
        Claim.BUDGETS,
        "bytes where 350 are funded",
        force(window(0)),
        start=a_full_plan,
    ),
    Forgery(
        "everything is marked full",
        Claim.BUDGETS,
        "where any message would fit",
        in_entries(lambda e: replace(e, flags=Flag.FULL)),
    ),
    Forgery(
        "what a full entry has cut comes back late",
        Claim.BUDGETS,
        "behind the end of the full entry",
        keep_the_cut_one,
        start=a_full_plan,
    ),
    Forgery(
        "a bundle is cut too early",
        Claim.BOUNDARIES,
        "was cut after 1 windows, although the next one fits",
        bundles((0,), (1,), (2, 3, 4)),
    ),
    Forgery(
        "a bundle takes more bytes than it may",
        Claim.BOUNDARIES,
        "bytes where 1500 are the most",
        bundles((0, 1), (2, 3, 4), bundle_bytes=1_500),
    ),
    Forgery(
        "a bundle crosses the border of its epoch",
        Claim.BOUNDARIES,
        "crosses the end of its epoch",
        bundles((0, 1, 2), (3, 4), bundle_windows=3),
    ),
    Forgery(
        "the last windows are missing",
        Claim.BOUNDARIES,
        "ends where no rule says so, and nothing follows it",
        bundles((0, 1), (2, 3)),
    ),
    Forgery("the last windows are not decided", Claim.WINDOWS, "has no outcome", bundles((0, 1), (2, 3))),
    Forgery(
        "a later bundle holds earlier windows",
        Claim.ORDER,
        "windows: are not in order over the bundles",
        bundles((2, 3), (0, 1), (4, 5, 6), epoch_windows=4),
        start=a_long_plan,
    ),
    Forgery(
        "a bundle has another number",
        Claim.ORDER,
        "bundle 1: calls itself number 5",
        both(
            in_manifest(1, renumber),
            in_report(5, lambda report: replace(report, number=1)),
            lambda plan: plan.sets.update({late(5): []}),
        ),
    ),
    Forgery(
        "a window lies behind the network's end",
        Claim.WINDOWS,
        "is no window of the network",
        bundles((0, 1), (2, 3, 4), (5,)),
    ),
    Forgery(
        "a bundle lies behind the network's end",
        Claim.BOUNDARIES,
        "bundle 2: lies in no epoch",
        bundles((0, 1), (2, 3, 4), (5,)),
    ),
    Forgery(
        "a bundle follows another one than it says",
        Claim.ORDER,
        "bundle 1: does not follow the bundle before it",
        in_manifest(1, lambda m: replace(m, header=replace(m.header, previous_root=Root(b"\x05" * 32)))),
    ),
]


# --- what sets hold -------------------------------------------------------------------------------


def equivocate(plan: Plan) -> None:
    """The publisher signs a second content under one message id."""
    twin = sign_message(a_key(1), structs.replace(plan.published[1].message, content=b'{"number":4242}'))
    add_message(Published(twin, plan.published[1].delivered_ms))(plan)


def hide_equivocation(outcome: Outcome) -> Outcome:
    entries = [replace(e, flags=e.flags & ~Flag.EQUIVOCATION) for e in outcome.entries]
    return replace(replace_entries(outcome, entries), evidence=(), evidence_count=0)


def false_evidence(outcome: Outcome) -> Outcome:
    made_up = Equivocation(STREAMS[0], 0, Digest(b"\1" * 32), Digest(b"\2" * 32))
    return replace(outcome, evidence=(made_up,), evidence_count=1)


def store_forged(index: int) -> ChangePlan:
    """A forged message is stored in window 0, instead of the true one where it has the same identity."""

    def apply(plan: Plan) -> None:
        record = plan.forged[index].record
        plan.sets[window(0)] = [r for r in plan.sets[window(0)] if r.identity != record.identity] + [record]

    return apply


def nobody_lists_contracts(plan: Plan) -> None:
    """Too few observers found the contract's signature valid, and the message is stored all the same."""
    plan.observe = lambda o: o if o.observer == MEMBERS[0].address else replace(o, erc1271=())
    plan.forced.add(window(2))


def deny_contracts(plan: Plan) -> None:
    plan.contract_signatures.clear()


def forbid(stream: str) -> ChangePlan:
    def apply(plan: Plan) -> None:
        plan.publishers = {(s, who) for s, who in plan.publishers if s != stream}

    return apply


def store_out_of_scope(plan: Plan) -> None:
    """Nobody has staked for the stream at its window's block, nor at its bundle's."""
    plan.balances[POOR], plan.partitions[POOR], plan.staked_at[POOR] = 10**12, 1, 150
    plan.publishers.add((POOR, a_key(1).address))
    add_message(a_publication(600, 60, stream_id=POOR), late(0))(plan)
    plan.forced.add(late(0))


def no_broker(plan: Plan) -> None:
    """The publisher of receipts is a node without an http URL."""
    plan.nodes[BROKERS[0].address] = {}


CONTENTS = [
    Forgery(
        "an equivocation is hidden",
        Claim.EQUIVOCATIONS,
        "is not marked although somebody equivocated",
        both(equivocate, in_outcomes(hide_equivocation)),
    ),
    Forgery(
        "the evidence of an equivocation is hidden",
        Claim.EQUIVOCATIONS,
        "has 0 pieces of evidence and counts 1, where its messages give 1",
        both(equivocate, in_outcomes(lambda o: replace(o, evidence=()), window(0))),
    ),
    Forgery(
        "an equivocation is not counted",
        Claim.EQUIVOCATIONS,
        "has 1 pieces of evidence and counts 0, where its messages give 1",
        both(equivocate, in_outcomes(lambda o: replace(o, evidence_count=0), window(0))),
    ),
    Forgery(
        "evidence is invented",
        Claim.EQUIVOCATIONS,
        "has 1 pieces of evidence and counts 1, where its messages give 0",
        in_outcomes(false_evidence, window(0)),
    ),
    Forgery(
        "an equivocation is claimed",
        Claim.EQUIVOCATIONS,
        "is marked although nobody equivocated",
        in_entries(lambda e: replace(e, flags=Flag.EQUIVOCATION)),
    ),
    Forgery(
        "variants are claimed",
        Claim.VARIANTS,
        "no broker had two forms",
        in_entries(lambda e: replace(e, flags=Flag.VARIANTS), window(0)),
    ),
    Forgery(
        "variants are claimed of a late set",
        Claim.VARIANTS,
        "no broker had two forms",
        in_entries(lambda e: replace(e, flags=Flag.VARIANTS), late(0)),
    ),
    Forgery(
        "a late set holds what is older than the network",
        Claim.TIMES,
        "lies in no window of the network",
        add_message(a_publication(-20_000, 50, delay_ms=21_000), late(0)),
    ),
    Forgery(
        "a late set reaches further than horizon and margin",
        Claim.TIMES,
        "lies further than 37000 ms before the end of the bundle",
        both(
            bundles((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11, 12), epoch_windows=10, **SHORT_REACH),
            hold_back(0, 5, 12_000, 12_000),
        ),
    ),
    Forgery(
        "a message with a stranger's signature is stored",
        Claim.SIGNATURES,
        "is not signed by its publisher: bad_signature",
        store_forged(0),
    ),
    Forgery(
        "an altered message is stored",
        Claim.SIGNATURES,
        "is not signed by its publisher: bad_signature",
        store_forged(1),
    ),
    Forgery(
        "a contract's signature that too few found valid is stored",
        Claim.SIGNATURES,
        "too few observers found that valid",
        nobody_lists_contracts,
        start=a_long_plan,
    ),
    Forgery(
        "a contract's signature that it denies is stored",
        Claim.SIGNATURES,
        "which says it did not",
        deny_contracts,
        start=a_long_plan,
    ),
    Forgery(
        "somebody publishes who may not",
        Claim.PERMISSIONS,
        "is of somebody who might not publish there",
        forbid(STREAMS[1]),
    ),
    Forgery(
        "a late set holds what no block admits",
        Claim.PERMISSIONS,
        "is of somebody who might not publish there",
        store_out_of_scope,
    ),
    Forgery("a receipt comes from a node that is no broker", Claim.PERMISSIONS, "system/0 at", no_broker),
]


# --- complete, once, exact, in time ---------------------------------------------------------------


def drop(plan: Plan) -> None:
    del plan.sets[window(0)][0]


def add_unpublished(plan: Plan) -> None:
    plan.sets[window(1)].append(a_publication(4_500, 77).record)


def store_twice(plan: Plan) -> None:
    plan.sets[late(1)].append(plan.sets[window(1)][0])


def store_the_lost_one(plan: Plan) -> None:
    plan.sets[window(0)].append(plan.published[-1].record)


def store_another_form(plan: Plan) -> None:
    """Fields that the signature does not cover are others."""
    true = plan.published[0].record
    form = Published(structs.replace(true.message, group_key_id="key-1"), ()).record
    assert form.identity == true.identity
    plan.sets[window(0)] = [form if r == true else r for r in plan.sets[window(0)]]


def deliver_what_nobody_published(plan: Plan) -> None:
    plan.forged.append(Published(a_publication(1_200, 92).message, (GENESIS_MS + 1_300,), "unnamed"))


def hide_from_the_publishers_log(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return lines[1:]


def hold_everything_back(plan: Plan) -> None:
    """Every message was at all brokers 1.9 s before its cut-off, and is in a late set."""
    for index, p in enumerate(plan.published):
        if p.kind == "message" and p.delivered_ms:
            number = (p.message.timestamp_ms - GENESIS_MS) // 4_000
            cut_off_ms = (number + 1) * 4_000 + 1_000 - 1_900
            hold_back(index, 0 if number < 2 else 1, cut_off_ms, cut_off_ms)(plan)


MESSAGES = [
    Forgery("a message is dropped", Claim.COMPLETE, "reached a broker and is in no bundle", drop),
    Forgery(
        "the late set is left out",
        Claim.COMPLETE,
        "reached a broker and is in no bundle",
        lambda plan: plan.sets[late(0)].clear(),
    ),
    Forgery("a message is invented", Claim.EXACT, "was never published by anybody who may", add_unpublished),
    Forgery("a message is stored twice", Claim.ONCE, "is stored 2 times: bundle 0 window:", store_twice),
    Forgery("a message that no broker had is stored", Claim.EXACT, "although it reached no broker", store_the_lost_one),
    Forgery("a message is stored in another form", Claim.EXACT, "other fields than its publisher", store_another_form),
    Forgery(
        "a broker had what nobody logged",
        Claim.EXACT,
        "a line that nobody logged",
        run=in_lines("logs/publisher/forged.jsonl", hide_from_the_publishers_log),
    ),
    Forgery(
        "forged messages are of an unknown kind",
        Claim.REFUSALS,
        "a forged message (unnamed) is",
        deliver_what_nobody_published,
    ),
    Forgery(
        "a message that all brokers had in time is held back",
        Claim.IN_TIME,
        "is in late:0 although it was at brokers by the cut-off of window:1700000004000",
        hold_back(4, 0, 7_001, 7_050),
    ),
    Forgery(
        "a message that all brokers had at the very cut-off is held back",
        Claim.IN_TIME,
        "although it was at brokers by the cut-off",
        hold_back(4, 0, 9_000, 8_900),
    ),
    Forgery(
        "a message that one broker had well before is held back",
        Claim.IN_TIME,
        "although it was at brokers by the cut-off",
        hold_back(4, 0, 7_000),
    ),
    Forgery(
        "every message is held back", Claim.IN_TIME, "is in late:1 although", hold_everything_back, start=a_long_plan
    ),
    Forgery(
        "a late message is one bundle later than it had to be",
        Claim.IN_TIME,
        "is in late:1 although it could be in late:0",
        hold_back(2, 1, 8_300, 8_340),
    ),
    Forgery(
        "a late message misses the set after its horizon",
        Claim.IN_TIME,
        "is in late:2 although it could be in late:1",
        both(
            lambda plan: setattr(plan, "network", a_network(epoch_windows=4, horizon_ms=12_000)),
            hold_back(0, 2, 15_000, 15_500),
        ),
        start=a_long_plan,
    ),
]

ALL = [*OBSERVATIONS, *MEDIANS, *SETS, *CONTENTS, *MESSAGES]


@pytest.mark.parametrize("forgery", ALL, ids=lambda forgery: forgery.name)
def test_the_claim_that_is_there_for_it_catches_each_forgery(tmp_path: Path, forgery: Forgery) -> None:
    assert forgery.is_caught(tmp_path)
