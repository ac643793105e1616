"""What Prometheus is told, and that alerts and the dashboard ask for nothing else; each alert has its chapter."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import promql_parser
import pytest
import yaml

from tests import paths
from tests.unit.server.test_operator import STATUS, FakeView
from tests.unit.server.test_status_page import AROUND, CALM
from validator import metrics
from validator.server.samples import samples
from validator.server.surroundings import Surroundings
from validator.store.view.status import HeadView, ParticipationView

RULES = yaml.safe_load((paths.ROOT / "deploy/alerts.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
RECORDS = [rule for group in RULES["groups"] for rule in group["rules"] if "record" in rule]
BOARD = json.loads((paths.ROOT / "deploy/grafana.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
BOOK = (paths.ROOT / "docs/operating.md").read_text().partition("\n## Ten steps")[0]
SEEN = replace(AROUND, queues={"round": 3, "collect": 0}, balances={"gas": 3 * 10**18, "stake": 10**21})


def told(status: Any = STATUS, around: Surroundings = SEEN) -> dict[tuple[Any, ...], float]:
    return {(s.name, *sorted(s.labels.items())): s.value for s in samples(FakeView(status), around)}


def named_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:logstore|flower)[_:][a-z_:]+", expression))


def test_surroundings_and_participation_are_numbers() -> None:
    status = replace(STATUS, participation=ParticipationView(20, 19, 18, 17, 16, 1, 2, 300), oldest_due_ms=4_000)
    values = told(status)
    assert values[("logstore_balance", ("coin", "POL"), ("of", "gas"))] == 3
    assert values[("logstore_balance", ("coin", "LSAN"), ("of", "stake"))] == 1_000
    assert values[("logstore_queue_messages", ("queue", "round"))] == 3
    assert values[("logstore_redis_up",)] == 1
    assert values[("logstore_member",)] == 1
    assert values[("logstore_peer_answers", ("peer", "b.example"))] == 1
    assert values[("logstore_peer_clock_seconds", ("peer", "c.example:7180"))] == -9
    assert values[("logstore_oldest_due_seconds",)] == 5
    for result, count in (("decided", 19), ("included", 17), ("signed", 16), ("disagreed", 1), ("incomplete", 2)):
        assert values[("logstore_newest_windows", ("result", result))] == count


def test_a_frozen_chain_and_gateway_are_causes_and_change_the_verdict() -> None:
    calm = told(CALM)
    assert calm[("logstore_verdict",)] == 0
    assert calm[("logstore_cause", ("cause", "chain frozen"))] == 0
    frozen = told(replace(CALM, now_ms=3_000_000, head=HeadView(77, 2_900, 2_999_000), gateways=STATUS.gateways))
    assert frozen[("logstore_verdict",)] == 1
    assert frozen[("logstore_cause", ("cause", "chain frozen"))] == 1
    assert frozen[("logstore_cause", ("cause", "gateway frozen"))] == 1
    assert frozen[("logstore_block_behind_seconds", ("kind", "head"))] == 100


def test_without_redis_a_validator_is_degraded_and_before_the_first_look_nothing_is_said_of_it() -> None:
    away = told(CALM, replace(SEEN, queues=None))
    assert (away[("logstore_redis_up",)], away[("logstore_verdict",)]) == (0, 1)
    assert ("logstore_redis_up",) not in told(CALM, Surroundings())


def test_every_expression_is_one_that_prometheus_reads() -> None:
    asked = [rule["expr"] for rule in ALERTS + RECORDS]
    asked += [target["expr"] for panel in PANELS for target in panel["targets"]]
    for expression in asked:
        promql_parser.parse(expression)
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(logstore_up")


@pytest.mark.parametrize("source", ["alerts", "dashboard"])
def test_nothing_is_asked_for_that_nobody_tells(source: str) -> None:
    counters = {s.name for family in metrics.registry.collect() for s in family.samples}
    families = {family.name for family in metrics.registry.collect()}
    known = {name for name, *_ in told()} | counters | {f"{name}_total" for name in families}
    known |= {f"{name}_bucket" for name in families} | {rule["record"] for rule in RECORDS} | {"flower_worker_online"}
    asked = [rule["expr"] for rule in ALERTS + RECORDS]
    if source == "dashboard":
        asked = [target["expr"] for panel in PANELS for target in panel["targets"]]
    assert all(named_in(expression) or expression.startswith("up{") for expression in asked)
    assert set().union(*map(named_in, asked)) <= known


def test_each_alert_leads_to_its_chapter_which_says_what_to_do_and_what_never() -> None:
    chapters = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^##|\Z)", BOOK, re.MULTILINE | re.DOTALL))
    for rule in ALERTS:
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] == f"docs/operating.md#{rule['alert'].lower()}"
        for word in ("*Means*: ", "*Do*: ", "*Never*: "):
            assert word in chapters[rule["alert"]]
    names = [rule["alert"] for rule in ALERTS]
    assert len(names) == len(set(names))
    assert set(chapters) == set(names)


def test_the_panels_of_the_dashboard_have_places_of_their_own() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert all(panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for panel in PANELS)
