from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence

import pytest

from tests.conformance.negentropy import Harness
from tests.conformance.negentropy import main as harness_main
from validator.protocol.consensus import reconcile as reconciling
from validator.protocol.consensus.reconcile import (
    INFINITY,
    Bound,
    Records,
    answer,
    encode_varint,
    initiate,
    reconcile,
)
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import Digest

Items = list[tuple[int, bytes]]


def some_items(count: int, seed: int = 1, span: int = 1000) -> Items:
    rng = random.Random(seed)
    return [(1_700_000_000_000 + rng.randrange(span), rng.randbytes(32)) for _ in range(count)]


def run(
    ours: Records, theirs: Records, *, frame_limit: int = 0, strong: bool = False
) -> tuple[set[bytes], set[bytes], int, int]:
    """A whole session: (have, need, round trips, bytes both ways)."""
    have: set[bytes] = set()
    need: set[bytes] = set()
    rounds = size = 0
    message: bytes | None = initiate(ours, strong=strong)
    while message is not None:
        reply = answer(theirs, message, frame_limit=frame_limit, strong=strong)
        rounds, size = rounds + 1, size + len(message) + len(reply)
        message, more_have, more_need = reconcile(ours, reply, frame_limit=frame_limit, strong=strong)
        have.update(more_have)
        need.update(more_need)
    return have, need, rounds, size


def test_which_of_some_ids_are_here_is_told_however_many_are_looked_at_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconciling, "LOOKED_AT", 3)
    items = some_items(10)
    records = Records(items[:8])
    ids = {Digest(item[1]) for item in items}
    assert records.among(ids) == {item[1] for item in items[:8]}
    assert records.among({Digest(items[9][1])}) == records.among(set()) == set()


