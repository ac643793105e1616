"""What the papers beside the code say of it: pages that are there, decisions that stand in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.paths import ROOT

DECISIONS = ROOT / "docs" / "decisions"
PAGES = sorted(DECISIONS.glob("[0-9]*.md"))
PAPERS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")]


def read_decided_against(path: Path) -> str:
    """The paragraph of a module's docstring that says what was decided against, or nothing."""
    paragraphs = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")
    return "\n".join(p for p in paragraphs if p.startswith("Decided against"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_decision_is_dated_and_named_where_it_stands(page: Path) -> None:
    title, _, stands, *_ = page.read_text(encoding="utf-8").splitlines()
    number = page.name[:4]
    assert title.startswith(f"# {number}: ")
    match = re.fullmatch(r"20\d\d-\d\d-\d\d\. Stands in \[`(.+)`\]\(../../\1\)\.", stands)
    assert match
    assert number in read_decided_against(ROOT / match[1])


def test_the_index_lists_every_decision_once_by_its_title() -> None:
    listed = re.findall(r"^\| \[(\d{4})\]\((.+?)\) \| (.+?) \|", (DECISIONS / "README.md").read_text(), re.MULTILINE)
    titles = [page.read_text(encoding="utf-8").splitlines()[0] for page in PAGES]
    assert listed == [(page.name[:4], page.name, title[8:]) for page, title in zip(PAGES, titles, strict=True)]


def test_everything_decided_against_has_a_page() -> None:
    named = "\n".join(read_decided_against(path) for path in (ROOT / "validator").rglob("*.py"))
    assert sorted(re.findall(r"\b0\d{3}\b", named)) == [page.name[:4] for page in PAGES]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_links_between_papers_lead_to_files_that_are_there(paper: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", paper.read_text(encoding="utf-8"))
    assert [target for target in targets if not (paper.parent / target).exists()] == []
