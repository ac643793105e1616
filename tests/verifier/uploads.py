"""Uploads: each bundle was paid for once and at the gateway's own price, and the gateway's books are sound.

The books are the development gateway's list of transactions, counts and balances. Whatever a transaction's owner signed
(reward, size, tags) is read from its header, so books can only be wrong about what they add up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.verifier.bundles import Archived
from tests.verifier.claims import Claim
from tests.verifier.findings import Findings
from tests.verifier.folder import Member, Run
from tests.verifier.gateway import Gateway
from tests.verifier.state import States
from validator.protocol.codec.arweave import Transaction, compute_address
from validator.protocol.codec.arweave_text import decode_storage_id, encode_base64url
from validator.protocol.hashing import order_committee
from validator.protocol.model import Address, StorageId

MOST_MARGIN_PERCENT = 10
"""What an uploader may offer above the price, since a header is charged when it is mined."""
BLOCK_MS = 1_000
"""Times of blocks are whole seconds."""


@dataclass(frozen=True, slots=True)
class Payment:
    """A mined transaction in the books, with its header."""

    storage_id: StorageId
    transaction: Transaction
    height: int

    @property
    def wallet(self) -> str:
        return encode_base64url(compute_address(self.transaction.owner))

    @property
    def bundle_root(self) -> str:
        return dict(self.transaction.tag_texts).get("Bundle-Root", "")


def check_uploads(
    run: Run,
    states: States,
    gateway: Gateway,
    bundles: Sequence[Archived],
    killed: Mapping[str, Any] | None,
    findings: Findings,
) -> dict[int, int]:
    """Compare; returns how often each bundle was paid for. ``killed``: what was collected about a killed validator."""
    books = gateway.stats()
    payments = list(_read_payments(gateway, books, findings))
    by_root: dict[str, list[Payment]] = defaultdict(list)
    for payment in payments:
        by_root[payment.bundle_root].append(payment)
    for bundle in bundles:
        where = f"bundle {bundle.number}"
        with findings.examining(Claim.UPLOADS, where):
            own = by_root[bundle.accepted.report.bundle_root.hex()]
            faults = list(_find_owner_faults(states, bundle, own))
            if len(own) > 1 and not is_excused(run, gateway, bundle, own, killed):
                faults.append(f"was paid for {len(own)} times: {[payment.wallet for payment in own]}")
            findings.faultless(Claim.UPLOADS, where, faults)
    known = {bundle.accepted.report.bundle_root.hex() for bundle in bundles}
    for root in sorted(set(by_root) - known):
        findings.fail(
            Claim.UPLOADS, f"bundle root {root[:16]}", f"was paid for by {by_root[root][0].wallet}, in no report"
        )
    for payment in payments:
        with findings.examining(Claim.FEES, encode_base64url(payment.storage_id)):
            _check_fee(gateway, payment, findings)
    _check_books(run, books, payments, findings)
    return {b.number: len(by_root[b.accepted.report.bundle_root.hex()]) for b in bundles}


def _find_owner_faults(states: States, bundle: Archived, payments: Sequence[Payment]) -> Iterator[str]:
    owner = compute_address(bundle.transaction.owner)
    member = wallets_of(states, bundle).get(owner)
    if member is None:
        yield f"is owned by {encode_base64url(owner)}, which is not the wallet of one member"
    elif member != bundle.accepted.report.uploader:
        yield "was announced by another node than its owner"
    if bundle.transaction.id not in {payment.storage_id for payment in payments}:
        yield "was not paid for in the transaction that the report names"


def wallets_of(states: States, bundle: Archived) -> Mapping[bytes, Address]:
    """The member behind each wallet, by what members named on chain at the block of the bundle's last window.

    A wallet that two of them name is nobody's.
    """
    nodes = states.at(bundle.block_hash).nodes
    named = [(nodes[m].wallet, m) for m in bundle.accepted.committee if m in nodes]
    times = Counter(wallet for wallet, _ in named)
    return {wallet: member for wallet, member in named if wallet is not None and times[wallet] == 1}


def member_of(run: Run, wallet: str) -> Member | None:
    return next((m for m in run.validators if encode_base64url(m.wallet) == wallet), None)


# --- a second payment -----------------------------------------------------------------------------


def is_excused(
    run: Run, gateway: Gateway, bundle: Archived, payments: Sequence[Payment], killed: Mapping[str, Any] | None
) -> bool:
    """Whether a kill explains a second payment.

    The killed validator paid first, before the kill; the next in turn paid after the kill, and not later than a stage
    after the killed one was back and could have gone on itself.
    """
    first, *others = sorted(payments, key=lambda payment: payment.height)
    if killed is None or run.killed is None or len(others) != 1:
        return False
    dead, successor = member_of(run, first.wallet), member_of(run, others[0].wallet)
    if dead is None or successor is None or dead.name != run.killed:
        return False
    if successor.address != next_in_turn(bundle, dead.address):
        return False
    killed_ms, back_ms = int(killed["killed_ms"]), int(killed["back_ms"])
    first_ms, second_ms = (gateway.mined_ms(p.storage_id) for p in (first, others[0]))
    in_time_ms = back_ms + bundle.parameters.upload_stage_ms
    return first_ms <= killed_ms + BLOCK_MS and killed_ms - BLOCK_MS <= second_ms <= in_time_ms


def next_in_turn(bundle: Archived, member: Address) -> Address | None:
    """Who uploads after a member where that one does not: the order is keyed by config digest and bundle number."""
    subject = b"upload" + bundle.number.to_bytes(8, "big")
    order = order_committee(bundle.accepted.committee, bundle.accepted.config_digest, subject)
    place = order.index(member) + 1 if member in order else len(order)
    return order[place] if place < len(order) else None


# --- books ----------------------------------------------------------------------------------------


def _read_payments(gateway: Gateway, books: Mapping[str, Any], findings: Findings) -> Iterator[Payment]:
    """Every mined transaction of the books whose header is there and says the same."""
    for line in books["transactions"]:
        where = f"transaction {line['id']}"
        with findings.examining(Claim.BOOKS, where):
            if line["height"] is None:
                findings.fail(Claim.BOOKS, where, "was never mined")
                continue
            storage_id = decode_storage_id(line["id"])
            payment = Payment(storage_id, gateway.transaction(storage_id), int(line["height"]))
            header = payment.transaction
            said = (line["owner"], int(line["reward"]), line["bundle_root"], int(line["data_size"]))
            signed = (payment.wallet, header.reward, payment.bundle_root, header.data_size)
            findings.expect(said == signed, Claim.BOOKS, where, f"is entered as {said}, where its header has {signed}")
            yield payment


def _check_fee(gateway: Gateway, payment: Payment, findings: Findings) -> None:
    price, reward = gateway.price(payment.transaction.data_size), payment.transaction.reward
    most = price * (100 + MOST_MARGIN_PERCENT) // 100 + 1
    wrong = f"cost {reward} winston, where the gateway asks {price} for {payment.transaction.data_size} bytes"
    findings.expect(price <= reward <= most, Claim.FEES, encode_base64url(payment.storage_id), wrong)


def _check_books(run: Run, books: Mapping[str, Any], payments: Sequence[Payment], findings: Findings) -> None:
    """All wallets began with the same amount; what is gone is what the mined transactions cost."""
    wallets = {encode_base64url(member.wallet): member.name for member in run.validators}
    paid: dict[str, Counter[str]] = defaultdict(Counter)
    spent: Counter[str] = Counter()
    for payment in payments:
        spent[payment.wallet] += payment.transaction.reward
        if payment.bundle_root:
            paid[payment.bundle_root][payment.wallet] += 1
    said = {root: dict(owners) for root, owners in books["paid"].items()}
    right = {root: dict(owners) for root, owners in paid.items()}
    findings.expect(said == right, Claim.BOOKS, "payments", "are counted otherwise than the transactions say")
    strangers = sorted(set(spent) - set(wallets))
    findings.expect(not strangers, Claim.BOOKS, "payments", f"{strangers} paid, who are no validators")
    start, rest = divmod(int(books["minted"]), len(wallets))
    findings.expect(not rest, Claim.BOOKS, "wallets", "were not given equal amounts")
    for wallet, name in wallets.items():
        left = int(books["balances"].get(wallet, "0"))
        wrong = f"holds {left}, not {start} - {spent[wallet]} winston"
        findings.expect(left == start - spent[wallet], Claim.BOOKS, f"wallet of {name}", wrong)
    wrong = f"says that {books['spent']} were spent, where transactions cost {sum(spent.values())}"
    findings.expect(int(books["spent"]) == sum(spent.values()), Claim.BOOKS, "total", wrong)
