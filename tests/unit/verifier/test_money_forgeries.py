"""Money: every forgery of reports, ledgers, payments and books is caught by the claim that is there for it.

The tables say which claim must fail and in which words, so a forgery passes again as soon as its check is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import GENESIS_MS
from tests.bundle_builder import CHAIN_ID, CONTRACTS, MEMBERS
from tests.fakes.finished_chain import NEWEST_BLOCK
from tests.fakes.finished_gateway import a_wallet, another_wallet
from tests.fakes.finished_run import (
    BROKERS,
    CONSUMER,
    STREAMS,
    WALLETS,
    FinishedRun,
    Plan,
    _config,
    a_long_plan,
    a_longer_plan,
    a_plan,
)
from tests.fakes.forgery import (
    ChangePlan,
    ChangeRun,
    Forgery,
    findings_of,
    in_books,
    in_file,
    in_manifest,
    in_report,
    shift,
)
from tests.verifier.claims import Claim
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.codec.config import config_digest
from validator.protocol.codec.ledger_changes import encode_changes, encode_ledger_part, follow_ledger
from validator.protocol.codec.manifest import encode_ledger, ledger_root
from validator.protocol.codec.report import pack_lines, report_digest
from validator.protocol.hashing import order_committee
from validator.protocol.model import Address, Digest, Manifest, Root
from validator.protocol.report import ConsumerLine, Debt, InFlight, Ledger, NodeLine, Report, StreamLine

STRANGER = Address(b"\x77" * 20)


# --- reports --------------------------------------------------------------------------------------


def all_to(*nodes: int) -> Callable[[Report], Report]:
    """All rewards go to one member that served nothing; to nobody: to the treasury."""

    def change(report: Report) -> Report:
        total = sum(line.amount for line in report.nodes)
        lines = tuple(NodeLine(50 + n, MEMBERS[n].address, total) for n in nodes)
        return replace(report, nodes=lines, treasury=report.treasury + (0 if nodes else total))

    return change


def fine(report: Report) -> Report:
    """A broker loses for nothing, and the other one has it."""
    return shift(shift(report, BROKERS[0].address, -(10**6)), BROKERS[1].address, 10**6)


def charge_twice(report: Report) -> Report:
    """The consumer pays double; the difference goes to the treasury, so that amounts still add up."""
    (line,) = report.consumers
    return replace(
        report, consumers=(replace(line, capture=2 * line.capture),), treasury=report.treasury + line.capture
    )


def charge_in_full(report: Report) -> Report:
    """The receipt's whole cumulative value once more, not its growth since the last report."""
    (line,) = report.consumers
    more = 1_500 - line.capture
    return replace(report, consumers=(replace(line, capture=1_500, bytes=1_500),), treasury=report.treasury + more)


def let_consumers_off(report: Report) -> Report:
    """What consumers do not pay, a node gives: amounts still add up."""
    taken = sum(line.capture for line in report.consumers)
    return replace(shift(report, report.nodes[0].node, -taken), consumers=(), treasury=report.treasury)


def charge_a_stream(more: int) -> Callable[[Report], Report]:
    def change(report: Report) -> Report:
        first, *others = report.streams
        lines = (replace(first, capture=first.capture + more), *others)
        return replace(report, streams=lines, treasury=report.treasury + more)

    return change


def charge_a_strange_stream(report: Report) -> Report:
    lines = (*report.streams, StreamLine(99, STREAMS[0] + "-2", 5, 0))
    return replace(report, streams=lines, treasury=report.treasury + 5)


def charge_a_stranger(report: Report) -> Report:
    lines = (*report.consumers, ConsumerLine(99, STRANGER, 5, 5))
    return replace(report, consumers=lines, treasury=report.treasury + 5)


def of_report(name: str, claim: Claim, words: str, change: Callable[[Report], Report], number: int = 0) -> Forgery:
    return Forgery(name, claim, words, in_report(number, change))