# --- bytes, computed by hand from the protocol's text ---------------------------------------------


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8100"),
        (16383, "ff7f"),
        (16384, "818000"),
        (INFINITY, "81" + "ff" * 8 + "7f"),
    ],
)
def test_numbers_are_base_128_most_significant_first(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded


def test_an_empty_set_says_so() -> None:
    assert initiate(Records([])).hex() == "61" + "00" + "00" + "02" + "00"


def test_fewer_than_32_records_are_sent_as_ids() -> None:
    items = sorted(some_items(31))
    assert initiate(Records(items)) == b"\x61\0\0\x02\x1f" + b"".join(item[1] for item in items)


def test_32_records_are_sent_as_16_fingerprints_with_shortest_bounds() -> None:
    items = [(5 if n < 30 else 900, bytes([n // 4, n]) + bytes(30)) for n in range(32)]
    expected = b"\x61"
    last = 0
    for bucket in range(16):
        ids = [items[2 * bucket][1], items[2 * bucket + 1][1]]
        if bucket == 15:
            bound = b"\0\0"
        else:
            timestamp, following = items[2 * bucket + 2]
            prefix = b"" if timestamp == 900 else following[: 1 if bucket % 2 else 2]
            bound = encode_varint(timestamp - last + 1) + bytes([len(prefix)]) + prefix
            last = timestamp
        total = sum(int.from_bytes(i, "little") for i in ids) % 2**256
        expected += bound + b"\x01" + hashlib.sha256(total.to_bytes(32, "little") + b"\x02").digest()[:16]
    assert initiate(Records(items)) == expected


def test_equal_sets_end_after_one_answer_of_one_byte() -> None:
    records = Records(some_items(1000))
    assert answer(records, initiate(records)) == b"\x61"
    assert reconcile(records, b"\x61") == (None, [], [])


def test_another_protocol_version_is_answered_with_ours() -> None:
    assert answer(Records([]), b"\x62\x00\x00\x01") == b"\x61"
    with pytest.raises(MalformedInput, match="0x62"):
        reconcile(Records([]), b"\x62")


def test_settled_ranges_in_a_row_become_one_skip() -> None:
    items = sorted(some_items(320))
    reply = answer(Records(items[:-1]), initiate(Records(items)))
    skip, ids = b"\x00", b"\x02\x13" + b"".join(item[1] for item in items[300:319])
    assert reply[0] == 0x61
    assert reply.endswith(skip + b"\x00\x00" + ids)
    assert len(reply) < 1 + 9 + 1 + 32 + len(skip) + 2 + len(ids)


# --- records --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "items",
    [
        [(1, b"a" * 32), (1, b"a" * 32)],
        [(1, b"a" * 31)],
        [(-1, b"a" * 32)],
        [(INFINITY, b"a" * 32)],
        [(1 << 64, b"a" * 32)],
    ],
)
def test_records_that_cannot_be_are_refused(items: Items) -> None:
    with pytest.raises(MalformedInput, match="records"):
        Records(items)


def test_find_agrees_with_a_search_from_the_front() -> None:
    items = sorted(some_items(300, span=20))
    records = Records(items)
    rng = random.Random(2)
    bounds = [
        Bound(items[rng.randrange(300)][0] + rng.randrange(-1, 2), rng.randbytes(rng.randrange(4))) for _ in range(300)
    ]
    bounds += [Bound(ms, item) for ms, item in items[:50]] + [Bound(0), Bound(INFINITY), Bound(INFINITY - 1)]
    for bound in bounds:
        naive = next((i for i, item in enumerate(items) if item >= bound.padded), 300)
        assert records.find(bound, 0) == naive
        assert records.find(bound, naive) == naive


def test_fingerprints_follow_the_text_of_the_protocol() -> None:
    items = sorted(some_items(200))
    records = Records(items)
    for lower, upper in ((0, 0), (0, 200), (7, 8), (13, 199)):
        total = sum(int.from_bytes(i, "little") for _, i in items[lower:upper]) % 2**256
        plain = hashlib.sha256(total.to_bytes(32, "little") + encode_varint(upper - lower)).digest()[:16]
        assert records.compute_fingerprint(lower, upper) == plain
        joined = b"".join(i for _, i in items[lower:upper])
        assert records.compute_fingerprint(lower, upper, strong=True) == hashlib.sha256(joined).digest()


# --- sessions -------------------------------------------------------------------------------------


def test_1000_differences_in_200_000_cost_a_fraction_of_all_ids_and_a_handful_of_rounds() -> None:
    items = list(dict.fromkeys(some_items(200_000, span=60_000)))
    rng = random.Random(3)
    gone = {rng.randrange(len(items)) for _ in range(1000)}
    ours = Records(item for i, item in enumerate(items) if i not in gone or i % 2)
    theirs = Records(item for i, item in enumerate(items) if i not in gone or not i % 2)
    have, need, rounds, size = run(ours, theirs)
    assert have == {items[i][1] for i in gone if i % 2}
    assert need == {items[i][1] for i in gone if not i % 2}
    assert rounds <= 4
    assert size < 200_000 * 32 / 10


def collide(count: int) -> tuple[Items, Items]:
    """Two sets that differ in two ids and have equal sums: what somebody who chooses ids can do."""
    numbers = [(n + 1) << 128 for n in range(count)]
    ours, theirs = list(numbers), list(numbers)
    ours[4] += 1
    theirs[5] += 1

    def items(of: list[int]) -> Items:
        return [(1000 + n, number.to_bytes(32, "little")) for n, number in enumerate(of)]

    return items(ours), items(theirs)


def test_sums_that_collide_deceive_the_plain_session_and_not_the_strong_one() -> None:
    ours, theirs = collide(320)
    assert sum(int.from_bytes(i, "little") for _, i in ours) == sum(int.from_bytes(i, "little") for _, i in theirs)
    assert run(Records(ours), Records(theirs))[:2] == (set(), set())
    have, need, _, _ = run(Records(ours), Records(theirs), strong=True)
    assert have == {i for _, i in ours} - {i for _, i in theirs}
    assert need == {i for _, i in theirs} - {i for _, i in ours}
    assert len(have) == len(need) == 2


def test_a_frame_limit_below_the_protocols_least_is_our_own_mistake() -> None:
    with pytest.raises(InvariantError):
        answer(Records([]), b"\x61", frame_limit=4095)


@pytest.mark.parametrize("strong", [False, True])
def test_messages_keep_the_frame_limit(strong: bool) -> None:
    ours, theirs = Records(some_items(20_000, seed=1)), Records(some_items(20_000, seed=2))
    have: set[bytes] = set()
    need: set[bytes] = set()
    message: bytes | None = initiate(ours, strong=strong)
    while message is not None:
        reply = answer(theirs, message, frame_limit=8192, strong=strong)
        message, more_have, more_need = reconcile(ours, reply, frame_limit=8192, strong=strong)
        have.update(more_have)
        need.update(more_need)
        assert len(reply) <= 8192
        assert message is None or len(message) <= 8192
    assert (len(have), len(need)) == (20_000, 20_000)


# --- hostile messages -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("", "empty"),
        ("50", "version byte"),
        ("ff", "version byte"),
        ("6100", "cut short"),
        ("610000", "cut short"),
        ("61000001aabb", "cut short"),
        ("610000027f", "announced"),
        ("6100000281808080808080808000", "announced|64 bits"),
        ("61000003", "unknown mode"),
        ("610021" + "00" * 33 + "00", "prefix of 33"),
        ("618001", "leading zeros"),
        ("61" + "ff" * 11, "beyond 64 bits"),
        ("6183ffffffffffffffff7f0000", "beyond 64 bits"),
        ("6105020102000101000001", "not in order"),
    ],
)
def test_a_message_that_breaks_a_rule_is_refused(message: str, reason: str) -> None:
    with pytest.raises(MalformedInput, match=reason) as caught:
        answer(Records(some_items(50)), bytes.fromhex(message))
    assert caught.value.field == "negentropy"


def test_an_id_that_the_other_side_lists_twice_is_needed_once() -> None:
    unknown = b"\x01" * 32
    _, _, need = reconcile(Records([]), b"\x61\0\0\x02\x02" + unknown * 2)
    assert need == [unknown]


# --- the harness ----------------------------------------------------------------------------------


def talk(client: Harness, server: Harness) -> list[str]:
    """Drive two harnesses against each other; what the client said beside its messages."""
    said: list[str] = []
    (line,) = client.obey("initiate")
    while line != "done":
        (reply,) = server.obey(line)
        *found, line = client.obey(reply)
        said += found
    return said


def a_harness(items: Sequence[tuple[int, bytes]], frame_limit: int = 0) -> Harness:
    harness = Harness(frame_limit)
    for timestamp, item in items:
        assert not list(harness.obey(f"item,{timestamp},{item.hex()}"))
    assert not list(harness.obey("seal"))
    return harness


@pytest.mark.parametrize("frame_limit", [0, 4096])
def test_the_harness_finds_what_is_missing_where(frame_limit: int) -> None:
    items = some_items(900)
    said = talk(a_harness(items[:800], frame_limit), a_harness(items[50:], frame_limit))
    assert set(said) == {f"have,{i.hex()}" for _, i in items[:50]} | {f"need,{i.hex()}" for _, i in items[800:]}


@pytest.mark.parametrize("line", ["msg,61", "initiate", "item,1", "item,x,00", "nonsense", "item,1,zz"])
def test_a_line_that_does_not_fit_ends_the_harness_with_its_number(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(line + "\n"))
    assert harness_main([]) == 1
    assert "line 1" in capsys.readouterr().err


def test_a_wrong_frame_limit_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("100", "x"):
        monkeypatch.setenv("FRAMESIZELIMIT", value)
        assert harness_main([]) == 2
        assert "FRAMESIZELIMIT" in capsys.readouterr().err


def test_records_of_one_moment_and_of_the_first_moment_are_records() -> None:
    assert len(Records([(0, b"a" * 32), (0, b"b" * 32)])) == 2
    assert len(Records([(INFINITY - 1, b"a" * 32)])) == 1


def test_of_records_of_one_moment_each_is_found_by_its_id() -> None:
    ids = [bytes([n]) + bytes(31) for n in range(0, 250, 2)]
    records = Records([(5, i) for i in ids])
    for at, prefix in enumerate(ids):
        assert records.find(Bound(5, prefix), 0) == at
        assert records.find(Bound(5, bytes([prefix[0] + 1])), 0) == at + 1


@pytest.mark.parametrize("version", [0x60, 0x62, 0x6F])
def test_every_version_of_the_protocol_is_answered_with_ours(version: int) -> None:
    assert answer(Records([]), bytes([version])) == b"\x61"


@pytest.mark.parametrize("version", [0x5F, 0x70])
def test_what_is_no_version_of_the_protocol_is_refused(version: int) -> None:
    with pytest.raises(MalformedInput):
        answer(Records([]), bytes([version]))


def test_a_bound_that_repeats_the_one_before_and_the_largest_number_are_read() -> None:
    twice = bytes.fromhex("61 02 00 00 01 00 00 00 00 02 00".replace(" ", ""))
    assert answer(Records([]), twice)[0] == 0x61
    largest = b"\x61" + encode_varint(INFINITY) + b"\x00\x00"
    assert answer(Records([]), largest)[0] == 0x61
    beyond = b"\x61" + encode_varint(INFINITY + 1) + b"\x00\x00"
    with pytest.raises(MalformedInput, match="beyond 64 bits"):
        answer(Records([]), beyond)


def test_more_ids_than_the_rest_of_the_message_holds_are_refused_before_they_are_read() -> None:
    with pytest.raises(MalformedInput, match="2 ids announced, fewer sent"):
        answer(Records([]), b"\x61\x00\x00\x02\x02" + bytes(63))


def test_an_answer_begins_with_the_first_range_that_differs() -> None:
    item = (5, b"a" * 32)
    nothing = b"\x61\x00\x00\x02\x00"
    assert answer(Records([item]), nothing) == b"\x61\x00\x00\x02\x01" + item[1]


# --- where a frame ends ---------------------------------------------------------------------------

RESERVE = 200
"""Of a frame's limit so much is kept free for the fingerprint of the rest."""
LEAST = 4096


def in_buckets(missing: Sequence[int]) -> tuple[Records, Records, list[int]]:
    """What an initiator asks about in 16 fingerprints of 20 records each, what we have of it, and where our ranges end.

    ``missing``: per bucket how many of its records we lack; less than nine make our answer list the others.
    """
    items: Items = [(10 * number, hashlib.sha256(b"%d" % number).digest()) for number in range(320)]
    buckets = [items[start : start + 20][lacking:] for start, lacking in zip(range(0, 320, 20), missing, strict=True)]
    ends = [sum(map(len, buckets[: number + 1])) for number in range(16)]
    return Records(items), Records([item for bucket in buckets for item in bucket]), ends


def the_rest(records: Records, start: int, *, strong: bool) -> bytes:
    """The range that ends a full frame."""
    return b"\0\0\1" + records.compute_fingerprint(start, len(records), strong=strong)


def test_an_answer_that_fills_its_frame_to_the_byte_is_whole() -> None:
    theirs, ours, ends = in_buckets([1] * 16)
    whole = answer(ours, initiate(theirs), frame_limit=0)
    assert len(whole) > LEAST
    assert answer(ours, initiate(theirs), frame_limit=len(whole) + RESERVE) == whole
    cut = answer(ours, initiate(theirs), frame_limit=len(whole) + RESERVE - 1)
    assert cut.endswith(the_rest(ours, ends[-1], strong=False))
    assert len(cut) < len(whole)


def test_ranges_that_differ_side_by_side_have_nothing_between_them() -> None:
    theirs, ours, _ = in_buckets([1] * 16)
    heads = len(b"\x61") + 15 * len(encode_varint(200) + b"\0\2\x13") + len(b"\0\0\2\x13")
    assert len(answer(ours, initiate(theirs), frame_limit=0)) == heads + 32 * len(ours)


@pytest.mark.parametrize("strong", [False, True])
def test_the_rest_of_a_full_frame_begins_behind_the_range_given_up_or_where_the_frame_ends(strong: bool) -> None:
    theirs, ours, ends = in_buckets([1] * 16)
    whole = answer(ours, initiate(theirs, strong=strong), frame_limit=0, strong=strong)
    cut = answer(ours, initiate(theirs, strong=strong), frame_limit=LEAST, strong=strong)
    fit = 6  # of 613 bytes each
    tail = the_rest(ours, ends[fit - 1] if strong else ends[fit], strong=strong)
    assert cut.endswith(tail)
    kept = len(cut) - len(tail)
    assert cut[:kept] == whole[:kept]
    assert cut.count(b"\2\x13") == fit


def test_what_was_settled_but_not_said_belongs_to_the_rest_of_a_strong_frame() -> None:
    theirs, ours, ends = in_buckets([1, 1, 1, 1, 1, 1, 0, *[1] * 9])
    cut = answer(ours, initiate(theirs, strong=True), frame_limit=LEAST, strong=True)
    assert cut.endswith(the_rest(ours, ends[5], strong=True)), "the seventh range is equal, and no skip tells of it"


@pytest.mark.parametrize("strong", [False, True])
def test_ids_are_listed_up_to_the_one_that_reaches_the_limit_and_stay(strong: bool) -> None:
    _, ours, _ = in_buckets([0] * 16)
    cut = answer(ours, initiate(Records([]), strong=strong), frame_limit=LEAST, strong=strong)
    count = (LEAST - RESERVE - 1) // 32 + 1
    moment, identifier = ours[count]
    head = b"\x61" + encode_varint(moment + 1) + b"\x20" + identifier + b"\2" + encode_varint(count)
    assert cut == head + ours.join_ids(0, count) + the_rest(ours, count, strong=strong)
