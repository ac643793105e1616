"""Up to f liars with one mind. They see every packet at once, sign what they like, and choose receivers per vote.

A liar plays each round by one of ``PLAYS``; what it withholds in one round it may show in a later one, to whom it
likes, as single votes or as whole polkas and certificates. Proposals it leads are good, incomplete, invalid, of a
worse variant, of a wrong block, stale, or two at once; its observations may name data nobody has. Everything it
signs is a genuine signature of its own, and it cannot make anybody else's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.outcomes_in_memory import build_outcome
from tests.simulator.content import (
    BAD,
    FORGED,
    IDENTITY,
    PARAMETERS,
    POOL,
    RECORD_BYTES,
    RECORDS,
    Leaves,
    Value,
    end_of,
    make_value,
    observe,
    window_of,
)
from validator.protocol.codec.outcome import observation_digest
from validator.protocol.consensus import proposal as proposals
from validator.protocol.consensus import window as windows
from validator.protocol.hashing import hash_body, instance_subject, order_committee
from validator.protocol.model import (
    NIL,
    Address,
    Block,
    Digest,
    InstanceId,
    InstanceKind,
    Observation,
    Root,
    Statement,
    StatementKind,
    VoteQuorum,
)

if TYPE_CHECKING:
    from tests.simulator.node import Key
    from tests.simulator.world import World

OBSERVATION, PROPOSAL = StatementKind.OBSERVATION, StatementKind.PROPOSAL
PREVOTE, PRECOMMIT = StatementKind.PREVOTE, StatementKind.PRECOMMIT
PLAYS = ("silent", "loyal", "loyal", "split", "split", "one", "nil first", "late", "forge", "flood", "twice")
OFFERS = (
    "good",
    "incomplete",
    "short",
    "short",
    "invalid",
    "bad message",
    "variant",
    "block",
    "withheld",
    "stale",
    "open",
    "two",
    "fork",
)
OBSERVES = ("true", "true", "true", "no data", "two", "apart", "apart", "nothing", "bad", "slow")
DATA = ("serve", "serve", "slow", "never", "some")


class Book:
    """What the liars saw of one instance."""

    def __init__(self, committee: tuple[Address, ...], leaders: tuple[Address, ...]) -> None:
        self.committee = committee
        self.leaders = leaders
        self.quorum = len(committee) - (len(committee) - 1) // 3
        self.votes: dict[tuple[int, int, Digest], dict[Address, Statement]] = {}
        self.observations: dict[Address, Statement] = {}
        self.values: list[Digest] = []
        self.seen: set[bytes] = set()
        self.played: set[tuple[int, int]] = set()
        self.withheld: list[Statement] = []
        self.shown: set[tuple[int, int, Digest]] = set()
        self.round = 0
        self.led = False
        self.second: list[Statement] = []


class Liars:
    """The adversary of one run."""

    def __init__(self, world: World, addresses: list[Address]) -> None:
        self.world = world
        self.addresses = addresses
        self.rng = world.rng
        self.books: dict[Key, Book] = {}
        self.data = self.rng.choice(DATA)
        self.quiet_ms = 0
        self.favourite = self.rng.choice(PLAYS) if self.rng.random() < 0.5 else ""
        self.offer = self.rng.choice(OFFERS) if self.rng.random() < 0.5 else ""
        if addresses and self.rng.random() < 0.4:
            self.quiet_ms = end_of(0) + self.rng.randrange(500, 20_000)
        self.vetoes = bool(addresses) and self.rng.random() < 0.2
        self.short: set[Digest] = set()
        self.apart = 0
        """How often a liar's observations were split per receiver."""
        if self.vetoes:
            self.offer = "short"
        if not addresses:
            self.see = _see_nothing  # type: ignore[method-assign]

    @property
    def is_quiet(self) -> bool:
        """From some moment on they may say nothing at all any more."""
        return bool(self.quiet_ms) and self.world.now >= self.quiet_ms

    # --- seeing ---

    def see(self, source: Address, packet: tuple[Any, ...]) -> None:
        kind = packet[0]
        if kind != "say":
            if kind == "own" and packet[1] not in self.books:
                self.open_book(packet[1])
            return
        key = packet[1]
        book = self.books.get(key) or self.open_book(key)
        if book is None:
            return
        for s in packet[2]:
            if s.signature not in book.seen:
                book.seen.add(s.signature)
                self.note(key, book, s)

    def open_book(self, key: Key) -> Book | None:
        if key not in self.world.keys:
            return None
        committee = self.world.committee(key)
        leaders = order_committee(sorted(committee), key[0], instance_subject(key[1]))
        book = self.books[key] = Book(committee, leaders)
        for liar in self.addresses:
            if liar in committee:
                delay = self.rng.choice((0, 300, 1_500))
                self.world.at(max(self.world.now, end_of(window_of(key[1]))) + delay, self.observe, key, book, liar)
        if self.world.scenario.reopen and key[0] == self.world.new_digest and self.rng.random() < 0.7:
            self.later(key, 3_000, self.replay, book)
        return book

    def note(self, key: Key, book: Book, s: Statement) -> None:
        if s.kind is OBSERVATION:
            book.observations.setdefault(s.signer, s)
            self.lead_first(key, book)
            return
        if s.value != NIL and s.value not in book.values:
            book.values.append(s.value)
        if s.kind is not PROPOSAL:
            book.votes.setdefault((s.kind, s.round, s.value), {})[s.signer] = s
            if self.vetoes and s.kind is PREVOTE:
                self.veto(key, book, s)
            if s.value != NIL:
                self.hoard(key, book, s)
                if s.kind is PRECOMMIT and s.signer not in self.addresses:
                    self.contradict(key, book, s)
        book.round = max(book.round, s.round)
        for i, liar in enumerate(self.addresses):
            if liar in book.committee and (s.round, i) not in book.played:
                book.played.add((s.round, i))
                self.play(key, book, liar, s.round)
                if book.leaders[(s.round + 1) % len(book.leaders)] == liar and self.rng.random() < 0.5:
                    self.later(key, 200, self.propose, book, liar, s.round + 1)

    def lead_first(self, key: Key, book: Book) -> None:
        """Nobody speaks in a round 0 that a liar leads; it proposes once there is something to build from."""
        leader = book.leaders[0]
        honest = len(book.observations.keys() - set(self.addresses))
        enough = book.quorum - len(set(self.addresses) & set(book.committee))
        if leader in self.addresses and honest == enough and not book.led:
            book.led = True
            self.later(key, 600, self.propose, book, leader, 0)

    # --- saying ---

    def sign(
        self, key: Key, liar: Address, kind: StatementKind, round: int, value: Digest, valid: int = -1
    ) -> Statement:
        self.world.lies += 1
        s = self.world.sign(Statement(kind, key[0], key[1], round, value, liar, valid))
        self.books[key].seen.add(s.signature)
        return s

    def victims(self, book: Book) -> list[Address]:
        return [a for a in book.committee if a not in self.addresses]

    def say(
        self,
        key: Key,
        targets: list[Address],
        statements: list[Statement],
        quorums: tuple[VoteQuorum, ...] = (),
        bodies: tuple[Digest, ...] = (),
    ) -> None:
        if self.is_quiet or not targets:
            return
        for target in targets:
            self.world.at(
                self.world.now + self.rng.choice((1, 1, 10, 60)),
                self.world.deliver,
                self.addresses[0],
                target,
                ("say", key, tuple(statements), quorums, bodies),
            )

    def later(self, key: Key, within_ms: int, run: Any, *args: Any) -> None:
        self.world.at(self.world.now + self.rng.randrange(1, max(2, within_ms)), run, key, *args)

    def some(self, listed: list[Address]) -> list[Address]:
        return [a for a in listed if self.rng.random() < 0.5]

    # --- plays ---

    def play(self, key: Key, book: Book, liar: Address, round: int) -> None:
        if self.is_quiet:
            return
        if book.leaders[round % len(book.leaders)] == liar:
            self.propose(key, book, liar, round)
        if self.vetoes:
            if self.favoured(book, PREVOTE, round) not in self.short:
                self.later(key, 300, self.vote, book, liar, round, PREVOTE, "loyal")
            return
        play = self.favourite if self.favourite and self.rng.random() < 0.7 else self.rng.choice(PLAYS)
        if play == "silent":
            return
        if play == "forge":
            self.later(key, 1_500, self.forge, book, liar, round)
            return
        if play == "flood":
            self.flood(key, book, liar)
            return
        for kind, wait in ((PREVOTE, 600), (PRECOMMIT, 1_500)):
            self.later(key, wait, self.vote, book, liar, round, kind, play)

    def favoured(self, book: Book, kind: StatementKind, round: int) -> Digest:
        """The value most honest members voted for in this round so far."""
        counts = {v: len(signers) for (k, r, v), signers in book.votes.items() if r == round and k <= kind and v != NIL}
        if counts:
            return max(sorted(counts), key=lambda v: counts[v])
        return book.values[-1] if book.values else NIL

    def vote(self, key: Key, book: Book, liar: Address, round: int, kind: StatementKind, play: str) -> None:
        victims = self.victims(book)
        value = self.favoured(book, kind, round)
        yes = self.sign(key, liar, kind, round, value)
        nil = self.sign(key, liar, kind, round, NIL)
        if play == "loyal":
            self.say(key, victims, [yes])
        elif play == "split":
            other = self.sign(key, liar, kind, round, self.rng.choice([*book.values, NIL]))
            for victim in victims:
                self.say(key, [victim], [self.rng.choice((yes, nil, other))])
        elif play == "one":
            self.say(key, [self.rng.choice(victims)], [yes])
            if self.rng.random() < 0.5 and not self.quiet_ms and kind is PRECOMMIT:
                self.quiet_ms = self.world.now + 200
        elif play == "nil first":
            favoured = self.some(victims)
            self.say(key, victims, [nil])
            other = self.sign(key, liar, kind, round, hash_body(b"nothing"))
            if self.rng.random() < 0.5:
                self.say(key, victims, [other])
            self.later(key, 900, self.show_one, self.rng.choice(favoured or victims), yes)
        elif play == "late":
            book.withheld.append(yes)
            self.later(key, 6_000, self.show_one, self.rng.choice(victims), yes)
        elif play == "twice":
            again = self.sign(key, liar, kind, round, value)
            self.say(key, victims, [yes, again])

    def veto(self, key: Key, book: Book, s: Statement) -> None:
        """A value that lacks what few observed is proven to one, as the others are about to give up on it."""
        slots = [votes for (k, r, _), votes in book.votes.items() if k == PREVOTE and r == s.round]
        if len({a for votes in slots for a in votes}) == book.quorum:
            for (kind, round, value), votes in book.votes.items():
                if kind == PREVOTE and round == s.round and value in self.short:
                    timeouts = self.world.scenario.timeouts
                    at = self.world.now + timeouts.grown(timeouts.prevote_ms, round) - 5
                    one = votes[min(votes)]
                    self.world.at(at, self.show_quorum, key, book, one, [self.rng.choice(sorted(votes))])

    def show_one(self, key: Key, victim: Address, s: Statement) -> None:
        self.say(key, [victim], [s])

    def flood(self, key: Key, book: Book, liar: Address) -> None:
        """Votes of rounds far ahead, and more and more of them."""
        base = self.rng.choice((3, 50, 1_000_000))
        many = [self.sign(key, liar, PREVOTE, book.round + base + i, NIL) for i in range(self.rng.randrange(1, 12))]
        self.say(key, self.victims(book), many)

    def hoard(self, key: Key, book: Book, s: Statement) -> None:
        """A quorum that can be completed with own votes is shown to one member, now or rounds later."""
        slot = (s.kind, s.round, s.value)
        liars = [a for a in self.addresses if a in book.committee]
        if slot in book.shown or len(book.votes[slot].keys() - set(liars)) + len(liars) < book.quorum:
            return
        book.shown.add(slot)
        if self.rng.random() < 0.5:
            self.later(key, self.rng.choice((5, 300, 1_500, 9_000)), self.show_quorum, book, s)

    def contradict(self, key: Key, book: Book, lock: Statement) -> None:
        """Who has just locked is shown an older polka of another value; or the liars have what they want and go."""
        if self.vetoes and not self.quiet_ms and lock.value in self.short:
            self.quiet_ms = self.world.now + 1
            return
        liars = [a for a in self.addresses if a in book.committee]
        for (kind, round, value), votes in book.votes.items():
            if kind == PREVOTE and round < lock.round and value not in (NIL, lock.value):
                honest = votes.keys() - set(liars)
                if honest and len(honest) + len(liars) >= book.quorum:
                    one = votes[min(honest)]
                    self.later(key, 100, self.show_quorum, book, one, [lock.signer])

    def show_quorum(self, key: Key, book: Book, s: Statement, victims: list[Address] | None = None) -> None:
        votes = dict(book.votes[s.kind, s.round, s.value])
        for liar in self.addresses:
            if liar in book.committee:
                votes.setdefault(liar, self.sign(key, liar, s.kind, s.round, s.value))
        quorum = as_quorum(s, [(a, votes[a].signature) for a in sorted(votes)])
        if victims is None:
            victims = self.victims(book)
            victims = [self.rng.choice(victims)] if self.rng.random() < 0.7 else victims
        self.say(key, victims, [], (quorum,))

    def forge(self, key: Key, book: Book, liar: Address, round: int) -> None:
        """Quorums that are none: too few, one signer twice, mixed rounds, nil, another instance or digest."""
        kind = self.rng.choice((PREVOTE, PRECOMMIT, PRECOMMIT))
        own = [self.sign(key, a, kind, round, NIL) for a in self.addresses if a in book.committee]
        value = self.favoured(book, kind, round)
        trick = self.rng.choice(("few", "twice", "mixed", "nil", "foreign"))
        if trick == "nil":
            value = NIL
        base = Statement(kind, key[0], key[1], round, value, liar)
        held = dict(book.votes.get((kind, round, value), {}))
        for s in own:
            held[s.signer] = self.sign(key, s.signer, kind, round, value)
        pairs = [(a, held[a].signature) for a in sorted(held)]
        if trick == "twice" and pairs:
            mine = held[liar].signature
            pairs = sorted([*pairs, *[(liar, mine)] * (book.quorum - len(pairs))])
        elif trick == "mixed":
            mixed = {
                a: s for (k, _, v), votes in book.votes.items() if k is kind and v == value for a, s in votes.items()
            }
            mixed.update(held)
            pairs = [(a, mixed[a].signature) for a in sorted(mixed)]
        elif trick == "foreign":
            self.replay(key, book)
            return
        self.say(key, self.some(self.victims(book)), [], (as_quorum(base, pairs),))

    def replay(self, key: Key, book: Book) -> None:
        """Genuine quorums of another instance, or of the same one under an older config digest."""
        for other_key, other in list(self.books.items()):
            if other_key == key:
                continue
            for (kind, _, value), votes in list(other.votes.items()):
                if value != NIL and len(votes) >= other.quorum and kind in (PREVOTE, PRECOMMIT):
                    some = next(iter(votes.values()))
                    q = as_quorum(some, [(a, votes[a].signature) for a in sorted(votes)])
                    self.say(key, self.some(self.victims(book)), list(votes.values()), (q,))

    # --- observations and proposals ---

    def observe(self, key: Key, book: Book, liar: Address) -> None:
        """A true set, a set nobody has, an extreme price, two observations, or nothing."""
        if self.is_quiet:
            return
        how = self.rng.choice(OBSERVES)
        if how == "nothing":
            return
        if how == "apart":
            self.observe_apart(key, book, liar)
            return
        price = self.rng.choice((1, 999_999, 1_000)) if key[1].kind is InstanceKind.WINDOW else None
        leaves = self.any_leaves(key, liar)
        if how == "bad":
            leaves |= {BAD[window_of(key[1])].leaf}
        digest, observation = observe(liar, key[1], leaves, price)
        if how == "no data":
            observation = Observation(key[1], Root(hash_body(b"no data")), 3, 3_000, price=price, observer=liar)
            digest = hash_body(b"no data" + digest)
        else:
            self.world.root_of(leaves)
        self.world.observations[digest] = observation
        first = self.sign(key, liar, OBSERVATION, 0, digest)
        victims = self.victims(book)
        book.observations[liar] = first
        if how != "two":
            self.say(key, victims, [first])
            return
        other, second = observe(liar, key[1], frozenset(), price)
        self.world.root_of(frozenset())
        self.world.observations[other] = second
        chosen = self.some(victims)
        book.second.append(self.sign(key, liar, OBSERVATION, 0, other))
        self.say(key, chosen, [first])
        self.say(key, [v for v in victims if v not in chosen], book.second[-1:])

    def observe_apart(self, key: Key, book: Book, liar: Address) -> None:
        """Two observations for each receiver, and no two receivers get the same: what is kept of it differs by member.

        Half of the time they are all of one true set and differ in a price or a count only.
        """
        self.apart += 1
        true = self.rng.random() < 0.5
        leaves = self.any_leaves(key, liar)
        for number, victim in enumerate(v for v in self.victims(book) for _ in range(2)):
            price = 900 + number if key[1].kind is InstanceKind.WINDOW else None
            root = self.world.root_of(leaves) if true else Root(hash_body(b"apart %d" % number))
            size = len(leaves) + number
            observation = Observation(key[1], root, size, size * RECORD_BYTES, price=price, observer=liar)
            digest = observation_digest(observation)
            self.world.observations[digest] = observation
            s = self.sign(key, liar, OBSERVATION, 0, digest)
            book.observations.setdefault(liar, s)
            book.second.append(s)
            self.say(key, [victim], [s])

    def any_leaves(self, key: Key, liar: Address) -> Leaves:
        """Some of what exists, forged variants among it."""
        if key[1].kind is InstanceKind.LATE:
            return frozenset()
        window = window_of(key[1])
        rows = self.world.scenario.sights[window][liar[0] - 1]
        leaves = {sight.leaf for sight in rows}
        if self.rng.random() < 0.3:
            leaves |= {item.true.leaf for item in POOL[window][:3]}
        return one_each(leaves, prefer_forged=self.rng.random() < 0.5)

    def propose(self, key: Key, book: Book, liar: Address, round: int) -> None:
        if self.is_quiet or book.leaders[round % len(book.leaders)] != liar:
            return
        offer = self.offer if self.offer and self.rng.random() < 0.7 else self.rng.choice(OFFERS)
        victims = self.victims(book)
        if round and self.rng.random() < 0.5 and self.bait(key, book, liar, round):
            return
        if round and self.rng.random() < 0.5 and self.has_rival(book):
            offer = "open"
        if offer in ("stale", "open"):
            self.propose_again(key, book, liar, round, offer)
            return
        value = self.craft(key, book, offer)
        if value is None:
            return
        bodies = () if offer == "withheld" else (value.digest,)
        used = self.statements_used(book, value)
        first = self.sign(key, liar, PROPOSAL, round, value.digest)
        if offer not in ("two", "fork"):
            self.say(key, victims if self.rng.random() < 0.7 else self.some(victims), [*used, first], (), bodies)
            return
        other = self.craft(key, book, "good")
        chosen = self.some(victims)
        self.say(key, chosen, [*used, first], (), bodies)
        if other is not None:
            used = self.statements_used(book, other)
            second = self.sign(key, liar, PROPOSAL, round, other.digest)
            self.say(key, [v for v in victims if v not in chosen], [*used, second], (), (other.digest,))

    def bait(self, key: Key, book: Book, liar: Address, round: int) -> bool:
        """A value prevoted here and there gets the prevotes it lacks from a few; then the others are shown them all.

        They are of mixed rounds, and the valid round that goes with them is none.
        """
        liars = set(self.addresses) & set(book.committee)
        for value in book.values:
            before = prevoters(book, value) - liars
            free = [a for a in self.victims(book) if a not in before]
            missing = book.quorum - len(before) - len(liars)
            if value in self.world.values and before and 0 <= missing < len(free):
                if missing:
                    used = self.statements_used(book, self.world.values[value])
                    fresh = self.sign(key, liar, PROPOSAL, round, value)
                    self.say(key, free[:missing], [*used, fresh], (), (value,))
                again = self.sign(key, liar, PROPOSAL, round, value, round)
                self.world.at(self.world.now + 400, self.spring, key, book, again, free[missing:])
                return True
        return False

    def spring(self, key: Key, book: Book, again: Statement, victims: list[Address]) -> None:
        voted = [votes.values() for (k, _, v), votes in book.votes.items() if k == PREVOTE and v == again.value]
        mine = [self.sign(key, a, PREVOTE, again.round, again.value) for a in self.addresses if a in book.committee]
        used = self.statements_used(book, self.world.values[again.value])
        held = [s for votes in voted for s in votes]
        self.say(key, victims, [*used, *held, *mine, again], (), (again.value,))

    def statements_used(self, book: Book, value: Value) -> list[Statement]:
        return [s for s in (*book.observations.values(), *book.second) if s.value in value.outcome.observations]

    def has_rival(self, book: Book) -> bool:
        """A value other than the proven one that a quorum has prevoted over all rounds, liars included."""
        proven = {v for k, _, v in book.shown if k == PREVOTE}
        liars = sum(a in book.committee for a in self.addresses)
        return bool(proven) and any(
            len(prevoters(book, v)) + liars >= book.quorum for v in book.values if v not in proven
        )

    def propose_again(self, key: Key, book: Book, liar: Address, round: int, offer: str) -> None:
        """A re-proposal: with a true polka, without one, or with a valid round that is not below its round."""
        values = [v for v in book.values if v in self.world.values]
        if not values:
            return
        value = self.rng.choice(values)
        if self.rng.random() < 0.7:  # the value with most prevoters that the newest lock is not on
            proven_values = {v for k, _, v in book.shown if k == PREVOTE}
            others = [v for v in values if v not in proven_values] or values
            value = max(others, key=lambda v: len(prevoters(book, v)))
        valid = self.rng.randrange(0, round) if round and offer == "stale" else round + self.rng.randrange(0, 2)
        proven = [slot for slot in book.shown if slot[0] == PREVOTE and slot[1] < round]
        quorums: tuple[VoteQuorum, ...] = ()
        if proven and self.rng.random() < 0.6 and offer == "stale":
            slot = self.rng.choice(sorted(proven))
            valid, value = slot[1], slot[2]
            votes = dict(book.votes[slot])
            for a in self.addresses:
                if a in book.committee:
                    votes.setdefault(a, self.sign(key, a, PREVOTE, valid, value))
            quorums = (as_quorum(next(iter(votes.values())), [(a, votes[a].signature) for a in sorted(votes)]),)
        bodies = (value,) if value in self.world.values else ()
        again = self.sign(key, liar, PROPOSAL, round, value, valid)
        held = [votes for (k, _, v), votes in book.votes.items() if k == PREVOTE and v == value]
        earlier = [s for votes in held for s in votes.values()]
        mine = [self.sign(key, a, PREVOTE, max(0, valid), value) for a in self.addresses if a in book.committee]
        self.say(key, self.victims(book), [*earlier, *mine, again], quorums, bodies)

    def craft(self, key: Key, book: Book, offer: str) -> Value | None:
        """An outcome built with the real functions from what the liars choose to use."""
        world, instance = self.world, key[1]
        known = sorted(book.observations.items())
        if len(known) < book.quorum:
            return None
        chosen = dict(known if self.rng.random() < 0.5 else self.rng.sample(known, book.quorum))
        used = {s.value: world.observations[s.value] for s in chosen.values()}
        for s in book.second:  # its two observations in place of somebody else's
            if s.signer in chosen and self.rng.random() < 0.7:
                used[s.value] = world.observations[s.value]
                left = [o.value for a, o in chosen.items() if a not in self.addresses and o.value in used]
                if len(used) > book.quorum and left:
                    del used[left[0]]
        if len(used) < book.quorum:
            return None
        leaves: set[bytes] = set()
        for s in book.observations.values():
            leaves |= world.sets.get(world.observations[s.value].set_root, frozenset())
        leaves -= {record.leaf for record in BAD}
        if instance.kind is InstanceKind.LATE:
            leaves = self.late_leaves(instance, leaves, offer)
        if offer in ("incomplete", "two") and leaves:
            for leaf in self.rng.sample(sorted(leaves), self.rng.randrange(1, 1 + (len(leaves) + 1) // 2)):
                leaves -= {other for other in leaves if IDENTITY[other] == IDENTITY[leaf]}
        left_out = self.of_few_only(key, leaves, len(self.addresses)) if offer == "short" else set()
        leaves -= left_out
        forge = offer == "variant"
        if forge:
            for item in POOL[window_of(instance)]:
                if item.true.leaf in leaves and self.rng.random() < 0.5:
                    leaves.add(item.forged.leaf)
        records = [RECORDS[leaf] for leaf in sorted(one_each(leaves, prefer_forged=forge))]
        if offer == "bad message":
            records.append(BAD[window_of(instance)])
        records.sort(key=lambda r: r.order)
        block = world.block if offer != "block" else Block(99, hash_body(b"another"), 1)
        scope = proposals.Scope(block, world.scope_of(world.block).budgets)
        union = windows.Union(tuple(records), frozenset())
        outcome, kept = build_outcome(instance, scope, union, used, len(book.committee), PARAMETERS)
        if offer == "invalid":
            outcome = type(outcome)(
                outcome.instance,
                outcome.block_number,
                outcome.block_hash,
                outcome.entries,
                outcome.root,
                outcome.price + 1,
                outcome.shares,
                outcome.observations,
            )
        value = make_value(outcome, kept, used, len(book.committee))
        world.values.setdefault(value.digest, value)
        if left_out:
            self.short.add(value.digest)
        if value.digest not in book.values:
            book.values.append(value.digest)
        return value

    def of_few_only(self, key: Key, leaves: set[bytes], few: int) -> set[bytes]:
        """What at most ``few`` honest members observed: leaving it out splits them from the others."""
        frozen = self.world.monitor.frozen.get(key, {})
        holders: dict[bytes, list[Address]] = {}
        for address, held in frozen.items():
            for leaf in held & leaves:
                holders.setdefault(leaf, []).append(address)
        groups = sorted({tuple(sorted(who)) for who in holders.values() if len(who) <= few})
        if not groups:
            return set()
        victims = set(self.rng.choice(groups))
        return {leaf for leaf, who in holders.items() if victims.issuperset(who)}

    def late_leaves(self, instance: InstanceId, leaves: set[bytes], offer: str) -> set[bytes]:
        """What is not stored yet; to tempt, also variants of what is."""
        stored: set[bytes] = set()
        for other, value in self.world.monitor.outcomes.items():
            if other != instance:
                stored |= value.leaves
        identities = {IDENTITY[leaf] for leaf in stored}
        free = {leaf for leaf in leaves if IDENTITY[leaf] not in identities}
        if self.rng.random() < 0.6:
            twins = [
                item.forged.leaf
                for w in range(instance.number + 1)
                for item in POOL[w]
                if item.true.leaf in stored and item.forged.leaf not in stored
            ]
            free |= set(twins[:1])
        return free

    # --- serving ---

    def on_packet(self, liar: Address, source: Address, packet: tuple[Any, ...]) -> None:
        """Requests for data and for statements: served, served late, to some, or never."""
        kind, world = packet[0], self.world
        if self.is_quiet:
            return
        if kind == "want":
            serves = {"serve": 1.0, "slow": 1.0, "some": 0.4, "never": 0.0}[self.data]
            if self.rng.random() >= serves:
                return
            delay = 5 if self.data != "slow" else self.rng.randrange(200, 4_000)
            digest = packet[2]
            leaves = world.values[digest].leaves if digest in world.values else world.sets.get(Root(digest))
            if leaves is not None:
                book = self.books.get(packet[1])
                used: tuple[Statement, ...] = ()
                if digest in world.values and book is not None:
                    names = set(world.values[digest].outcome.observations)
                    used = tuple(s for s in book.observations.values() if s.value in names)
                world.at(world.now + delay, world.deliver, liar, source, ("have", packet[1], digest, leaves, used))
        elif kind == "own":
            world.at(world.now + 5, world.deliver, liar, source, ("told", packet[1], ()))
        elif kind == "ask":
            book = self.books.get(packet[1])
            if book is not None and book.withheld and self.rng.random() < 0.2:
                self.say(packet[1], [source], [self.rng.choice(book.withheld)])


def prevoters(book: Book, value: Digest) -> set[Address]:
    return {a for (k, _, v), held in book.votes.items() if k == PREVOTE and v == value for a in held}


def as_quorum(s: Statement, pairs: list[tuple[Address, bytes]]) -> VoteQuorum:
    return VoteQuorum(s.kind, s.config_digest, s.instance, s.round, s.value, tuple(pairs))


def one_each(leaves: set[bytes], *, prefer_forged: bool) -> Leaves:
    """One record per identity."""
    chosen: dict[object, bytes] = {}
    for leaf in sorted(leaves, key=lambda leaf: (leaf in FORGED) != prefer_forged):
        chosen.setdefault(IDENTITY[leaf], leaf)
    return frozenset(chosen.values())


def _see_nothing(source: Address, packet: tuple[Any, ...]) -> None:
    """No liars: nothing to note."""
