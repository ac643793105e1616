"""The independent check passes honest runs, says what it looked at, and names what cannot be read or known."""

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
from msgspec import structs

from tests.builders import GENESIS_MS, a_key
from tests.bundle_builder import MEMBERS, certify
from tests.fakes.finished_chain import FakeChain, block_at
from tests.fakes.finished_gateway import FakeGateway
from tests.fakes.finished_run import (
    BROKERS,
    CLOSING_MS,
    POOR,
    PUBLISHER,
    STREAMS,
    FinishedRun,
    Plan,
    Published,
    a_long_plan,
    a_longer_plan,
    a_network,
    a_plan,
    a_publication,
    a_receipt,
    a_vote,
    finish,
    late,
    window,
)
from tests.fakes.forgery import (
    ChangePlan,
    ChangeRun,
    add_message,
    findings_of,
    hold_back,
    in_entries,
    in_file,
    in_lines,
    nothing,
)
from tests.verifier.check import check_run
from tests.verifier.claims import UNKNOWABLE, Claim
from tests.verifier.findings import Unreachable, render_claims
from validator.protocol.codec.ledger_changes import apply_changes
from validator.protocol.codec.manifest import decode_ledger
from validator.protocol.codec.signatures import sign_message
from validator.protocol.model import BrokerShare, Certified, Digest, Flag, InstanceKind, Observation, Outcome


def failures(folder: Path, change_plan: ChangePlan = nothing, change_run: ChangeRun = nothing) -> list[str]:
    plan = a_plan()
    change_plan(plan)
    return findings_of(folder, plan, change_run).failures


# --- honest runs ----------------------------------------------------------------------------------


def test_an_honest_run_is_verified_with_its_figures(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, a_plan())
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


def test_every_claim_is_listed_with_how_often_it_was_checked(tmp_path: Path) -> None:
    """Seven instances of four observers; nobody was killed."""
    summary = findings_of(tmp_path, a_plan()).summary()
    assert list(summary["claims"]) == [claim.value for claim in Claim]
    assert summary["claims"]["observations used"] == {"checked": 28, "failed": 0}
    assert summary["claims"]["messages in time"] == {"checked": 11, "failed": 0}
    assert [name for name, counts in summary["claims"].items() if not counts["checked"]] == ["killed validator"]
    lines = render_claims(summary["claims"], summary["unknowable"])
    assert "  observations used: 28 checked" in lines
    assert "  killed validator: 0 checked" in lines
    assert lines[-len(UNKNOWABLE) :] == [f"  {line}" for line in UNKNOWABLE]


def test_a_failed_claim_is_counted_and_stands_in_the_list(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, a_plan(), in_lines("observations.jsonl", lambda lines: lines[1:]))
    assert findings.claims()["observations used"] == {"checked": 28, "failed": 1}
    assert "  observations used: 28 checked, 1 FAILED" in render_claims(findings.claims(), ())


def test_three_bundles_two_epochs_and_reports_under_way_are_verified(tmp_path: Path) -> None:
    """The last bundle's block finds one report accepted and one that is not yet: both kinds of captures are free."""
    plan = a_long_plan()
    run = finish(tmp_path, plan)
    state_block = run.manifests[2].windows[-1].outcome.block_number
    assert [run.chain.held[n][2] <= state_block for n in (0, 1)] == [True, False]
    findings = check_run(*run.parts)
    assert findings.failures == []
    assert findings.figures["messages_late"] == 2


def test_a_manifest_that_says_only_what_changed_in_the_ledger_is_verified(tmp_path: Path) -> None:
    run = finish(tmp_path, a_longer_plan())
    wholes = [decode_ledger(m.ledger) for m in run.manifests if m.header.number != 2]
    assert apply_changes(wholes[1], run.manifests[2].ledger) == run.ledgers[1]
    assert wholes[2] == run.ledgers[2]
    assert check_run(*run.parts).failures == []


def cut_an_entry(plan: Plan) -> None:
    """The fourth message of a stream does not fit its window and is stored nowhere."""
    plan.network = a_network(partition_limit=350, message_limit=200)
    for number in (40, 42, 44):
        add_message(a_publication(3_000 + number, number))(plan)