REPORTS = [
    of_report("all rewards go to one member", Claim.NODES, "gets 0, not", all_to(2)),
    of_report("no broker is paid", Claim.NODES, "gets 0, not", all_to()),
    of_report("the treasury is given what nodes earned", Claim.TREASURY, "the treasury gets", all_to()),
    of_report(
        "the treasury's part goes to a node",
        Claim.TREASURY,
        "the treasury gets 0, not",
        lambda r: shift(r, r.nodes[0].node, r.treasury),
    ),
    of_report("a broker is fined for nothing", Claim.NODES, "gets -99", fine),
    of_report(
        "a member is credited that did not upload",
        Claim.NODES,
        "gets 10, not 0",
        lambda r: shift(r, MEMBERS[3].address, 10),
    ),
    of_report(
        "the uploader is not credited",
        Claim.NODES,
        f"node 0x{MEMBERS[0].address.hex()} gets 0, not",
        lambda r: shift(r, MEMBERS[0].address, -sum(x.amount for x in r.nodes if x.node == MEMBERS[0].address)),
    ),
    of_report("a stream pays more", Claim.STREAMS, "pays ", charge_a_stream(1)),
    of_report("a stream pays less", Claim.STREAMS, "pays ", charge_a_stream(-1)),
    of_report(
        "a stream that owes nothing pays", Claim.STREAMS, "number 99 pays 5 for 0 bytes, not 0", charge_a_strange_stream
    ),
    of_report(
        "a stream's bytes are others",
        Claim.STREAMS,
        "for 1 bytes, not",
        lambda r: replace(r, streams=(replace(r.streams[0], bytes=1), *r.streams[1:])),
    ),
    of_report("a consumer pays double", Claim.CONSUMERS, "pays 2000 for 1000 bytes, not 1000 for 1000", charge_twice),
    of_report(
        "a receipt is charged again", Claim.CONSUMERS, "pays 1500 for 1500 bytes, not 500 for 500", charge_in_full, 1
    ),
    of_report("a consumer pays that reads nothing", Claim.CONSUMERS, "pays 5 for 5 bytes, not 0", charge_a_stranger),
    of_report("a stranger pays more than it signed for", Claim.CONSUMERS, "more than it signed for", charge_a_stranger),
    Forgery(
        "consumers never pay",
        Claim.CONSUMERS,
        f"consumer 0x{CONSUMER.address.hex()}: paid nothing",
        lambda plan: setattr(plan, "report", let_consumers_off),
    ),
    of_report("more is given than taken", Claim.MOVED, "captures", lambda r: replace(r, treasury=r.treasury + 5)),
    of_report("the first window is another", Claim.CONTENT, "another first window", lambda r: replace(r, first_ms=1)),
    of_report(
        "the last window is another", Claim.CONTENT, "another last window", lambda r: replace(r, last_ms=r.last_ms + 1)
    ),
    of_report(
        "the previous root is another",
        Claim.CONTENT,
        "another previous root",
        lambda r: replace(r, previous_root=Root(b"\1" * 32)),
    ),
    of_report("the height is another", Claim.CONTENT, "another height", lambda r: replace(r, height=r.height - 1)),
    of_report(
        "the block is another",
        Claim.CONTENT,
        "another block hash",
        lambda r: replace(r, block_hash=Digest(b"\1" * 32)),
    ),
    of_report(
        "the config is another",
        Claim.CONTENT,
        "another config digest",
        lambda r: replace(r, config_digest=Digest(b"\1" * 32)),
    ),
    of_report(
        "the bundle is another",
        Claim.BUNDLES,
        "its root is not the report's",
        lambda r: replace(r, bundle_root=Root(b"\1" * 32)),
    ),
    of_report("the number is another", Claim.ACCEPTED, "calls itself 5", lambda r: replace(r, number=5), 1),
    of_report(
        "the next committee is another",
        Claim.ROTATIONS,
        "names another committee",
        lambda r: replace(r, next_committee=r.next_committee[:3]),
    ),
    of_report(
        "the next config is another",
        Claim.ROTATIONS,
        "names another config digest",
        lambda r: replace(r, next_config_digest=Digest(b"\1" * 32)),
    ),
    Forgery(
        "a committee is named within an epoch",
        Claim.ROTATIONS,
        "report 0: names another committee",
        in_report(0, lambda r: replace(r, next_committee=(MEMBERS[0].address,), next_config_digest=Digest(b"\1" * 32))),
        start=a_long_plan,
    ),
]


# --- ledgers --------------------------------------------------------------------------------------


def in_ledger(change: Callable[[Ledger], Ledger]) -> ChangePlan:
    """The ledger in the second bundle's manifest; the report before keeps the true one's root."""

    def forge(manifest: Manifest) -> Manifest:
        ledger = follow_ledger(Ledger(), manifest.ledger)
        return replace(manifest, ledger=encode_ledger_part(Ledger(), change(ledger), first=False))

    return in_manifest(1, forge)


