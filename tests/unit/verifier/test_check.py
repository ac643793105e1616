"""The independent check passes an honest run, and each broken promise makes it fail by name."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.builders import a_key
from tests.bundle_builder import MEMBERS, certify
from tests.fakes.finished_run import (
    CLOSING_MS,
    CONSUMER,
    WALLETS,
    FinishedRun,
    Plan,
    a_plan,
    a_publication,
    a_receipt,
    a_vote,
    finish,
    late,
    window,
)
from tests.verifier.check import check_run
from validator.codec.arweave import encode_base64url
from validator.model import Certified, Digest, NodeLine, Outcome, Report, Root

ChangePlan = Callable[[Plan], None]
ChangeRun = Callable[[FinishedRun], None]


def failures(
    folder: Path, change_plan: ChangePlan = lambda _: None, change_run: ChangeRun = lambda _: None
) -> list[str]:
    plan = a_plan()
    change_plan(plan)
    run = finish(folder, plan)
    change_run(run)
    return check_run(*run.parts).failures


def test_an_honest_run_is_verified_with_its_figures(tmp_path: Path) -> None:
    findings = check_run(*finish(tmp_path, a_plan()).parts)
    assert findings.failures == []
    summary = findings.summary()
    assert summary["verified"] is True
    assert {name: summary[name] for name in summary if name.startswith("messages_")} == {
        "messages_published": 12,
        "messages_unique_valid": 11,
        "messages_archived": 11,
        "messages_missing": 0,
        "messages_late": 1,
        "messages_archived_twice": 0,
    }
    assert summary["receipts"] == {"published": 3, "archived": 3, "charged_bytes": 1500, "captured": 1500}
    assert summary["forged_delivered"] == {"altered_content": 1, "unknown_publisher": 1, "wrong_signature": 1}
    assert [(b["number"], b["paid"], b["messages"], b["uploader"]) for b in summary["bundles"]] == [
        (0, 1, 10, "validator-0"),
        (1, 1, 1, "validator-0"),
    ]
    assert [(r["id"], r["status"], r["signers"]) for r in summary["reports"]] == [(0, "final", 3), (1, "final", 3)]


# --- messages -------------------------------------------------------------------------------------


def drop(plan: Plan) -> None:
    del plan.sets[window(0)][0]


def add(plan: Plan) -> None:
    plan.sets[window(1)].append(a_publication(4_500, 77).record)


def store_twice(plan: Plan) -> None:
    plan.sets[late(1)].append(plan.sets[window(1)][0])


def store_with_another_signature(plan: Plan) -> None:
    """The forged copy of a true message instead of it: one identity, another signature."""
    true = plan.published[0].record
    plan.sets[window(0)] = [plan.forged[0].record if r == true else r for r in plan.sets[window(0)]]


def store_altered_content(plan: Plan) -> None:
    plan.sets[window(0)].append(plan.forged[1].record)


def leave_late_set_out(plan: Plan) -> None:
    plan.sets[late(0)] = []


def put_a_punctual_message_into_the_late_set(plan: Plan) -> None:
    plan.sets[late(0)].append(plan.sets[window(0)].pop(0))


def store_what_reached_no_broker(plan: Plan) -> None:
    plan.sets[window(0)].append(plan.published[-1].record)


def deliver_what_nobody_published(plan: Plan) -> None:
    stranger = a_publication(1_200, 92)
    plan.forged.append(stranger)
    stranger.kind = "unnamed"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (drop, "reached a broker and is in no bundle"),
        (add, "was never published by anybody who may"),
        (store_twice, "is stored 2 times: bundle 0"),
        (store_with_another_signature, "has other fields than its publisher made"),
        (store_altered_content, "was never published by anybody who may"),
        (leave_late_set_out, "reached a broker and is in no bundle"),
        (put_a_punctual_message_into_the_late_set, "although it was at a broker"),
        (store_what_reached_no_broker, "is stored although it reached no broker"),
        (deliver_what_nobody_published, "forged messages of kind unnamed: have no known reason"),
    ],
)
def test_messages_are_stored_completely_exactly_and_once(tmp_path: Path, change: ChangePlan, named: str) -> None:
    assert any(named in failure for failure in failures(tmp_path, change))


def test_a_missing_message_is_named(tmp_path: Path) -> None:
    (failure,) = [f for f in failures(tmp_path, drop) if "in no bundle" in f]
    assert failure.startswith("message 0x") and " at 1700000000500.0 " in failure


# --- bundles and certificates ---------------------------------------------------------------------


def certify_window_0(make: Callable[[Outcome, Digest], Certified]) -> ChangePlan:
    def change(plan: Plan) -> None:
        plan.certify = lambda outcome, digest: (make if outcome.instance == window(0) else certify)(outcome, digest)

    return change


def by_strangers(outcome: Outcome, digest: Digest) -> Certified:
    return certify(outcome, digest, (a_key(201), a_key(202), a_key(203)))


def with_a_forged_signature(outcome: Outcome, digest: Digest) -> Certified:
    honest = certify(outcome, digest)
    (signer, _), *others = honest.certificate.signatures
    forged = replace(honest.certificate, signatures=((signer, others[0][1]), *others))
    return replace(honest, certificate=forged)


def of_too_few(outcome: Outcome, digest: Digest) -> Certified:
    return certify(outcome, digest, MEMBERS[:2])


def of_mixed_rounds(outcome: Outcome, digest: Digest) -> Certified:
    first = certify(outcome, digest, MEMBERS[:2], deciding_round=0)
    second = certify(outcome, digest, MEMBERS[2:3], deciding_round=1)
    signatures = tuple(sorted((*first.certificate.signatures, *second.certificate.signatures)))
    return replace(first, certificate=replace(first.certificate, signatures=signatures))


def of_an_older_digest(outcome: Outcome, _digest: Digest) -> Certified:
    return certify(outcome, Digest(b"\x09" * 32))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (by_strangers, "is not in the committee"),
        (with_a_forged_signature, "not of the named signer"),
        (of_too_few, "2 signers where 3 are needed"),
        (of_mixed_rounds, "not of the named signer"),
        (of_an_older_digest, "another config digest"),
    ],
)
def test_a_certificate_is_a_quorum_of_one_round_and_digest(
    tmp_path: Path, make: Callable[[Outcome, Digest], Certified], named: str
) -> None:
    found = failures(tmp_path, certify_window_0(make))
    assert any("bundle 0" in failure and named in failure for failure in found)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config_count": 1}, "config: has another config_count than the contract"),
        ({"committee": tuple(k.address for k in MEMBERS[:3])}, "config: names another committee than the contract"),
        ({"deployment_parent_hash": Digest(b"\x01" * 32)}, "config: is of another deployment"),
        ({"config_count": 7}, "config: is not the digest that the contract had at the report"),
        ({"config_count": 7}, "certificate of window:1700000000000: is of an older config digest"),
    ],
)
def test_the_config_is_the_contracts_own(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    def agree_under_another(plan: Plan) -> None:
        plan.config = lambda config: replace(config, **change)

    assert any(named in failure for failure in failures(tmp_path, agree_under_another))


def test_other_parameters_than_the_networks_are_named(tmp_path: Path) -> None:
    def change(plan: Plan) -> None:
        plan.config = lambda config: replace(config, parameters=replace(config.parameters, dust=2))

    assert any("has other parameters than the network file" in f for f in failures(tmp_path, change))


def test_a_tampered_file_is_no_bundle(tmp_path: Path) -> None:
    """One bit in the middle of the signatures."""

    def flip_bit(_number: int, data: bytes) -> bytes:
        group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
        column = next(
            group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "signature"
        )
        at = column.data_page_offset + column.total_compressed_size // 2
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    def flip(plan: Plan) -> None:
        plan.file = flip_bit

    found = failures(tmp_path, flip)
    assert any(f.startswith("bundle 0: cannot be examined: MalformedInput") for f in found)


def test_data_that_the_gateway_altered_is_not_what_was_signed(tmp_path: Path) -> None:
    def alter(run: FinishedRun) -> None:
        name = next(iter(run.gateway.bodies))
        run.gateway.bodies[name] = run.gateway.bodies[name][:-1] + b"2"

    assert any("is not what its transaction signed" in f for f in failures(tmp_path, change_run=alter))


def test_a_bundle_that_is_gone_is_named(tmp_path: Path) -> None:
    found = failures(tmp_path, change_run=lambda run: run.gateway.headers.clear())
    assert "bundle 0: cannot be examined: KeyError" in found[0]
    assert any("0 of 2 bundles could be read" in f for f in found)


def test_a_window_without_outcome_is_named(tmp_path: Path) -> None:
    def forget_report_1(run: FinishedRun) -> None:
        run.chain.logs = [log for log in run.chain.logs if log["transactionHash"] != list(run.chain.transactions)[1]]
        del run.chain.held[1]

    found = failures(tmp_path, change_run=forget_report_1)
    assert f"window {CLOSING_MS}: has no outcome" in found


def test_an_outcomes_block_is_the_one_that_its_time_names(tmp_path: Path) -> None:
    def later(plan: Plan) -> None:
        plan.certify = lambda outcome, digest: certify(replace(outcome, block_number=outcome.block_number + 1), digest)

    found = failures(tmp_path, later)
    assert any("has another hash on the chain" in f for f in found)
    assert any("is not the highest one at" in f for f in found)


# --- uploads --------------------------------------------------------------------------------------


def pay_again(owner: bytes) -> ChangeRun:
    def change(run: FinishedRun) -> None:
        root = next(iter(run.gateway.stats["paid"]))
        run.gateway.pay(encode_base64url(owner), root, bytes(32))

    return change


def killed_first(plan: Plan) -> None:
    plan.killed = "validator-0"


def killed_other(plan: Plan) -> None:
    plan.killed = "validator-3"


def test_a_bundle_that_was_paid_twice_is_named(tmp_path: Path) -> None:
    found = failures(tmp_path, change_run=pay_again(WALLETS[1]))
    assert any(f.startswith("bundle 0, upload: was paid for 2 times") for f in found)


def test_a_successor_may_have_paid_for_a_bundle_of_the_killed_one(tmp_path: Path) -> None:
    assert failures(tmp_path, killed_first, pay_again(WALLETS[1])) == []


def test_a_successor_may_not_pay_where_the_killed_one_had_no_part(tmp_path: Path) -> None:
    found = failures(tmp_path, killed_other, pay_again(WALLETS[1]))
    assert any("was paid for 2 times" in f for f in found)


def test_a_wallet_whose_balance_disagrees_with_the_count_is_named(tmp_path: Path) -> None:
    def lose(run: FinishedRun) -> None:
        run.gateway.stats["balances"][encode_base64url(WALLETS[2])] = "1"

    assert any(f.startswith("wallet of validator-2: holds 1") for f in failures(tmp_path, change_run=lose))


def test_a_payment_for_a_bundle_that_is_in_no_report_is_named(tmp_path: Path) -> None:
    def pay_for_nothing(run: FinishedRun) -> None:
        run.gateway.pay(encode_base64url(WALLETS[1]), "ab" * 32, bytes(32))

    assert any("is in no report" in f for f in failures(tmp_path, change_run=pay_for_nothing))


# --- reports and payments -------------------------------------------------------------------------


def change_report(number: int, change: Callable[[Report], Report]) -> ChangePlan:
    def apply(plan: Plan) -> None:
        plan.report = lambda report: change(report) if report.number == number else report

    return apply


def charge_twice(report: Report) -> Report:
    """The consumer pays double; the difference goes to the treasury, so that amounts still add up."""
    (line,) = report.consumers
    return replace(
        report,
        consumers=(replace(line, capture=2 * line.capture),),
        treasury=report.treasury + line.capture,
    )


def charge_a_stream_less(report: Report) -> Report:
    first, *others = report.streams
    return replace(report, streams=(replace(first, capture=first.capture - 1), *others), treasury=report.treasury - 1)


def give_more(report: Report) -> Report:
    return replace(report, nodes=(*report.nodes, NodeLine(MEMBERS[1].address, 5)))


def drop_consumers(report: Report) -> Report:
    """What consumers do not pay, the first node gives: amounts still add up."""
    taken = sum(line.capture for line in report.consumers)
    nodes = (replace(report.nodes[0], amount=report.nodes[0].amount - taken), *report.nodes[1:])
    return replace(report, consumers=(), nodes=nodes)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (charge_twice, f"consumer 0x{CONSUMER.address.hex()}: pays 2000 for 1000 bytes, not 1000 for 1000"),
        (charge_a_stream_less, "report 0: stream 0x"),
        (give_more, "report 0: captures"),
        (lambda r: replace(r, bundle_root=Root(b"\x01" * 32)), "bundle 0: cannot be examined"),
        (lambda r: replace(r, first_ms=1), "report 0: has another first window than its bundle"),
        (lambda r: replace(r, height=r.height - 1), "report 0: has another height than its bundle"),
        (lambda r: replace(r, ledger_root=Digest(b"\x01" * 32)), "report 0: its ledger is not the one"),
        (lambda r: replace(r, next_config_digest=Digest(b"\x01" * 32)), "report 0: names another config digest"),
        (lambda r: replace(r, uploader=MEMBERS[2].address), "bundle 0, upload: was announced by another node"),
        (lambda r: replace(r, streams=(replace(r.streams[0], bytes=1), *r.streams[1:])), "for 1 bytes, not"),
    ],
)
def test_a_report_that_does_not_match_is_named(tmp_path: Path, change: Callable[[Report], Report], named: str) -> None:
    assert any(named in failure for failure in failures(tmp_path, change_report(0, change)))


def test_a_receipt_that_is_charged_again_in_the_next_report_is_named(tmp_path: Path) -> None:
    """The closing bundle's receipt grows by 500 bytes; the report charges its full cumulative value."""

    def charge_full(report: Report) -> Report:
        (line,) = report.consumers
        more = 1_500 - line.capture
        return replace(report, consumers=(replace(line, capture=1_500, bytes=1_500),), treasury=report.treasury + more)

    found = failures(tmp_path, change_report(1, charge_full))
    assert any("report 1, consumer" in f and "pays 1500 for 1500 bytes, not 500 for 500" in f for f in found)