def equivocate(plan: Plan) -> None:
    twin = sign_message(PUBLISHER, structs.replace(plan.published[1].message, content=b'{"number":4242}'))
    add_message(Published(twin, plan.published[1].delivered_ms))(plan)


def vary(plan: Plan) -> None:
    """A second form of one message, at one broker; the entry is marked."""
    form = structs.replace(plan.published[0].message, group_key_id="key-1")
    plan.published.append(Published(form, (GENESIS_MS + 650,)))
    in_entries(lambda e: replace(e, flags=Flag.VARIANTS) if e.stream_id == STREAMS[0] else e, window(0))(plan)


def differ(plan: Plan) -> None:
    """Members read different prices, two had a partition incomplete, three that a broker missed something."""
    place = {key.address: n for n, key in enumerate(MEMBERS)}

    def observe(o: Observation) -> Observation:
        n = place[o.observer]
        if o.instance.kind is InstanceKind.LATE:
            return o
        shares = tuple(BrokerShare(share.broker, share.served, 20 * n) for share in o.shares)
        incomplete = ((STREAMS[0], 0),) if n < 3 else ()
        return replace(o, price=1_000_000 + n, shares=shares, incomplete=incomplete)

    plan.observe = observe


def lose_an_observer(plan: Plan) -> None:
    plan.observe = lambda o: None if o.observer == MEMBERS[3].address else o


def spend_it_all(plan: Plan) -> None:
    """A receipt for ten times what the consumer has takes all of it, and nothing is left for the next."""
    add_message(a_receipt(5_000, 10**13))(plan)


def nobody_serves(plan: Plan) -> None:
    """No broker is named by enough observers: the pool is the treasury's."""
    plan.observe = lambda o: replace(o, shares=()) if o.observer in (k.address for k in MEMBERS[:3]) else o


def run_dry(plan: Plan) -> None:
    """A store that cannot pay all that it owes; the rest is written off, and its next rent with all of it in flight."""
    plan.balances[STREAMS[0]] = 300
    plan.network = a_network(price_max=1 << 20, budget_windows=1)


def come_late(plan: Plan) -> None:
    """One broker had it just before the cut-off, the other only after that."""
    hold_back(4, 0, 7_500, 9_100)(plan)


@pytest.mark.parametrize(
    ("broker", "span_ms", "is_excused"),
    [
        ("broker-0", (8_500, 9_500), True),
        ("broker-0", (9_001, 9_500), True),
        ("broker-1", (8_500, 9_500), False),
        ("broker-0", (2_000, 8_999), False),
        ("broker-0", (14_001, 15_000), False),
    ],
)
def test_a_message_may_be_late_where_the_only_broker_that_had_it_was_hurt_as_it_was_asked(
    tmp_path: Path, broker: str, span_ms: tuple[int, int], is_excused: bool
) -> None:
    from_ms, to_ms = (GENESIS_MS + ms for ms in span_ms)
    away = [{"broker": broker, "from_ms": from_ms, "to_ms": to_ms}]
    found = failures(
        tmp_path, hold_back(4, 0, 7_000), in_file("collected.json", lambda data: data.update(brokers_away=away))
    )
    assert [f for f in found if f.startswith("messages in time")] == ([] if is_excused else found)
    assert bool(found) is not is_excused


def miss_the_own_late_set(plan: Plan) -> None:
    """It came after its bundle was closed, and before its horizon."""
    hold_back(0, 1, 9_900, 10_000)(plan)


def come_into_scope(plan: Plan) -> None:
    """A stream is staked for between the blocks of window 0 and of its bundle's end: its message there is late."""
    plan.balances[POOR], plan.partitions[POOR] = 10**12, 1
    plan.staked_at[POOR] = block_at(window(0).number).number + 2
    plan.publishers.add((POOR, PUBLISHER.address))
    add_message(a_publication(600, 60, stream_id=POOR), late(0))(plan)


@pytest.mark.parametrize(
    "change",
    [
        come_into_scope,
        cut_an_entry,
        equivocate,
        vary,
        differ,
        lose_an_observer,
        spend_it_all,
        nobody_serves,
        run_dry,
        come_late,
        miss_the_own_late_set,
    ],
)
def test_what_happens_in_honest_runs_is_no_failure(tmp_path: Path, change: ChangePlan) -> None:
    assert failures(tmp_path, change) == []


