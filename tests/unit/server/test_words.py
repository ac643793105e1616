"""The words of the status page explain themselves, under the pointer and in the legend."""

from __future__ import annotations

import re

import pytest

from tests.paths import ROOT
from tests.unit.server.test_operator import STATUS
from tests.unit.server.test_status_page import AROUND, GOOD
from validator.ports.states import AnnouncedState, BundleState, ReportState, UploadState, WindowState
from validator.server.operator import status_data
from validator.server.pages.status import render_status
from validator.server.pages.words import COLOURS, HINTS, STATES

PLAIN = {"of", "holds", "address", "since", "after", "noticed", "time", "level", "event", "fields"}
"""Heads of columns that everybody understands."""


@pytest.mark.parametrize("ladder", [WindowState, BundleState, UploadState, AnnouncedState, ReportState])
def test_every_state_that_can_be_shown_has_a_meaning(ladder: type[WindowState]) -> None:
    assert set(ladder) <= set(STATES)


def test_heads_of_columns_explain_themselves_under_the_pointer() -> None:
    page = render_status(STATUS, GOOD, AROUND)
    assert set(re.findall(r"<th[^>]*>([^<]+)", page)) <= PLAIN
    explained = dict(re.findall(r'<th[^>]*><abbr title="([^"]+)">([^<]+)</abbr>', page))
    assert {"gas", "transaction", "waits for", "prevotes", "uploads"} <= set(explained.values())


def test_states_explain_themselves_under_the_pointer() -> None:
    page = render_status(STATUS, GOOD, AROUND)
    assert re.search(r'<span class=\w+ title="what we saw of a window is frozen and signed">observed</span>', page)


def test_the_legend_has_every_word_for_who_has_no_pointer() -> None:
    page = render_status(STATUS, GOOD, AROUND)
    assert set(re.findall(r"<dt>([^<]+)<dd>[^<]+", page)) == {*COLOURS, *STATES, *HINTS}


def test_every_field_of_status_json_is_documented() -> None:
    chapter = (ROOT / "docs" / "operating.md").read_text().partition("## The status as data")[2].partition("\n## ")[0]
    fields = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.+?) \|", chapter, re.MULTILINE)))
    assert sorted(fields) == sorted(status_data(STATUS, GOOD, AROUND))