def test_a_consumer_that_pays_nothing_is_named(tmp_path: Path) -> None:
    def never_charge(plan: Plan) -> None:
        plan.report = drop_consumers

    assert f"consumer 0x{CONSUMER.address.hex()}: paid nothing" in failures(tmp_path, never_charge)


def test_a_report_of_too_few_signers_is_named(tmp_path: Path) -> None:
    def sign_with_two(plan: Plan) -> None:
        plan.report_signers = MEMBERS[:2]

    assert "report 0: 2 signers where 3 are needed" in failures(tmp_path, sign_with_two)


def test_a_report_that_a_signer_did_not_sign_is_named(tmp_path: Path) -> None:
    def alter_call(run: FinishedRun) -> None:
        """The signatures' last byte, in what was sent."""
        call = next(iter(run.chain.transactions.values()))
        call["input"] = call["input"][:-2] + ("00" if call["input"][-2:] != "00" else "01")

    found = failures(tmp_path, change_run=alter_call)
    assert any(f.startswith("report 0") and ("did not sign it" in f or "cannot be examined" in f) for f in found)


def test_a_contract_that_holds_other_values_is_named(tmp_path: Path) -> None:
    def hold_another_root(run: FinishedRun) -> None:
        run.chain.held[0] = (b"\x05" * 32, *run.chain.held[0][1:])

    found = failures(tmp_path, change_run=hold_another_root)
    assert any("is held by the contract with other values" in f for f in found)