def in_changes(change: Callable[[Ledger, Ledger], bytes]) -> ChangePlan:
    """What the third bundle's manifest says of the ledger, made from the one before and the true one."""

    def apply(plan: Plan) -> None:
        former = Ledger()

        def forge(manifest: Manifest) -> Manifest:
            nonlocal former
            ledger = follow_ledger(former, manifest.ledger)
            if manifest.header.number == 2:
                return replace(manifest, ledger=change(former, ledger))
            former = ledger
            return manifest

        plan.manifest = forge

    return apply


def owe(ledger: Ledger) -> Ledger:
    return replace(ledger, owed={STREAMS[0]: Debt(10**6, 0, 0)})


def forget_reads(ledger: Ledger) -> Ledger:
    return replace(ledger, cumulative={})


def fly(ledger: Ledger) -> Ledger:
    return replace(ledger, in_flight=(InFlight(0, {STREAMS[0]: 10**9}, {}, {}),))


def agree_on(change: Callable[[Ledger], Ledger]) -> ChangePlan:
    """All members leave the same false ledger behind, in report and manifest alike."""

    def apply(plan: Plan) -> None:
        honest: list[Ledger] = []

        def report(r: Report) -> Report:
            return replace(r, ledger_root=ledger_root(change(honest_of(r)))) if r.number == 0 else r

        def honest_of(_: Report) -> Ledger:
            return honest[0]

        def build(*arguments: Any, **named: Any) -> tuple[Report, Ledger]:
            result, ledger = true_build(*arguments, **named)
            honest.append(ledger)
            return result, change(ledger) if result.number == 0 else ledger

        true_build = plan.settle
        plan.settle = build
        plan.report = report

    return apply


LEDGERS = [
    Forgery(
        "changes make up a debt",
        Claim.LEDGER,
        "bundle 2: debts of streams differ",
        in_changes(lambda former, ledger: encode_changes(former, owe(ledger))),
        start=a_longer_plan,
    ),
    Forgery(
        "the whole stands where changes are due",
        Claim.LEDGER,
        "bundle 2: the ledger is written in the other way",
        in_changes(lambda _, ledger: encode_ledger(ledger)),
        start=a_longer_plan,
    ),
    Forgery(
        "changes are of another ledger",
        Claim.LEDGER,
        "which is not in the ledger before",
        in_changes(lambda former, ledger: encode_changes(owe(former), ledger)),
        start=a_longer_plan,
    ),
    Forgery("captures in flight are others", Claim.LEDGER, "captures in flight differ", in_ledger(fly)),
    Forgery("a debt is entered", Claim.LEDGER, "debts of streams differ", in_ledger(owe)),
    Forgery(
        "paid bytes are forgotten", Claim.LEDGER, "bytes that consumers have paid for differ", in_ledger(forget_reads)
    ),
    of_report(
        "another ledger is left behind",
        Claim.LEDGER,
        "report 1: leaves another ledger than the account",
        lambda r: replace(r, ledger_root=Digest(b"\1" * 32)),
        1,
    ),
    Forgery("captures are made up by all", Claim.LEDGER, "report 0: leaves another ledger", agree_on(fly)),
    Forgery("debts are made up by all", Claim.STREAMS, "report 1: stream", agree_on(owe)),
    Forgery("reads are forgotten by all", Claim.CONSUMERS, "report 1: consumer", agree_on(forget_reads)),
]


# --- contracts ------------------------------------------------------------------------------------


def move(view: str) -> ChangeRun:
    """A balance that did not move as reported."""

    def apply(run: FinishedRun) -> None:
        argument = next(what for _, name, what, _ in run.chain.moves if name == view)
        run.chain.move(view, argument, 1, NEWEST_BLOCK)

    return apply


def cut(contract: str, name: str, **values: Any) -> ChangeRun:
    return lambda run: run.chain.emit(contract, name, 120, **values)


def hold_another_root(run: FinishedRun) -> None:
    run.chain.held[0] = (b"\x05" * 32, *run.chain.held[0][1:])


def believe_everybody(run: FinishedRun) -> None:
    """A contract that calls every proof good."""
    run.chain.verify_message = lambda *_: (True,)


