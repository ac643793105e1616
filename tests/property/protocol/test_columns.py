"""Whatever members hold: over columns a proposal is built and judged as over records, one object for each message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests import plain_judging as plain
from tests.builders import GENESIS_MS, a_key, a_record, a_stream_id
from tests.columns import pages_of, records_behind
from validator.protocol.codec.message import make_record
from validator.protocol.codec.outcome import entries_root, observation_digest, part_order, set_root
from validator.protocol.codec.variants import ServeCounts, choose_variant
from validator.protocol.columns import Page, RecordSet, Row, make_entry, row_of
from validator.protocol.consensus.proposal import (
    Draft,
    Scope,
    Span,
    Verdict,
    contract_signed,
    judge_acceptability,
    judge_validity,
)
from validator.protocol.consensus.window import Budget, make_entries, unite
from validator.protocol.joining import lacking, merge, unite_pages, without
from validator.protocol.model import (
    Address,
    Block,
    Digest,
    EncryptionType,
    Flag,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    PartitionEntry,
    Record,
    SignatureType,
    StreamPart,
    Window,
)
from validator.protocol.parameters import ParameterSet

N = 4
WINDOW = Window(GENESIS_MS, GENESIS_MS + 4)
PARAMETERS = ParameterSet(
    first_epoch=0, epoch_windows=100, window_ms=4, price_min=1, price_max=9, price_default=5, evidence_limit=2
)
PARTS: list[StreamPart] = [(a_stream_id(), 0), (a_stream_id(), 1), (a_stream_id(path="z"), 0)]
BLOCK = Block(9, Digest(b"\x09" * 32), 1)


@cache
def pool() -> tuple[Record, ...]:
    """Of few milliseconds, publishers, sequence numbers and sizes: all that may collide does. The last lies outside."""
    signed = [
        a_record(
            a_key(2 + i % 2),
            stream_id=PARTS[i % 3][0],
            partition=PARTS[i % 3][1],
            timestamp_ms=GENESIS_MS + i // 3 % 3,
            sequence_number=i // 9 % 2,
            content=b'"%s"' % (b"x" * (23 * (i % 7))),
            signature_type=SignatureType.ECDSA_SECP256K1_EVM,
        )
        for i in range(36)
    ]
    variants = [
        make_record(structs.replace(r.message, encryption_type=EncryptionType.AES, group_key_id=name))
        for r in signed[::3]
        for name in ("a", "b")
    ]
    contracts = [
        make_record(structs.replace(r.message, signature_type=SignatureType.ERC_1271, content=b"{}", sequence_number=i))
        for i, r in enumerate(signed[:6])
    ]
    outside = a_record(timestamp_ms=WINDOW.end_ms, stream_id=PARTS[0][0], partition=PARTS[0][1])
    return (*signed, *variants, *contracts, outside)


def some_of_pool(data: st.DataObject, size: int = 40) -> list[Record]:
    chosen = data.draw(st.sets(st.integers(0, len(pool()) - 1), max_size=size))
    return [pool()[i] for i in sorted(chosen)]


class Paged:
    """A set in pages of a few rows."""

    def __init__(self, records: Sequence[Record], rows: int) -> None:
        self._records = sorted(records, key=lambda r: r.order)
        self._rows = rows
        self.entries = make_entries(records)

    def pages(self, part: StreamPart) -> Iterator[Page]:
        return pages_of([r for r in self._records if r.message.stream_part == part], self._rows)


def budgets(data: st.DataObject) -> dict[StreamPart, Budget]:
    limits = st.sampled_from([0, 200, 400, 700, 1_500, 10_000])
    in_scope = data.draw(st.sets(st.sampled_from(PARTS), min_size=1))
    return {
        part: Budget(data.draw(limits), per_publisher=data.draw(st.booleans()), message_limit=300)
        for part in PARTS
        if part in in_scope
    }


def observations(data: st.DataObject, instance: InstanceId, sets: Sequence[Sequence[Record]]) -> list[Observation]:
    listed = sorted({r.signed_digest for r in pool() if r.message.signature_type is SignatureType.ERC_1271})
    return [
        Observation(
            instance=instance,
            set_root=set_root(make_entries(members)),
            count=len(members),
            signed_bytes=sum(r.signed_bytes for r in members),
            incomplete=tuple(part for part in PARTS if data.draw(st.integers(0, 3)) == 0),
            erc1271=tuple(d for d in listed if data.draw(st.booleans())),
            observer=Address(bytes([number + 1]) * 20),
        )
        for number, members in enumerate(sets)
    ]


def one_each(records: Sequence[Record]) -> list[Record]:
    return list(unite(records, {}).records)


def built_in_columns(
    instance: InstanceId,
    scope: Scope,
    sets: Sequence[Paged],
    served: dict[Digest, int],
    used: dict[Digest, Observation],
) -> tuple[Outcome, list[bytes]]:
    """As a leader does it: equal partitions are read once."""
    holders: dict[StreamPart, dict[bytes, tuple[int, Paged]]] = {}
    for held in sets:
        for entry in held.entries:
            before = holders.setdefault(entry.stream_part, {}).get(entry.root, (0, held))[0]
            holders[entry.stream_part][entry.root] = (before + 1, held)

    def choose(variants: Sequence[tuple[Row, int]]) -> Row:
        return choose_variant([(row, ServeCounts(served.get(row.leaf, 0), count)) for row, count in variants])

    draft = Draft(instance, scope, used, N, PARAMETERS)
    union = [
        (part, unite_pages([(count, held.pages(part)) for count, held in holders[part].values()], choose))
        for part in sorted(holders, key=part_order)
    ]
    pages = list(draft.pages(union))
    kept = records_behind(pages, pool())
    assert [data for page in pages for data in page.canonical()] == [r.canonical for r in kept]
    return draft.outcome(make_entries(kept)), [r.leaf for r in kept]


@given(data=st.data(), late=st.booleans(), rows=st.integers(1, 5))
def test_a_leader_builds_the_same_outcome(data: st.DataObject, late: bool, rows: int) -> None:
    instance = InstanceId(InstanceKind.LATE, 3) if late else InstanceId(InstanceKind.WINDOW, WINDOW.start_ms)
    first = some_of_pool(data)
    sets = [first, *(data.draw(st.sampled_from([first, some_of_pool(data)])) for _ in range(2))]
    seen = observations(data, instance, sets)
    used = {observation_digest(o): o for o in seen}
    scope = Scope(BLOCK, budgets(data))
    served = {r.leaf: data.draw(st.integers(0, 3)) for r in pool()[36:48]}
    holders = Counter(r.leaf for members in sets for r in members)
    sightings = {leaf: ServeCounts(served.get(leaf, 0), count) for leaf, count in holders.items()}
    union = unite([r for members in sets for r in members], sightings)
    outcome, kept = plain.build_outcome(instance, scope, union, used, N, PARAMETERS)
    found, leaves = built_in_columns(instance, scope, [Paged(s, rows + i) for i, s in enumerate(sets)], served, used)
    assert found == outcome
    assert leaves == [r.leaf for r in kept]


@given(data=st.data(), late=st.booleans(), rows=st.integers(1, 5))
def test_a_proposal_is_judged_the_same(data: st.DataObject, late: bool, rows: int) -> None:
    """Proposals of leaders that err or lie too: entries, flags and evidence bent, messages left out or added."""
    instance = InstanceId(InstanceKind.LATE, 3) if late else InstanceId(InstanceKind.WINDOW, WINDOW.start_ms)
    sets = [one_each(some_of_pool(data)) for _ in range(3)]
    used = {observation_digest(o): o for o in observations(data, instance, sets)}
    scope = Scope(BLOCK, budgets(data))
    union = unite([r for members in sets for r in members], {})
    outcome, kept = plain.build_outcome(instance, scope, union, used, N, PARAMETERS)
    outcome, records = bent(data, outcome, list(kept), sets)
    span = Span.of_window(WINDOW)
    valid = plain.judge_validity(outcome, used, records, span, N, PARAMETERS)
    messages = Paged(records, rows)
    found = judge_validity(outcome, used, messages, span, N, PARAMETERS)
    assert found.answer is valid.answer
    own = one_each(data.draw(st.sampled_from([*sets, some_of_pool(data)])))
    allowed = contract_signed(list(used.values()), N)
    refused = data.draw(st.sampled_from([b"", a_key(2).address, a_key(3).address]))
    worse_leaves = data.draw(st.sets(st.sampled_from([r.leaf for r in pool()])))
    cut = data.draw(st.sampled_from([None, *(r.order for r in pool()[:12:5])]))
    stored = data.draw(st.sampled_from([None, set(), {pool()[0].identity}])) if late else None
    complete = data.draw(st.booleans())
    rank = data.draw(st.booleans())

    def counts(record: Record) -> bool:
        return record.message.signature_type is not SignatureType.ERC_1271 or record.signed_digest in allowed

    def of_part(part: StreamPart) -> list[Record]:
        return [r for members in sets for r in members if r.message.stream_part == part and counts(r)]

    expected = plain.judge_acceptability(
        outcome,
        records,
        scope,
        [r for r in own if counts(r)],
        worse_variant=(lambda theirs, _ours: theirs.leaf in worse_leaves) if rank else None,
        stored=stored,
        behind_full=(lambda r: r.order > cut) if cut is not None else None,
        admits=lambda r: r.message.publisher_id != refused,
        seen=lambda part: (of_part(part), complete),
    )
    judged = judge_acceptability(
        outcome,
        messages,
        scope,
        Paged(own, rows + 1),
        worse_variant=(lambda theirs, _ours: theirs.leaf in worse_leaves) if rank else None,
        counts=lambda row: row.kind != SignatureType.ERC_1271 or row.signed_digest in allowed,
        stored=stored,
        behind_full=(lambda row: row.order > cut) if cut is not None else None,
        admits=lambda page: refused not in page.publishers(),
        seen=lambda part: (map(row_of, of_part(part)), complete),
    )
    if valid.answer.name == "YES":  # else nobody asks, and entries may say anything
        assert judged == expected
    else:
        assert isinstance(judged, Verdict)


def bent(
    data: st.DataObject, outcome: Outcome, kept: list[Record], sets: Sequence[Sequence[Record]]
) -> tuple[Outcome, list[Record]]:
    """The proposal as built, or with something wrong."""
    how = data.draw(st.sampled_from(["as built", "as built", "other messages", "full", "flags", "evidence", "total"]))
    if how == "other messages":
        others = [r for members in sets for r in members]
        gone = data.draw(st.sets(st.sampled_from(kept))) if kept else set()
        more = data.draw(st.sets(st.sampled_from(others), max_size=3)) if others else set()
        kept = sorted({*kept, *more} - gone, key=lambda r: r.order)
    totals = {e.stream_part: e for e in make_entries(kept)}
    flags = {e.stream_part: e.flags for e in outcome.entries}
    if how == "full":
        flags = {part: flag | Flag.FULL for part, flag in flags.items()}
    if how == "flags":
        flags = {part: flag ^ data.draw(st.sampled_from(list(Flag))) for part, flag in flags.items()}
    entries = [with_flags(totals.get(part), part, flag) for part, flag in flags.items()]
    if how == "other messages":
        evidence, count, parts = plain.find_equivocations(kept, PARAMETERS.evidence_limit)
        outcome = replace(outcome, evidence=evidence, evidence_count=count)
        entries = [
            replace(e, flags=e.flags | Flag.EQUIVOCATION if e.stream_part in parts else e.flags & ~Flag.EQUIVOCATION)
            for e in entries
        ]
    if how == "evidence":
        outcome = replace(outcome, evidence_count=outcome.evidence_count + 1)
    if how == "total" and entries:
        entries[0] = replace(entries[0], signed_bytes=entries[0].signed_bytes + 1)
    return replace(outcome, entries=tuple(entries), root=entries_root(entries)), kept


def with_flags(total: PartitionEntry | None, part: StreamPart, flags: Flag) -> PartitionEntry:
    return replace(total or make_entry(part, []), flags=flags)


# --- joining ----------------------------------------------------------------------------------------


@given(data=st.data(), rows=st.integers(1, 5), others=st.integers(1, 5))
def test_what_a_set_lacks_of_another_is_found_with_what_it_holds_instead(
    data: st.DataObject, rows: int, others: int
) -> None:
    ours, theirs = one_each(some_of_pool(data)), one_each(some_of_pool(data))
    held = {r.identity: r for r in theirs}
    leaves = {r.leaf for r in theirs}
    for part in PARTS:
        expected = [
            (row_of(r), row_of(held[r.identity]) if r.identity in held else None)
            for r in ours
            if r.message.stream_part == part and r.leaf not in leaves
        ]
        assert list(lacking(Paged(ours, rows).pages(part), Paged(theirs, others).pages(part))) == expected


@given(data=st.data(), rows=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_sets_merge_in_canonical_order(data: st.DataObject, rows: list[int]) -> None:
    members = some_of_pool(data)
    homes = [data.draw(st.integers(0, len(rows) - 1)) for _ in members]
    gone = {r.leaf for r in members if data.draw(st.booleans())}
    sets = [
        Paged([r for r, home in zip(members, homes, strict=True) if home == n], size) for n, size in enumerate(rows)
    ]
    for part in PARTS:
        expected = sorted((r for r in members if r.message.stream_part == part), key=lambda r: r.order)
        pages = list(merge([s.pages(part) for s in sets]))
        assert [row for page in pages for row in page.rows()] == [row_of(r) for r in expected]
        assert [data for page in pages for data in page.canonical()] == [r.canonical for r in expected]
        left = [row for page in without(iter(pages), gone) for row in page.rows()]
        assert left == [row_of(r) for r in expected if r.leaf not in gone]


@given(data=st.data(), rows=st.integers(1, 5))
def test_records_in_memory_are_a_set_like_any_other(data: st.DataObject, rows: int) -> None:
    members = some_of_pool(data)
    held, paged = RecordSet(members), Paged(members, rows)
    assert held.entries == paged.entries
    for part in PARTS:
        found = [row for page in held.pages(part) for row in page.rows()]
        assert found == [row for page in paged.pages(part) for row in page.rows()]