@pytest.mark.parametrize(
    ("view", "named"),
    [("stores", "balance of stream"), ("balanceOf", "balance of consumer"), ("nodeStake", "stake of node")],
)
def test_balances_that_did_not_move_as_reported_are_named(tmp_path: Path, view: str, named: str) -> None:
    def change(run: FinishedRun) -> None:
        for key in list(run.chain.amounts):
            if key[0] == view:
                run.chain.amounts[key] += 1

    assert any(f.startswith(named) for f in failures(tmp_path, change_run=change))


def test_a_capture_that_the_contract_cut_is_named(tmp_path: Path) -> None:
    def cut(run: FinishedRun) -> None:
        run.chain.emit("query_manager", "CaptureShort", 120, consumer="0x" + "11" * 20, wanted=2, captured=1)

    assert any("captured less than a report says" in f for f in failures(tmp_path, change_run=cut))


def test_receipts_are_cut_to_the_balance_that_is_free(tmp_path: Path) -> None:
    """A receipt for ten times what the consumer has takes all of it, and nothing is left for the next."""

    def add_receipt(plan: Plan) -> None:
        extra = a_receipt(5_000, 10**13)
        plan.published.append(extra)
        plan.sets[window(1)].append(extra.record)

    assert failures(tmp_path, add_receipt) == []


