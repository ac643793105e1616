"""Against a second implementation, written from the protocol's text with lists and sums, without indexes."""

from __future__ import annotations

import hashlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from validator.protocol.consensus.reconcile import INFINITY, Records, answer, encode_varint, initiate, reconcile
from validator.protocol.errors import MalformedInput

Item = tuple[int, bytes]


class Naive:
    """One side; items in a sorted list, every range a slice of it."""

    def __init__(self, items: set[Item], limit: int) -> None:
        self.items = sorted(items)
        self.limit = limit

    def initiate(self) -> bytes:
        return b"\x61" + self.ranges(self.split(self.items, (INFINITY, b"")))

    def full(self, out: list[tuple[tuple[int, bytes], bytes]]) -> bool:
        return bool(self.limit) and 1 + len(self.ranges(out)) > self.limit - 200

    def handle(self, message: bytes, initiator: bool) -> tuple[bytes, set[bytes], set[bytes]]:
        have: set[bytes] = set()
        need: set[bytes] = set()
        out: list[tuple[tuple[int, bytes], bytes]] = []
        skipped: tuple[int, bytes] | None = None
        start: tuple[int, bytes] = (0, b"")
        for bound, mode, payload in self.parse(message):
            mine = [i for i in self.items if self.pad(start) <= i < self.pad(bound)]
            behind = [i for i in self.items if i >= self.pad(bound)]
            new: list[tuple[tuple[int, bytes], bytes]] = []
            kept = list(out)
            if mode == 1 and payload != self.fingerprint(mine):
                new = self.split(mine, bound)
            elif mode == 2 and initiator:
                theirs = {payload[i : i + 32] for i in range(0, len(payload), 32)}
                have |= {i for _, i in mine} - theirs
                need |= theirs - {i for _, i in mine}
            elif mode == 2:
                listed: list[Item] = []
                size = 1 + len(self.ranges(out))
                end = bound
                for item in mine:
                    if self.limit and size + 32 * len(listed) > self.limit - 200:
                        end, behind = item, [i for i in self.items if i >= item]
                        break
                    listed.append(item)
                out = [*out, *([(skipped, b"\0")] if skipped else []), (end, self.ids(listed))]
                skipped = None
            if new:
                kept = [*out, *([(skipped, b"\0")] if skipped else []), *new]
            if self.full(kept if new else out):
                out = [*out, ((INFINITY, b""), b"\x01" + self.fingerprint(behind))]
                return b"\x61" + self.ranges(out), have, need
            if new:
                out, skipped = kept, None
            elif mode != 2 or initiator:
                skipped = bound
            start = bound
        return b"\x61" + self.ranges(out), have, need

    def split(self, mine: list[Item], bound: tuple[int, bytes]) -> list[tuple[tuple[int, bytes], bytes]]:
        if len(mine) < 32:
            return [(bound, self.ids(mine))]
        sizes = [len(mine) // 16 + (n < len(mine) % 16) for n in range(16)]
        out = []
        at = 0
        for size in sizes:
            bucket, at = mine[at : at + size], at + size
            out.append(
                (self.between(bucket[-1], mine[at]) if at < len(mine) else bound, b"\x01" + self.fingerprint(bucket))
            )
        return out

    @staticmethod
    def between(a: Item, b: Item) -> tuple[int, bytes]:
        if a[0] != b[0]:
            return (b[0], b"")
        for size in range(1, 33):
            if a[1][:size] != b[1][:size]:
                return (b[0], b[1][:size])
        raise AssertionError

    @staticmethod
    def pad(bound: tuple[int, bytes]) -> Item:
        return (bound[0], (bound[1] + bytes(32))[:32])

    @staticmethod
    def fingerprint(items: list[Item]) -> bytes:
        total = sum(int.from_bytes(i, "little") for _, i in items) % 2**256
        return hashlib.sha256(total.to_bytes(32, "little") + encode_varint(len(items))).digest()[:16]

    @staticmethod
    def ids(items: list[Item]) -> bytes:
        return b"\x02" + encode_varint(len(items)) + b"".join(i for _, i in items)

    @staticmethod
    def ranges(out: list[tuple[tuple[int, bytes], bytes]]) -> bytes:
        data, last = b"", 0
        for (timestamp, prefix), payload in out:
            data += b"\0" if timestamp == INFINITY else encode_varint(timestamp - last + 1)
            data += bytes([len(prefix)]) + prefix + payload
            last = timestamp
        return data

    @staticmethod
    def parse(message: bytes) -> list[tuple[tuple[int, bytes], int, bytes]]:
        out = []
        at, last = 1, 0

        def number() -> int:
            nonlocal at
            value = 0
            while True:
                at += 1
                value = value * 128 + message[at - 1] % 128
                if message[at - 1] < 128:
                    return value

        while at < len(message):
            delta = number()
            last = INFINITY if delta == 0 else last + delta - 1
            size = number()
            bound = (last, message[at : at + size])
            at += size
            mode = number()
            length = {0: 0, 1: 16}.get(mode)
            if length is None:
                length = 32 * number()
            out.append((bound, mode, message[at : at + length]))
            at += length
        return out


@st.composite
def two_sets(draw: st.DrawFn) -> tuple[set[Item], set[Item]]:
    """Sets with much in common, few or many timestamps, ids with long common prefixes or none."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    count = draw(st.sampled_from([0, 1, 20, 40, 100, 400, 900]))
    span = draw(st.sampled_from([1, 3, 1000, 2**40]))
    prefix = bytes(draw(st.sampled_from([0, 1, 29])))
    items = {(rng.randrange(span), prefix + rng.randbytes(32 - len(prefix))) for _ in range(count)}
    keep = draw(st.tuples(st.sampled_from([0, 0.3, 0.9, 0.99, 1]), st.sampled_from([0, 0.3, 0.9, 0.99, 1])))
    ours, theirs = ({i for i in items if rng.random() < part} for part in keep)
    return ours, theirs


@settings(max_examples=60, deadline=None)
@given(sets=two_sets(), limit=st.sampled_from([0, 0, 4096, 6000]))
def test_every_message_is_the_other_implementations_byte_for_byte(
    sets: tuple[set[Item], set[Item]], limit: int
) -> None:
    ours, theirs = sets
    client, server = Records(ours), Records(theirs)
    naive_client, naive_server = Naive(ours, limit), Naive(theirs, limit)
    message: bytes | None = initiate(client)
    assert message == naive_client.initiate()
    have: set[bytes] = set()
    need: set[bytes] = set()
    while message is not None:
        reply = answer(server, message, frame_limit=limit)
        assert reply == naive_server.handle(message, initiator=False)[0]
        message, more_have, more_need = reconcile(client, reply, frame_limit=limit)
        naive, naive_have, naive_need = naive_client.handle(reply, initiator=True)
        assert (message or b"\x61", set(more_have), set(more_need)) == (naive, naive_have, naive_need)
        have.update(more_have)
        need.update(more_need)
    if not limit:
        assert (have, need) == ({i for _, i in ours - theirs}, {i for _, i in theirs - ours})


@settings(max_examples=60, deadline=None)
@given(sets=two_sets(), limit=st.sampled_from([0, 4096]))
def test_a_strong_session_finds_exactly_the_difference(sets: tuple[set[Item], set[Item]], limit: int) -> None:
    ours, theirs = sets
    client, server = Records(ours), Records(theirs)
    have: set[bytes] = set()
    need: set[bytes] = set()
    message: bytes | None = initiate(client, strong=True)
    while message is not None:
        reply = answer(server, message, frame_limit=limit, strong=True)
        message, more_have, more_need = reconcile(client, reply, frame_limit=limit, strong=True)
        have.update(more_have)
        need.update(more_need)
    assert (have, need) == ({i for _, i in ours - theirs}, {i for _, i in theirs - ours})


@settings(max_examples=200, deadline=None)
@given(message=st.binary(max_size=200), strong=st.booleans())
def test_any_bytes_are_answered_or_refused(message: bytes, strong: bool) -> None:
    records = Records([(n // 3, n.to_bytes(32, "big")) for n in range(100)])
    for data in (message, b"\x61" + message):
        try:
            reply = answer(records, data, strong=strong)
            reconcile(records, data, strong=strong)
        except MalformedInput:
            continue
        assert reply[0] == 0x61


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_message_is_answered_or_refused(data: st.DataObject) -> None:
    records = Records([(n // 3, hashlib.sha256(bytes([n])).digest()) for n in range(200)])
    other = Records([(n // 3, hashlib.sha256(bytes([n])).digest()) for n in range(50, 250)])
    whole = bytearray(data.draw(st.sampled_from([initiate(records), answer(other, initiate(records))])))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for message in (bytes(whole), bytes(whole[:cut])):
        try:
            assert answer(records, message, frame_limit=4096)[0] == 0x61
            reconcile(records, message, frame_limit=4096)
        except MalformedInput:
            continue
