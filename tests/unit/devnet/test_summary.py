"""The summary: its fields, their order and explanations, and the plain table."""

from __future__ import annotations

from typing import Any

from validator.devnet.plan import Options
from validator.devnet.summary import FIELDS, add_failures, describe_fields, make_summary, render_summary

NAMES = [name for entry, _ in FIELDS for name in entry.split(", ")]

FIGURES: dict[str, Any] = {
    "windows_agreed": 2,
    "rounds_total": 3,
    "rounds_max": 2,
    "messages_published": 400,
    "messages_unique_valid": 398,
    "messages_archived": 398,
    "messages_missing": 0,
    "messages_late": 7,
    "messages_archived_twice": 0,
    "signature_types": {"ECDSA_SECP256K1_LEGACY": 390, "ML_DSA_87": 8},
    "invalid_archived": 0,
    "forged_delivered": {"wrong_signature": 4},
    "bundles": [
        {
            "number": 0,
            "arweave_id": "abc",
            "paid": 1,
            "messages": 398,
            "bytes": 9000,
            "bytes_per_message": 22.6,
            "root": "0x01",
            "uploader": "validator-1\x1b[1m",
        }
    ],
    "reports": [{"id": 0, "tx": "0x02", "gas_used": 1, "signers": 3, "status": "final"}],
    "receipts": {"published": 5, "archived": 5, "charged_bytes": 10, "captured": 10},
    "claims": {"prices": {"checked": 7, "failed": 0}, "uploads\x1b": {"checked": 0, "failed": 0}},
    "unknowable": ["what leaves no trace"],
    "verified": True,
    "failures": [],
}


LYING = {
    "broker": "broker-3",
    "kind": "omits",
    "consumer": {"field": "answer window", "error": "http://127.0.0.1:1: answer window: \x1b"},
    "brokers": {"broker-1": {"withheld": 2}, "broker-2": {}},
}


CHAOS = [
    {"kind": "clock", "whom": "validator-2", "what": "put wrong", "at_window": 1, "recovered_after_s": 1.5},
    {"kind": "disk-full", "whom": "validator-3", "what": "full", "at_window": 3, "recovered_after_s": None},
]


def a_summary(**changes: Any) -> dict[str, Any]:
    return make_summary(
        Options(),
        {**FIGURES, **changes},
        invalid_rejected={"validator-1": {"bad_signature": 4}},
        killed=changes.get("killed"),
        seconds_setup=20.04,
        seconds=60.06,
        memory_pss_bytes=1 << 30,
        network="real",
        lying=changes.get("lying"),
        chaos=changes.get("chaos", ()),
        sdk={"published": 9, "resend": {"last": 2, "from": 8, "range": 4}, "rss_mb": 120},
        memory_by_process={"broker-1": 90 << 20, "broker-1 (node)": 85 << 20},
    )


def test_every_field_is_explained_and_in_order() -> None:
    summary = a_summary(killed={"validator": "validator-2"}, lying=LYING, chaos=CHAOS)
    assert list(summary) == NAMES
    assert all(f"  {name}: " in describe_fields() for name, _ in FIELDS)


def test_killed_is_there_only_where_one_was() -> None:
    assert "killed" not in a_summary()


def test_a_liar_is_shown_with_who_named_it_how() -> None:
    assert "lying" not in a_summary()
    lines = render_summary(a_summary(lying=LYING)).splitlines()
    (refused,) = [line for line in lines if line.startswith("broker-3 omits            a consumer refused http://")]
    assert "answer window: " in refused
    assert "\x1b" not in refused
    assert "  caught by broker-1      withheld 2" in lines
    assert "  caught by broker-2      none" in lines


def test_what_went_wrong_on_purpose_is_a_row_with_its_recovery() -> None:
    assert "chaos" not in a_summary()
    lines = render_summary(a_summary(chaos=CHAOS)).splitlines()
    rows = [line.split() for line in lines if line.startswith(("clock", "disk-full"))]
    assert rows == [
        ["clock", "validator-2", "put", "wrong", "1", "1.5"],
        ["disk-full", "validator-3", "full", "3", "-"],
    ]


def test_messages_that_reached_no_broker_are_a_line() -> None:
    summary = a_summary()
    assert summary["messages_lost"] == 2
    assert f"{'messages_lost':<26}2" in render_summary(summary).splitlines()


def test_only_a_true_verdict_is_verified() -> None:
    assert a_summary()["verified"] is True
    assert a_summary(verified="yes")["verified"] is False
    assert (
        make_summary(
            Options(),
            {},
            invalid_rejected={},
            killed=None,
            seconds_setup=0,
            seconds=0,
            memory_pss_bytes=0,
            network="real",
        )["verified"]
        is False
    )


def test_the_table_names_every_failed_claim() -> None:
    text = render_summary(a_summary(verified=False, failures=["bundle 0: tampered", "window 1: no certificate"]))
    assert text.endswith("not verified: 2 failures")
    assert "bundle 0: tampered" in text


def test_the_table_lists_every_claim_with_its_count_and_what_cannot_be_known() -> None:
    lines = render_summary(a_summary()).splitlines()
    assert [line.split() for line in lines if line.endswith(" checked")] == [
        ["prices", "7", "checked"],
        ["uploads\\x1b", "0", "checked"],
    ]
    assert lines[lines.index("what it cannot know") + 1] == "  what leaves no trace"


def test_a_failed_claim_stands_out_in_the_table() -> None:
    text = render_summary(a_summary(claims={"prices": {"checked": 7, "failed": 2}}))
    assert "7 checked, 2 FAILED" in text


def test_a_run_that_was_not_checked_lists_no_claims() -> None:
    assert "claims" not in render_summary(a_summary(claims={}, unknowable=[]))


def test_the_table_is_safe_to_print_and_ends_with_the_verdict() -> None:
    text = render_summary(a_summary())
    assert "\x1b" not in text
    assert "validator-1\\x1b[1m" in text
    assert text.splitlines()[-1] == "verified"


def test_the_sdk_and_the_memory_of_each_process_are_in_the_table() -> None:
    table = render_summary(a_summary())
    assert "published 9; read back and verified: last 2, from 8, range 4; 120 MB" in table
    assert "broker-1 (node)                   85 MiB" in table


def test_what_the_run_itself_found_wrong_makes_it_not_verified() -> None:
    figures: dict[str, Any] = {"verified": True, "failures": []}
    add_failures(figures, [])
    assert figures == {"verified": True, "failures": []}
    add_failures(figures, ["resend last of partition 0: 3 messages where the broker has 4"])
    assert figures["verified"] is False
    assert len(figures["failures"]) == 1


def test_what_is_not_known_is_a_dash_and_ids_are_whole() -> None:
    transaction = "0x" + "ab" * 32
    changes: dict[str, Any] = {
        "messages_late": None,
        "reports": [{"id": 0, "status": None, "tx": transaction}],
        "receipts": {"captured": None},
        "failures": ["one"],
        "verified": False,
    }
    text = render_summary(a_summary(**changes))
    assert "None" not in text
    assert "messages_late             -" in text
    assert transaction in text
    assert text.endswith("not verified: 1 failure")