def test_of_more_nodes_than_a_committee_takes_those_with_the_largest_stake_are_members(tmp_path: Path) -> None:
    """Two nodes more name a validator URL than the epoch takes; they have less stake than the members."""
    plan = a_plan()
    plan.network = a_network(committee_limit=4)
    for key in BROKERS:
        plan.nodes[key.address] = {"http": "https://b.example", "validator": "https://v.example"}
        plan.stakes[key.address] = 10**11
    assert findings_of(tmp_path, plan).failures == []
    plan.stakes[BROKERS[0].address] = 10**13
    found = findings_of(tmp_path, plan).failures
    assert any(failure.startswith("committees: bundle 0") for failure in found)


# --- what cannot be known -------------------------------------------------------------------------


def forget_in_every_log(plan: Plan) -> None:
    """The publisher logged it, no broker did, and no set has it."""
    plan.published[0].delivered_ms = ()
    del plan.sets[window(0)][0]


def forget_altogether(plan: Plan) -> None:
    gone = plan.published.pop(0)
    plan.sets[window(0)].remove(gone.record)


def lie_alike(plan: Plan) -> None:
    """All members say that a broker missed what it may have missed."""

    def observe(o: Observation) -> Observation:
        shares = tuple(replace(share, served=share.served // 2, missed=share.served // 2) for share in o.shares)
        return replace(o, shares=shares)

    plan.observe = observe


def mark_full_without_a_cut(plan: Plan) -> None:
    """One more message of the largest size would not fit; nobody knows whether there was one."""
    plan.network = a_network(partition_limit=350, message_limit=300)
    in_entries(lambda e: replace(e, flags=Flag.FULL) if e.count else e, window(1))(plan)


def hide_variants(plan: Plan) -> None:
    vary(plan)
    plan.outcome = lambda outcome: outcome


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (forget_in_every_log, "a message that reached no log"),
        (forget_altogether, "a message that reached no log"),
        (lie_alike, "what a broker answered to an observer"),
        (mark_full_without_a_cut, "whether something was cut from an entry"),
        (hide_variants, "that two forms went unmarked"),
    ],
)
def test_what_leaves_no_trace_passes_and_is_said_to_be_unknowable(
    tmp_path: Path, change: ChangePlan, named: str
) -> None:
    plan = a_plan()
    change(plan)
    findings = findings_of(tmp_path, plan)
    assert findings.failures == []
    assert any(named in line for line in findings.summary()["unknowable"])


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
    assert any(failure.startswith(("bundle files: bundle 0", "certificates: bundle 0")) for failure in found)
    assert any(named in failure for failure in found)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config_count": 1}, "configs: bundle 0: has another config_count than the contract"),
        ({"committee": tuple(k.address for k in MEMBERS[:3])}, "configs: bundle 0: names another committee than"),
        ({"deployment_parent_hash": Digest(b"\x01" * 32)}, "configs: bundle 0: is of another deployment"),
        ({"epoch": 7}, "configs: bundle 0: is of epoch 7, not 0"),
        ({"config_count": 7}, "configs: bundle 0: is not the digest that the contract had at the report"),
        ({"config_count": 7}, "certificates: bundle 0, window:1700000000000: is of an older config digest"),
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
    assert any(f.startswith("bundle files: bundle 0: cannot be examined: MalformedInput") for f in found)


def test_data_that_the_gateway_altered_is_not_what_was_signed(tmp_path: Path) -> None:
    def alter(run: FinishedRun) -> None:
        name = next(iter(run.gateway.bodies))
        run.gateway.bodies[name] = run.gateway.bodies[name][:-1] + b"2"

    assert any("is not what its transaction signed" in f for f in failures(tmp_path, change_run=alter))


def test_a_bundle_that_is_gone_is_named(tmp_path: Path) -> None:
    found = failures(tmp_path, change_run=lambda run: run.gateway.headers.clear())
    assert "bundle files: bundle 0: cannot be examined: KeyError" in found[0]
    assert any("0 of 2 bundles could be read" in f for f in found)


def test_an_outcomes_block_is_the_one_that_its_time_names(tmp_path: Path) -> None:
    def later(plan: Plan) -> None:
        plan.certify = lambda outcome, digest: certify(replace(outcome, block_number=outcome.block_number + 1), digest)

    found = failures(tmp_path, later)
    assert any(f.startswith("blocks of outcomes: ") and "has another hash on the chain" in f for f in found)
    assert any(f.startswith("blocks of outcomes: ") and "is not the highest one at" in f for f in found)


