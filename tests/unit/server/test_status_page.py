"""The status page: the verdict first, whole ids, colours that can be read, and one name for each cause."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.builders import a_key
from tests.unit.server.test_operator import STATUS, A, B
from validator.look import DARK, LIGHT
from validator.protocol.parameters import Epoch, ParameterSet
from validator.server.causes import find_causes
from validator.server.operator import status_data
from validator.server.pages.status import render_status
from validator.server.surroundings import PeerSeen, Surroundings
from validator.server.verdict import Level, judge
from validator.steps.seat import Seat, Standing
from validator.store.view.status import Check, GatewayView, HeadView, Status, WindowView

C = a_key(3).address
EPOCH = Epoch(6, 0, ParameterSet(first_epoch=0, epoch_windows=1_000))
SEAT = Seat(Standing.MEMBER, observer=False, epoch=EPOCH, members=(A, B, C))
AROUND = Surroundings(
    SEAT,
    {B: "b.example", C: "c.example:7180"},
    (PeerSeen(B, "b.example", 40, 12, ""), PeerSeen(C, "c.example:7180", -9_000, 12, "")),
    {"gas": 2 * 10**18},
    {"round": 0},
    8_000,
)
GOOD = [Check("database", True, "writable")]
CALM = replace(
    STATUS,
    gateways=(GatewayView("b", "closed", 0, "", 8_000),),
    damaged_sets=0,
    windows=(WindowView(2_000, 45_000, 0, "open", None, None),),
)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("name", ["text", "dim", "good", "warn", "bad"])
def test_every_text_can_be_read_in_both_themes(theme: dict[str, str], name: str) -> None:
    light, dark = sorted((luminance(theme[name]), luminance(theme["ground"])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_the_verdict_comes_first_and_names_what_is_well() -> None:
    verdict = judge(CALM, GOOD, AROUND)
    assert verdict.text == "healthy: 3 of 3 members, next cut-off in 36 s"
    page = render_status(CALM, GOOD, AROUND)
    assert page.index(verdict.text) < page.index("<h2>")
    assert "<title>healthy: Log Store validator on devnet" in page
    assert "epoch</abbr> ends in <b>16 h 39 min" in page


@pytest.mark.parametrize(
    ("checks", "around", "level", "said"),
    [
        ([Check("disk", False, "1 MiB free")], AROUND, Level.OUT, "disk: 1 MiB free"),
        (
            GOOD,
            replace(AROUND, seat=replace(SEAT, standing=Standing.JOINING, changes_epoch=7, changes_ms=11_529_000)),
            Level.OUT,
            "joins with epoch 7, in 3 h 12 min; epoch 6, 3 members, quorum 3",
        ),
        (
            GOOD,
            replace(AROUND, seat=replace(SEAT, standing=Standing.STRANGER, observer=True, reason="not staked")),
            Level.OUT,
            "observes and signs nothing (LOGSTORE_OBSERVER); epoch 6, 3 members, quorum 3: not staked",
        ),
        (
            GOOD,
            replace(AROUND, peers=(PeerSeen(B, "b.example", None, 0, "refused"),)),
            Level.DEGRADED,
            "peer b.example does not answer: refused",
        ),
    ],
)
def test_a_verdict_says_what_is_wrong(checks: list[Check], around: Surroundings, level: Level, said: str) -> None:
    verdict = judge(CALM, checks, around)
    assert (verdict.level, verdict.text) == (level, f"{level.value}: {said}")


def test_an_observer_that_follows_is_healthy_and_says_that_it_observes() -> None:
    around = replace(AROUND, seat=replace(SEAT, standing=Standing.FOLLOWER, observer=True))
    verdict = judge(CALM, GOOD, around)
    assert verdict.text == "healthy: observes, 2 of 2 members, next cut-off in 36 s"
    assert "observes and signs nothing (LOGSTORE_OBSERVER)" in render_status(CALM, GOOD, around)


def test_a_cause_has_one_name_and_since_when() -> None:
    frozen = replace(
        CALM,
        now_ms=3_000_000,
        head=HeadView(77, 2_900, 2_999_000),
        windows=(WindowView(2_000, 45_000, 0, "open", None, None),),
        gateways=(GatewayView("g.example", "open", 5, "HTTP 502", 2_400_000),),
    )
    chain = "chain frozen: block 77 is the newest since 00:48:20 UTC, 1 min 40 s"
    assert tuple(map(str, find_causes(frozen))) == (
        chain,
        "gateway frozen: g.example since 00:40:00 UTC, 10 min 0 s: HTTP 502",
    )
    data = status_data(frozen, GOOD, AROUND)
    assert data["windows"][0]["waits_for"] == chain
    assert data["verdict"]["level"] == "degraded"
    assert data["verdict"]["reasons"][0] == chain
    assert render_status(frozen, GOOD, AROUND).count(chain) == 2  # the verdict, and what the window waits for


def test_ids_are_whole_and_in_the_form_that_can_be_pasted() -> None:
    page = render_status(STATUS, GOOD, AROUND)
    ids = set(re.findall(r"<code class=id>([^<]+)</code>", page))
    report = STATUS.reports[0]
    assert report.transaction is not None
    assert {f"0x{A.hex()}", f"0x{B.hex()}", f"0x{report.transaction.hex()}", "A" * 43, "_" * 42 + "8"} <= ids
    assert all(re.fullmatch(r"0x[0-9a-f]{40}|0x[0-9a-f]{64}|[A-Za-z0-9_-]{43}|\d+", one) for one in ids)
    assert f"b.example <code class=id>0x{B.hex()}" in page
    assert f"this one <code class=id>0x{A.hex()}" in page


def test_a_decided_instance_shows_its_certificate_and_not_what_arrived_here() -> None:
    page = render_status(STATUS, GOOD, AROUND)
    assert "certificate</abbr> of 2" in page
    undecided: Status = replace(STATUS, certificates=())
    assert "4 observations, 1 proposal, 2 prevotes" in render_status(undecided, GOOD, AROUND)


def test_a_peers_clock_that_is_off_is_said() -> None:
    page = render_status(STATUS, GOOD, AROUND)
    assert "<span class=warn>yes, clock -9.0 s" in page
    assert "peers <b>2 of 2</b> reachable" in page