# --- what was collected ---------------------------------------------------------------------------


def change_collected(change: Callable[[dict[str, Any]], None]) -> ChangeRun:
    def apply(run: FinishedRun) -> None:
        path = run.folder / "collected.json"
        collected = json.loads(path.read_text())
        change(collected)
        path.write_text(json.dumps(collected))

    return apply


def test_a_validator_that_refused_too_few_is_named(tmp_path: Path) -> None:
    def forget(collected: dict[str, Any]) -> None:
        collected["invalid_rejected"]["validator-2"]["bad_signature"] = 1

    found = failures(tmp_path, change_run=change_collected(forget))
    assert found == ["validator-2, refused messages: 1 as bad_signature, at least 2 were there"]


def test_the_return_of_a_killed_validator_is_verified(tmp_path: Path) -> None:
    assert failures(tmp_path, killed_first) == []


def forget_votes(collected: dict[str, Any]) -> None:
    collected["statements"] = {}


def vote_earlier(collected: dict[str, Any]) -> None:
    collected["statements"]["validator-0"] = [a_vote("validator-0", CLOSING_MS - 4_000).hex()]


def vote_of_another(collected: dict[str, Any]) -> None:
    collected["statements"]["validator-0"] = [a_vote("validator-1").hex()]


def vote_unsigned(collected: dict[str, Any]) -> None:
    collected["statements"]["validator-0"] = [a_vote("validator-0").hex()[:-4] + "0000"]