def announce(**values: Any) -> ChangeRun:
    """The event of the first report says something else than its call."""

    def apply(run: FinishedRun) -> None:
        number, transaction = 0, next(iter(run.chain.transactions))
        (log,) = [
            log
            for log in run.chain.logs
            if log["transactionHash"] == transaction
            and len(log["topics"]) == 2
            and log["topics"][1] == "0x" + number.to_bytes(32, "big").hex()
        ]
        report = run.reports[0]
        true = {
            "number": 0,
            "bundleRoot": report.bundle_root,
            "storageId": report.storage_id,
            "reportDigest": report_digest(report, CHAIN_ID, CONTRACTS.report_manager),
            "ledgerRoot": report.ledger_root,
            "uploader": "0x" + report.uploader.hex(),
            "lines": pack_lines(report),
            "signerBitmap": run.chain.held[0][3],
            "captured": sum(x.capture for x in report.streams) + sum(x.capture for x in report.consumers),
            "treasury": report.treasury,
        }
        run.chain.emit("report_manager", "ReportAccepted", 114, transaction, **{**true, **values})
        run.chain.logs[run.chain.logs.index(log)] = run.chain.logs.pop()

    return apply


def lose_the_last_report(run: FinishedRun) -> None:
    del run.chain.held[1]


def resign(run: FinishedRun) -> None:
    """The signatures' last byte, in what was sent."""
    call = next(iter(run.chain.transactions.values()))
    call["input"] = call["input"][:-2] + ("00" if call["input"][-2:] != "00" else "01")


def set_a_committee(run: FinishedRun) -> None:
    """The owner sets three members behind the back of all reports, once these have been accepted."""
    config = _config(1)
    run.chain.change_committee(replace(config, committee=config.committee[:3]), NEWEST_BLOCK, "0x77")


CONTRACTS_ = [
    Forgery(
        "a committee was set by no report", Claim.ROTATIONS, "was set by no report that names it", run=set_a_committee
    ),
    Forgery("a store's balance is another", Claim.BALANCES, "stream 0x", run=move("stores")),
    Forgery("a consumer's balance is another", Claim.BALANCES, "consumer 0x", run=move("balanceOf")),
    Forgery("a node's stake is another", Claim.BALANCES, "node 0x", run=move("nodeStake")),
    Forgery("the treasury holds something else", Claim.BALANCES, "treasury: holds", run=move("treasurySupply")),
    Forgery(
        "a consumer's capture was cut",
        Claim.MOVED,
        "query_manager captured less",
        run=cut("query_manager", "CaptureShort", index=1, wanted=2, captured=1),
    ),
    Forgery(
        "a store's capture was cut",
        Claim.MOVED,
        "store_manager captured less",
        run=cut("store_manager", "CaptureShort", index=1, wanted=2, captured=1),
    ),
    Forgery(
        "a node line was cut",
        Claim.MOVED,
        "a node line was cut",
        run=cut("node_manager", "NodeLineShort", index=1, wanted=2, settled=1),
    ),
    Forgery(
        "the contract holds another root", Claim.ACCEPTED, "is held by the contract with other", run=hold_another_root
    ),
    Forgery(
        "the contract takes no proof of what is stored",
        Claim.PROVABLE,
        "does not take the proof",
        run=hold_another_root,
    ),
    Forgery(
        "the contract takes proofs of what is not stored",
        Claim.PROVABLE,
        "takes a proof of another content",
        run=believe_everybody,
    ),
    Forgery(
        "the contract announced another root",
        Claim.ACCEPTED,
        "was announced with other values",
        run=announce(bundleRoot=b"\1" * 32),
    ),
    Forgery("the contract captured something else", Claim.MOVED, "the contract captured", run=announce(captured=1)),
    Forgery("the treasury got something else", Claim.MOVED, "the treasury got", run=announce(treasury=1)),
    Forgery("the contract lost a report", Claim.ACCEPTED, "1 accepted", run=lose_the_last_report),
    Forgery(
        "a report has too few signers",
        Claim.REPORT_SIGNATURES,
        "2 signers where 3 are needed",
        lambda plan: setattr(plan, "report_signers", MEMBERS[:2]),
    ),
    Forgery("a report was not signed as it was sent", Claim.REPORT_SIGNATURES, "report 0: ", run=resign),
]


# --- uploads --------------------------------------------------------------------------------------