# --- what was collected ---------------------------------------------------------------------------


def test_a_broker_that_kept_a_forged_message_or_refused_a_valid_one_is_named(tmp_path: Path) -> None:
    def alter(run: FinishedRun) -> None:
        path = run.folder / "logs" / "broker-0" / "deliveries.jsonl"
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        del next(entry for entry in entries if entry.get("refused") == "bad_signature")["refused"]
        next(entry for entry in entries if "refused" not in entry)["refused"] = "part_rate"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    found = [f for f in failures(tmp_path, change_run=alter) if f.startswith("refused messages: broker-0")]
    assert any(f.endswith("valid, but refused: part_rate") for f in found)
    assert any("a forged message (" in f and f.endswith(") is kept") for f in found)


@pytest.mark.parametrize(
    ("reason", "off_ms", "is_excused"),
    [("chain_unknown", 0, True), ("chain_unknown", 1, False), ("part_rate", 0, False)],
)
def test_what_nobody_could_judge_while_the_chain_was_made_to_stand_still_may_be_refused(
    tmp_path: Path, reason: str, off_ms: int, is_excused: bool
) -> None:
    def alter(run: FinishedRun) -> None:
        path = run.folder / "logs" / "broker-0" / "deliveries.jsonl"
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        entry = next(entry for entry in entries if "refused" not in entry)
        entry["refused"] = reason
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        collected = run.folder / "collected.json"
        away = {"from_ms": entry["time_ms"] - 1_000, "to_ms": entry["time_ms"] - off_ms}
        collected.write_text(json.dumps({**json.loads(collected.read_text()), "chain_away": [away]}))

    found = [f for f in failures(tmp_path, change_run=alter) if f.startswith("refused messages: ")]
    assert (found == []) is is_excused


def test_the_return_of_a_killed_validator_is_verified(tmp_path: Path) -> None:
    plan = a_plan()
    killed_first(plan)
    findings = findings_of(tmp_path, plan)
    assert findings.failures == []
    assert findings.checked[Claim.KILLED] == 4


def killed_first(plan: Plan) -> None:
    plan.killed = "validator-0"


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
        (vote_unsigned, "collected.json: cannot be examined: MalformedInput: signature"),
        (never_return, "shows no vote in a window from -1 on"),
        (stay, "was away for 1 windows"),
        (hold_too_little, "has no certificate of late:0"),
    ],
)
def test_a_killed_validator_that_did_not_come_back_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    found = failures(tmp_path, killed_first, in_file("collected.json", change))
    assert any(failure.startswith("killed validator: ") and named in failure for failure in found)


def kill_another(collected: dict[str, Any]) -> None:
    collected["killed"] = {"validator": "validator-0"}


def test_a_kill_that_nobody_ordered_is_named(tmp_path: Path) -> None:
    found = failures(tmp_path, change_run=in_file("collected.json", kill_another))
    assert any(f.startswith("killed validator: ") and "although nobody should have been" in f for f in found)


# --- a network that has been stopped --------------------------------------------------------------


def stopped(*_: Any) -> Any:
    raise Unreachable("nobody answers")


@pytest.mark.parametrize(("part", "method"), [(FakeChain, "ask"), (FakeGateway, "get_json")])
def test_a_server_that_does_not_answer_ends_the_check_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: type, method: str
) -> None:
    parts = finish(tmp_path, a_plan()).parts
    monkeypatch.setattr(part, method, stopped)
    with pytest.raises(Unreachable, match=r"^nobody answers$"):
        check_run(*parts)


# --- independence ---------------------------------------------------------------------------------


def test_the_check_imports_nothing_of_the_validator_but_codec_and_trees() -> None:
    program = (
        "import sys, tests.verifier.__main__; print(*sorted(m for m in sys.modules if m.startswith('validator.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    loaded = {".".join(name.split(".")[1:3]) for name in done.stdout.split()}
    parts = ("codec", "errors", "hashing", "leaves", "merkle", "model", "parameters", "proof", "quorum", "report")
    assert loaded == {"protocol", *(f"protocol.{part}" for part in parts)}
