"""The port ``Peers`` over HTTP: every question signed, every answer's signature and promise checked.

Thread-safe, and one per process, so that the limits of connections hold. What a member answers is believed only with
its signature over our very request; an answer without one (a terminator's error page, a full listener) is a reason to
come back later, never a fact about the member.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TypeVar

from validator.net.http.client import BoundedClient
from validator.net.http.urls import ParsedUrl, check_url
from validator.net.peers import wire
from validator.net.signed.client import SignedClient
from validator.net.signed.pages import MAX_LEAVES, decode_page, encode_page, split_pages
from validator.net.signed.signing import Channel
from validator.ports.peers import Gossip, Handshake, HeldVotes
from validator.protocol.codec.message import leaf_of_canonical
from validator.protocol.codec.outcome import body_digest, decode_entries
from validator.protocol.codec.outcome import set_root as compute_set_root
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError, ValidatorError
from validator.protocol.model import Address, Digest, Flag, InstanceId, PartitionEntry, Root, StreamPart, VoteQuorum

DEADLINE_S = 10.0
"""Total deadline of a short question."""
TRANSFER_DEADLINE_S = 60.0
"""Total deadline of a question whose answer may be large."""
SET_DEADLINE_S = 300.0
"""Total deadline of all pages of one set: a member may fill a page with a single message."""
BROADCAST_DEADLINE_S = 3.0
_BROADCAST_THREADS = 32

T = TypeVar("T")


class HttpPeers:
    """The committee. ``endpoints`` gives each member's URL, as its metadata has it now.

    ``check`` turns that text into a URL that keeps the rules (``fetching.check_url`` with this network's settings).
    """

    def __init__(
        self,
        *,
        key: Signer,
        context: SigningContext,
        network: Digest,
        endpoints: Callable[[], Mapping[Address, str]],
        client: BoundedClient,
        check: Callable[[str], ParsedUrl] | None = None,
        now_ms: Callable[[], int] | None = None,
        deadline_s: float = DEADLINE_S,
        transfer_deadline_s: float = TRANSFER_DEADLINE_S,
        broadcast_deadline_s: float = BROADCAST_DEADLINE_S,
        set_deadline_s: float = SET_DEADLINE_S,
    ) -> None:
        self._asking = SignedClient(Channel(wire.PURPOSE, context, network), key, client, now_ms)
        self._endpoints = endpoints
        self._client = client
        self._check = check or (lambda url: check_url(url, allow_http=False))
        self._deadline_s = deadline_s
        self._transfer_deadline_s = transfer_deadline_s
        self._broadcast_deadline_s = broadcast_deadline_s
        self._set_deadline_s = set_deadline_s
        self._pool = ThreadPoolExecutor(_BROADCAST_THREADS, thread_name_prefix="peers")
        self._busy: set[Address] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Forget broadcasts that have not begun, close idle connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    # --- telling ---

    def broadcast(self, gossip: Gossip, members: Iterable[Address]) -> Mapping[Address, str]:
        """Send to all given members at once; "" or the error per member. Returns within the broadcast deadline.

        A member that still chews on an earlier broadcast is left out and said so: a slow one gathers no threads.
        """
        bodies = [wire.encode_gossip(part) for part in wire.split_gossip(gossip)]
        results: dict[Address, str] = {}
        running: dict[Future[str], Address] = {}
        for member in dict.fromkeys(members):
            with self._lock:
                if member in self._busy:
                    results[member] = "busy with an earlier broadcast"
                    continue
                self._busy.add(member)
            running[self._pool.submit(self._tell, member, bodies)] = member
        done, late = wait(running, timeout=self._broadcast_deadline_s)
        results.update({running[future]: future.result() for future in done})
        results.update({running[future]: "timed out" for future in late})
        return results

    def send(self, member: Address, gossip: Gossip) -> None:
        for part in wire.split_gossip(gossip):
            self._ask(member, wire.GOSSIP, wire.encode_gossip(part), self._deadline_s)

    def push_late(self, member: Address, messages: Sequence[bytes]) -> None:
        for page in split_pages(messages):
            self._ask(member, wire.LATE, encode_page(page), self._transfer_deadline_s)

    def _tell(self, member: Address, bodies: Sequence[bytes]) -> str:
        try:
            for body in bodies:
                self._ask(member, wire.GOSSIP, body, self._broadcast_deadline_s)
        except ValidatorError as error:
            return str(error) or type(error).__name__
        finally:
            with self._lock:
                self._busy.discard(member)
        return ""

    # --- asking ---

    def fetch_missing(self, member: Address, held: HeldVotes) -> Gossip:
        return self._read(
            member, wire.decode_gossip, self._ask(member, wire.MISSING, wire.encode_held(held), self._deadline_s)
        )

    def fetch_entries(self, member: Address, set_root: Root) -> tuple[PartitionEntry, ...]:
        """Checked: the entries' root is ``set_root``, flags are zero."""
        body = self._ask(member, wire.ENTRIES, wire.encode_set_root(set_root), self._transfer_deadline_s)
        entries = self._read(member, decode_entries, body)
        if any(e.flags != Flag(0) or e.count == 0 for e in entries) or compute_set_root(entries) != set_root:
            raise self._fault(member, "entries do not give the root of the set")
        return entries

    def reconcile(
        self, member: Address, set_root: Root, parts: Sequence[StreamPart], message: bytes, *, strong: bool
    ) -> bytes:
        body = wire.encode_reconcile(set_root, parts, message, strong=strong)
        return self._ask(member, wire.RECONCILE, body, self._transfer_deadline_s)

    def fetch_messages(self, member: Address, set_root: Root, leaves: Sequence[Digest]) -> list[bytes]:
        """Page after page, until all are here or a page brings nothing new. Only messages that were asked for.

        Raises:
            TransientError: not all within the total deadline.
        """
        missing = dict.fromkeys(leaves)
        found: list[bytes] = []
        until_s = time.monotonic() + self._set_deadline_s
        while missing:
            if time.monotonic() > until_s:
                raise TransientError(
                    f"0x{member.hex()}: {len(found)} of {len(leaves)} messages within {self._set_deadline_s:.0f} s",
                    member=member,
                )
            asked = list(itertools.islice(missing, MAX_LEAVES))
            body = wire.encode_leaves(set_root, asked)
            page = self._ask(member, wire.MESSAGES, body, self._transfer_deadline_s)
            messages = self._read(member, partial(decode_page, max_items=len(asked)), page)
            for message in messages:
                leaf = self._read(member, leaf_of_canonical, message)
                if leaf not in missing:
                    raise self._fault(member, "a message that was not asked for, or twice")
                del missing[leaf]
                found.append(message)
            if not messages:
                break
        return found

    def fetch_body(self, member: Address, digest: Digest) -> bytes:
        body = self._ask(member, wire.BODY, wire.encode_digest(digest), self._transfer_deadline_s)
        if body_digest(body) != digest:
            raise self._fault(member, "a body that has not the digest asked for")
        return body

    def fetch_observations(
        self, member: Address, instance: InstanceId, config_digest: Digest, digests: Sequence[Digest]
    ) -> Gossip:
        """Nothing but statements that name these digests, and bodies that have them; signatures are not checked."""
        asked = list(dict.fromkeys(digests))[: wire.MAX_NAMED]
        body = wire.encode_named(instance, config_digest, asked)
        answer = self._ask(member, wire.OBSERVATIONS, body, self._transfer_deadline_s)
        gossip = self._read(member, wire.decode_gossip, answer)
        named = {*(s.value for s in gossip.statements), *(body_digest(body) for body in gossip.bodies)}
        if not named <= set(asked):
            raise self._fault(member, "an observation that was not asked for")
        return Gossip(statements=gossip.statements, bodies=gossip.bodies)

    def fetch_certified(
        self, member: Address, instances: Sequence[InstanceId]
    ) -> list[tuple[InstanceId, bytes, VoteQuorum]]:
        """Of the first 256 instances, as many as fit one answer. Outcome and certificate name each other; signatures
        of the certificate are the caller's to check."""
        asked = list(dict.fromkeys(instances))[: wire.MAX_INSTANCES]
        body = self._ask(member, wire.CERTIFIED, wire.encode_instances(asked), self._transfer_deadline_s)
        certified = self._read(member, wire.decode_certified, body)
        open_ = set(asked)
        for instance, outcome, quorum in certified:
            if instance not in open_:
                raise self._fault(member, f"{instance} was not asked for, or twice")
            open_.remove(instance)
            if quorum.instance != instance or quorum.value != body_digest(outcome):
                raise self._fault(member, f"certificate and outcome of {instance} do not name each other")
        return certified

    def handshake(self, member: Address) -> Handshake:
        handshake = self._read(member, wire.decode_handshake, self._ask(member, wire.HANDSHAKE, b"", self._deadline_s))
        if handshake.member != member:
            raise self._fault(member, "the endpoint is another member's", other="0x" + handshake.member.hex())
        return handshake

    # --- one question ---

    def _ask(self, member: Address, path: str, body: bytes, deadline_s: float) -> bytes:
        text = self._endpoints().get(member)
        if text is None:
            raise TransientError(f"0x{member.hex()}: no endpoint", member=member)
        try:
            base = self._check(text)
        except MalformedInput as error:
            raise self._fault(member, f"endpoint: {error}") from error
        return self._asking.ask(member, base, path, body, max_bytes=wire.ANSWER_BYTES[path], deadline_s=deadline_s).body

    def _read(self, member: Address, decode: Callable[[bytes], T], body: bytes) -> T:
        try:
            return decode(body)
        except MalformedInput as error:
            raise self._fault(member, str(error)) from error

    def _fault(self, member: Address, reason: str, **fields: object) -> RemoteFault:
        return RemoteFault(f"0x{member.hex()}: {reason}", member=member, reason=reason, **fields)