ORDER = order_committee([key.address for key in MEMBERS], config_digest(_config(0)), b"upload" + (0).to_bytes(8, "big"))
FIRST, SECOND, THIRD = ([key.address for key in MEMBERS].index(member) for member in ORDER[:3])


def killed(uploader: int = FIRST, payer: int = SECOND, dead: int = FIRST, **times: int) -> ChangePlan:
    """``uploader`` pays first, ``payer`` pays too, ``dead`` is killed."""

    def apply(plan: Plan) -> None:
        plan.uploader = uploader
        plan.wallets = {payer: another_wallet().address}
        plan.killed = f"validator-{dead}"
        plan.killed_ms = GENESIS_MS + times.get("killed_ms", 10_500)
        plan.back_ms = GENESIS_MS + times.get("back_ms", 20_000)

    return apply


def pay_again(at_ms: int = 26_000, times: int = 1) -> ChangeRun:
    """The second wallet pays for the first bundle; the first one was paid for 10 s after genesis."""

    def apply(run: FinishedRun) -> None:
        for _ in range(times):
            run.gateway.upload_again(run.reports[0].storage_id, GENESIS_MS + at_ms, another_wallet)

    return apply


def pay_again_itself(run: FinishedRun) -> None:
    """For a little more."""
    run.gateway.upload_again(run.reports[0].storage_id, GENESIS_MS + 26_000, a_wallet, reward=5_001)


def in_transaction(**changes: Any) -> ChangeRun:
    """The books say something else of the first transaction."""
    return in_books(lambda books: books["transactions"][0].update(changes))


def by_a_stranger(plan: Plan) -> None:
    """The wallet that pays is no validator's."""
    plan.wallets = {0: WALLETS[0]}


def share_a_wallet(plan: Plan) -> None:
    """Member 1 names the wallet on chain that member 0 pays with."""
    name_wallet(plan, 1, a_wallet().address)


def lend_the_wallet(plan: Plan) -> None:
    """The wallet that pays is named by member 1 alone, and member 0 announces its uploads."""
    name_wallet(plan, 1, a_wallet().address)
    name_wallet(plan, 0, WALLETS[1])


def name_wallet(plan: Plan, member: int, wallet: bytes) -> None:
    address = MEMBERS[member].address
    plan.nodes[address] = {**plan.nodes[address], "arweave": encode_base64url(wallet)}


def pay_for_nothing(run: FinishedRun) -> None:
    run.gateway.upload(b"data", (("Bundle-Root", "ab" * 32),), GENESIS_MS)