def stay(collected: dict[str, Any]) -> None:
    collected["killed"]["windows_away"] = 1


def never_return(collected: dict[str, Any]) -> None:
    collected["killed"]["back_at_window"] = -1


def hold_too_little(collected: dict[str, Any]) -> None:
    collected["killed"]["certificates"] = ["window:1700000000000"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (forget_votes, "shows no vote in a window"),
        (vote_earlier, "shows no vote in a window"),
        (vote_of_another, "shows no vote in a window"),
        (vote_unsigned, "collected: cannot be examined: MalformedInput: signature"),
        (never_return, "shows no vote in a window from -1 on"),
        (stay, "was away for 1 windows"),
        (hold_too_little, "has no certificate of late:0"),
    ],
)
def test_a_killed_validator_that_did_not_come_back_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    found = failures(tmp_path, killed_first, change_collected(change))
    assert any(named in failure for failure in found)


# --- independence ---------------------------------------------------------------------------------


def test_the_check_imports_nothing_of_the_validator_but_codec_and_trees() -> None:
    program = (
        "import sys, tests.verifier.__main__; print(*sorted(m for m in sys.modules if m.startswith('validator.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    loaded = {name.split(".")[1] for name in done.stdout.split()}
    assert loaded == {"codec", "errors", "hashing", "merkle", "model", "parameters"}
