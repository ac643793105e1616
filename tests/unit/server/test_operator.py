"""The operator listener over a fake view: nothing from outside becomes markup, bad input is named, health is honest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.asgi import AsgiClient
from tests.builders import a_key
from validator.look import show
from validator.protocol.errors import TransientError
from validator.protocol.hashing import hash_body
from validator.protocol.model import InstanceId, InstanceKind
from validator.server.operator import create_app
from validator.store.view.status import (
    BrokerView,
    BundleView,
    CertificateView,
    Check,
    EventView,
    EvidenceView,
    GatewayView,
    HeadView,
    MemberView,
    ParticipationView,
    PaymentsView,
    ReportView,
    RoundView,
    Status,
    UploadView,
    UsedObservations,
    WalletView,
    WindowView,
)

A, B = a_key(1).address, a_key(2).address
W = InstanceId(InstanceKind.WINDOW, 1_000)
LATE = InstanceId(InstanceKind.LATE, 7)
EVIL = "<script>alert(1)</script>\x1b[2J\u202e\"'&"


def a_round(instance: InstanceId = W, **fields: object) -> RoundView:
    values: dict[str, object] = {
        "instance": instance,
        "state": "open",
        "round": 2,
        "step": "prevote",
        "leader": A,
        "votes": {"observation": 4, "proposal": 1, "prevote": 2, "precommit": 0},
        "waits_for": "2/3 prevotes of round 2",
        "opened_ms": 1,
        "decided_ms": None,
    }
    return RoundView(**{**values, **fields})  # type: ignore[arg-type]


STATUS = Status(
    now_ms=9_000,
    address=A,
    network="devnet",
    observer=False,
    head=HeadView(12, 8, 8_500),
    finalised=HeadView(11, 7, 8_500),
    due=3,
    window_counts={"open": 1, "collected": 1, "agreed": 0, "held": 0},
    windows=(
        WindowView(1_000, 2_000, 0, "collected", 7, a_round()),
        WindowView(2_000, 3_000, 0, "open", None, None),
    ),
    late=(a_round(LATE),),
    certificates=(CertificateView(W, 1, hash_body(b"v"), (A, B)),),
    bundle_counts={"open": 1},
    bundles=(
        BundleView(
            7, 0, "sealed", 1_000, 2_000, 5, 900, hash_body(b"r"), 4, (UploadView(bytes(32), B, "heard", EVIL, False),)
        ),
    ),
    report_counts={"final": 1},
    reports=(ReportView(7, bytes(32), hash_body(b"d"), "final", (A, B), hash_body(b"t"), 210_000),),
    brokers=(BrokerView(B, 1 << 40, 5, {EVIL: 2}),),
    members=(MemberView(A, {"prevote": 3}, 1),),
    invalid_rejected={"bad_signature": 4},
    evidence=(EvidenceView(B, W, 0, "prevote", b"one", b"two", 5),),
    evidence_count=1,
    events=(EventView(5, "error", "round.stuck", EVIL),),
    sets=2,
    set_bytes=300,
    damaged_sets=1,
    reorganisations=0,
    late_candidates=6,
    gateways=(GatewayView(EVIL, "open", 5, EVIL, 8_000), GatewayView("b", "closed", 0, "", 8_000)),
    wallet=WalletView(b"\xff" * 32, 10**15, 1_000, 500, 7_000),
    payments=PaymentsView(5, 3, 2, 9_000, 300, 30_000),
)


@dataclass
class FakeView:
    """Answers what it is given."""

    status: Status = STATUS
    checks: list[Check] = field(default_factory=lambda: [Check("database", True, "writable")])
    broken: bool = False
    asked: list[int] = field(default_factory=list)

    def load_status(self, limit: int = 100) -> Status:
        if self.broken:
            raise TransientError("database read: <b>locked</b>")
        self.asked.append(limit)
        return self.status

    def load_own_statements(self, instance: InstanceId) -> list[bytes]:
        return [b"\x01\x02"] if instance == W else []

    def load_used_observations(self, instance: InstanceId) -> UsedObservations | None:
        return UsedObservations((hash_body(b"a"), hash_body(b"b")), ((b"\x03", b"\x04"),)) if instance == W else None

    def check_ready(self) -> list[Check]:
        return self.checks

    def load_participation(self, since_ms: int) -> ParticipationView:
        self.asked.append(since_ms)
        return ParticipationView(10, 9, 9, 8, 7, 1, 2, 300)


@pytest.fixture
def view() -> FakeView:
    return FakeView()


@pytest.fixture
def client(view: FakeView) -> AsgiClient:
    return AsgiClient(create_app(view))


def test_the_page_shows_states_leaders_votes_and_reasons(client: AsgiClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    for part in ("2/3 prevotes of round 2", "4 observations, 1 proposal, 2 prevotes", f"0x{A.hex()}", "210,000"):
        assert part in page.text
    assert "its cut-off" in page.text  # why the open window waits
    assert "round.stuck" in page.text


def test_nothing_from_outside_becomes_markup_or_control(client: AsgiClient, view: FakeView) -> None:
    view.checks = [Check("disk", False, EVIL)]
    text = client.get("/").text
    assert text.count("<script") == 1  # our own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J\\u202e&quot;&#x27;&amp;" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 漢字", "plain ünïcode 漢字"),
        ("a\nb\tc\0", "a\\x0ab\\x09c\\x00"),
        ("\x9b31m\ud800", "\\x9b31m\\ud800"),
        ("\u2028\u200b\ufeff", "\\u2028\\u200b\\ufeff"),
        ("x" * 300, "x" * 200 + "…"),
    ],
)
def test_control_characters_are_spelt_out(text: str, shown: str) -> None:
    assert show(text) == shown


def test_nothing_is_loaded_from_elsewhere_or_framed(client: AsgiClient) -> None:
    for path in ("/", "/status.json", "/metrics", "/healthz", "/nowhere"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert "http://" not in client.get("/").text
    assert "https://" not in client.get("/").text


def test_gas_that_is_not_known_is_left_open(client: AsgiClient, view: FakeView) -> None:
    assert "<td class=n>210,000</table>" in client.get("/").text
    (report,) = STATUS.reports
    view.status = replace(STATUS, reports=(replace(report, transaction=None, gas_used=0),))
    assert "<td><td class=n></table>" in client.get("/").text
    view.status = replace(STATUS, reports=(replace(report, gas_used=None),))
    assert "</code><td class=n></table>" in client.get("/").text


def test_data_says_the_same_as_the_page(client: AsgiClient) -> None:
    data = client.get("/status.json").json()
    collected, fresh = data["windows"]
    assert collected["start_ms"] == 1_000
    assert (collected["state"], collected["round"], collected["leader"]) == ("observed", 2, "0x" + A.hex())
    assert collected["votes"]["prevote"] == 2
    assert collected["waits_for"] == "2/3 prevotes of round 2"
    assert (fresh["state"], fresh["votes"], fresh["leader"]) == ("open", {}, None)
    assert data["late"][0]["number"] == 7
    assert data["invalid_rejected"] == {"bad_signature": 4}
    assert data["certificates"] == [
        {
            "instance": "window:1000",
            "round": 1,
            "value": "0x" + hash_body(b"v").hex(),
            "signers": ["0x" + A.hex(), "0x" + B.hex()],
        }
    ]
    assert data["reports"][0]["storage_id"] == "A" * 43
    assert data["bundles"][0]["uploads"][0]["reason"] == EVIL
    assert data["head"] == {"number": 12, "timestamp_s": 8, "seen_ms": 8_500}


def test_a_decided_round_shows_as_agreed_and_waits_for_nothing(client: AsgiClient, view: FakeView) -> None:
    decided = a_round(state="decided", waits_for="")
    view.status = replace(STATUS, windows=(WindowView(1_000, 2_000, 0, "collected", None, decided),))
    (window,) = client.get("/status.json").json()["windows"]
    assert (window["state"], window["waits_for"]) == ("agreed", "")


def test_own_statements_are_handed_out_in_hex(client: AsgiClient) -> None:
    answer = client.get("/statements.json", params={"instance": "window:1000"})
    assert answer.json() == {"instance": "window:1000", "statements": ["0102"]}
    assert client.get("/statements.json", params={"instance": "late:3"}).json()["statements"] == []


def test_observations_that_an_outcome_used_are_handed_out_in_hex(client: AsgiClient) -> None:
    """All that it names, and those that are kept; nothing of an instance whose outcome is not here."""
    answer = client.get("/observations.json", params={"instance": "window:1000"})
    assert answer.json() == {
        "instance": "window:1000",
        "decided": True,
        "used": [hash_body(b"a").hex(), hash_body(b"b").hex()],
        "observations": [{"statement": "03", "body": "04"}],
    }
    undecided = {"instance": "late:3", "decided": False, "used": [], "observations": []}
    assert client.get("/observations.json", params={"instance": "late:3"}).json() == undecided


@pytest.mark.parametrize("path", ["/statements.json", "/observations.json"])
@pytest.mark.parametrize("instance", ["", "window", "window:", "window:x", "door:1", "window:-1", f"late:{1 << 63}"])
def test_an_unknown_instance_is_named(client: AsgiClient, instance: str, path: str) -> None:
    answer = client.get(path, params={"instance": instance})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("instance: ")


@pytest.mark.parametrize("limit", ["0", "-1", "x", "10001", "1" * 5_000, "", "٣"])
def test_a_limit_out_of_range_is_named(client: AsgiClient, view: FakeView, limit: str) -> None:
    answer = client.get("/status.json", params={"limit": limit})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("limit: ")
    assert view.asked == []


def test_the_limit_is_handed_on(client: AsgiClient, view: FakeView) -> None:
    client.get("/status.json?limit=10000")
    assert view.asked == [10_000]


def test_only_reading_is_possible(client: AsgiClient) -> None:
    for path in ("/", "/status.json", "/statements.json", "/observations.json", "/metrics"):
        assert client.post(path, content=b"x").status_code == 405
    assert client.get("/../../etc/passwd").status_code == 404


def test_a_database_that_does_not_answer_is_said_not_thrown(client: AsgiClient, view: FakeView) -> None:
    view.broken = True
    page = client.get("/")
    assert page.status_code == 503
    assert "database read: &lt;b&gt;locked" in page.text
    assert client.get("/status.json").json() == {"error": "database read: <b>locked</b>"}
    assert client.get("/healthz").text == "ok\n"
    assert "logstore_up 0.0" in client.get("/metrics").text


def test_readiness_names_what_fails(client: AsgiClient, view: FakeView) -> None:
    assert client.get("/readyz").status_code == 200
    view.checks = [Check("database", True, "writable"), Check("disk", False, "1 MiB free, floor 512 MiB")]
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["ready"] is False
    assert answer.json()["checks"][1] == {"name": "disk", "ok": False, "detail": "1 MiB free, floor 512 MiB"}
    assert "not taking part: disk: 1 MiB free, floor 512 MiB" in client.get("/").text


def test_metrics_parse_and_carry_the_numbers(client: AsgiClient) -> None:
    families = {f.name: f for f in text_string_to_metric_families(client.get("/metrics").text)}
    values = {(s.name, *sorted(s.labels.items())): s.value for f in families.values() for s in f.samples}
    assert values[("logstore_up",)] == 1
    assert values[("logstore_windows", ("state", "collected"))] == 1
    assert values[("logstore_rejected_records", ("reason", "bad_signature"))] == 4
    assert values[("logstore_broker_missed_bytes", ("broker", "0x" + B.hex()))] == 5
    assert values[("logstore_oldest_waiting_seconds",)] == 7
    assert values[("logstore_block_age_seconds", ("kind", "head"))] == 0.5
    assert values[("logstore_ready", ("check", "database"))] == 1
    assert values[("logstore_evidence",)] == 1
    assert values[("logstore_gateway_open", ("gateway", "b"))] == 0
    assert values[("logstore_gateway_open", ("gateway", EVIL))] == 1
    assert values[("logstore_wallet_winston",)] == 10**15
    assert (values[("logstore_upload_base_winston",)], values[("logstore_upload_step_winston",)]) == (1_000, 500)
    assert (values[("logstore_paid_headers",)], values[("logstore_bundles_paid_twice",)]) == (5, 2)
    assert (values[("logstore_own_message_winston",)], values[("logstore_own_message_bytes",)]) == (30, 100)


def test_participation_is_asked_for_by_a_time(client: AsgiClient, view: FakeView) -> None:
    answer = client.get("/participation.json?since_ms=1700000000000").json()
    assert (view.asked, answer["windows"], answer["signed"]) == ([1_700_000_000_000], 10, 7)
    for wrong in ("x", "-1", "9" * 16, "1.5"):
        assert client.get(f"/participation.json?since_ms={wrong}").status_code == 400