TWICE = "was paid for 2 times"
UPLOADS = [
    Forgery(
        "a bundle was paid twice",
        Claim.UPLOADS,
        TWICE,
        lambda p: p.wallets.update({1: another_wallet().address}),
        pay_again(),
    ),
    Forgery("a bundle was paid three times", Claim.UPLOADS, "was paid for 3 times", killed(), pay_again(times=2)),
    Forgery("the killed one paid twice itself", Claim.UPLOADS, TWICE, killed(), pay_again_itself),
    Forgery("the killed one had no part in it", Claim.UPLOADS, TWICE, killed(dead=THIRD), pay_again()),
    Forgery("the killed one paid second", Claim.UPLOADS, TWICE, killed(dead=SECOND), pay_again()),
    Forgery("another than the next in turn paid", Claim.UPLOADS, TWICE, killed(payer=THIRD), pay_again()),
    Forgery("the second payment was before the kill", Claim.UPLOADS, TWICE, killed(killed_ms=40_000), pay_again()),
    Forgery("the first payment was after the kill", Claim.UPLOADS, TWICE, killed(killed_ms=5_000), pay_again()),
    Forgery("the killed one was long back", Claim.UPLOADS, TWICE, killed(), pay_again(at_ms=36_000)),
    Forgery("the uploader is a stranger", Claim.UPLOADS, "not the wallet of one member", by_a_stranger),
    Forgery("two members name one wallet", Claim.UPLOADS, "not the wallet of one member", share_a_wallet),
    Forgery("the wallet is another member's", Claim.UPLOADS, "was announced by another node", lend_the_wallet),
    Forgery(
        "another than the uploader announced it",
        Claim.UPLOADS,
        "was announced by another node than its owner",
        in_report(0, lambda r: replace(r, uploader=MEMBERS[2].address)),
    ),
    Forgery(
        "the report's transaction was never paid for",
        Claim.UPLOADS,
        "was not paid for in the transaction that the report names",
        run=in_books(lambda books: books["transactions"].pop(0)),
    ),
    Forgery("somebody paid for a bundle of no report", Claim.UPLOADS, "in no report", run=pay_for_nothing),
    Forgery(
        "uploads cost a thousandfold",
        Claim.FEES,
        "cost 5000000 winston, where the gateway asks 5000",
        lambda p: setattr(p, "reward", 5_000_000),
    ),
    Forgery("uploads cost nothing", Claim.FEES, "cost 1 winston", lambda p: setattr(p, "reward", 1)),
    Forgery("the books have another reward", Claim.BOOKS, "is entered as", run=in_transaction(reward="5000000")),
    Forgery("the books have another owner", Claim.BOOKS, "is entered as", run=in_transaction(owner="x")),
    Forgery("the books have another bundle", Claim.BOOKS, "is entered as", run=in_transaction(bundle_root="ab" * 32)),
    Forgery("the books have another size", Claim.BOOKS, "is entered as", run=in_transaction(data_size=1)),
    Forgery("a transaction was never mined", Claim.BOOKS, "was never mined", run=in_transaction(height=None)),
    Forgery(
        "payments are counted otherwise", Claim.BOOKS, "counted otherwise", run=in_books(lambda b: b["paid"].clear())
    ),
    Forgery("more was spent", Claim.BOOKS, "were spent, where", run=in_books(lambda b: b.update(spent="1"))),
    Forgery("a wallet began with more", Claim.BOOKS, "equal amounts", run=in_books(lambda b: b.update(minted="1"))),
    Forgery(
        "a wallet has less than it should",
        Claim.BOOKS,
        "wallet of validator-2: holds 1, not",
        run=in_books(lambda b: b["balances"].update({encode_base64url(WALLETS[2]): "1"})),
    ),
    Forgery("a stranger paid", Claim.BOOKS, "who are no validators", by_a_stranger),
]


# --- the network ----------------------------------------------------------------------------------


def disown(plan: Plan) -> None:
    """A member that had no validator URL on chain."""
    plan.nodes[MEMBERS[3].address] = {}


def promote(plan: Plan) -> None:
    """A node that should have been a member."""
    plan.nodes[BROKERS[0].address] = {"http": "https://b.example", "validator": "https://v.example"}


NETWORK = [
    Forgery(
        "the chain is another",
        Claim.NETWORK,
        "another chain id",
        run=in_file("run.json", lambda r: r.update(chain_id=1)),
    ),
    Forgery(
        "the contracts are others",
        Claim.NETWORK,
        "other contracts",
        run=in_file("run.json", lambda r: r["contracts"].update(token="0x" + "01" * 19 + "ff")),
    ),
    Forgery(
        "the deployment is another",
        Claim.NETWORK,
        "another deployment block",
        run=in_file("run.json", lambda r: r.update(deployment_block=2)),
    ),
    Forgery(
        "two validators share a wallet",
        Claim.NETWORK,
        "a wallet twice",
        run=in_file("run.json", lambda r: r["validators"][1].update(wallet=r["validators"][2]["wallet"])),
    ),
    Forgery("a member was none on chain", Claim.COMMITTEES, "has 4 members, not the 3", disown),
    Forgery("a member on chain is left out", Claim.COMMITTEES, "has 4 members, not the 5", promote),
    Forgery("the next committee is not the chain's", Claim.ROTATIONS, "names another committee", disown),
    Forgery(
        "fewer windows were run",
        Claim.WINDOWS,
        "2 were agreed where 3 were run",
        run=in_file("run.json", lambda r: r.update(windows=3)),
    ),
]

ALL = [*REPORTS, *LEDGERS, *CONTRACTS_, *UPLOADS, *NETWORK]


@pytest.mark.parametrize("forgery", ALL, ids=lambda forgery: forgery.name)
def test_the_claim_that_is_there_for_it_catches_each_forgery(tmp_path: Path, forgery: Forgery) -> None:
    assert forgery.is_caught(tmp_path)


def test_the_next_in_turn_may_have_paid_for_a_bundle_of_the_killed_one(tmp_path: Path) -> None:
    plan = a_plan()
    killed()(plan)
    findings = findings_of(tmp_path, plan, pay_again())
    assert findings.failures == []
    assert findings.figures["bundles"][0]["paid"] == 2
