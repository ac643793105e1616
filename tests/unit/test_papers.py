"""What the papers beside the code say of it: pages that are there, decisions that stand in it."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

import validator
from tests.mutants.shell import MUTANTS
from tests.paths import ROOT
from tests.simulator.mutations import MUTATIONS
from validator.setup.__main__ import NEWEST, OLDEST
from validator.setup.stages import ALL_STAGES

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


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_what_papers_name_of_the_project_is_there(paper: Path) -> None:
    text = paper.read_text(encoding="utf-8")
    folders = "|".join(sorted(folder.name for folder in ROOT.iterdir() if folder.is_dir() and folder.name != ".venv"))
    paths = re.findall(rf"(?<![\w/.])(?:{folders})/[\w./-]*\w", text)
    assert [
        path for path in paths if not (ROOT / path).exists() and not path.startswith(("build/", "devnet-data/"))
    ] == []
    modules = re.findall(r"python3? -m ([\w.]+)", text)
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    targets = set(re.findall(r"`make (\w+)|^ {4}make (\w+)", text, re.MULTILINE))
    known = re.findall(r"^([\w ]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {a or b for a, b in targets} <= set(" ".join(known).split())


def test_the_life_of_a_window_is_told_in_modules_that_are_there() -> None:
    (told,) = re.findall(
        r"^A window's life in the code: .+?\n\n", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    modules = re.findall(r"`(.+?)`", told)
    assert len(modules) > 5
    assert {f"{name}.py" for name in modules} <= {path.name for path in (ROOT / "validator" / "steps").iterdir()}


def test_mistakes_that_contributing_plants_are_there_to_plant() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (module,) = re.findall(r"-m tests\.mutants (\S+)", text)
    assert [mutant for mutant in MUTANTS if module in mutant.module]
    (name,) = re.findall(r"-m tests\.simulator --mutations (\S+)", text)
    assert name in [mutation.name for mutation in MUTATIONS]


def test_hooks_before_a_commit_are_the_commands_of_the_style_stage() -> None:
    (style,) = [stage for stage in ALL_STAGES if stage.name == "style"]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"].removeprefix(".venv/bin/") for hook in repository["hooks"]]
    assert repository["repo"] == "local"
    assert hooks == [" ".join(words).removesuffix(" .") for words in style.commands]


def test_forks_run_what_decides_here() -> None:
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"].values()
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]
    versions = job["strategy"]["matrix"]["python"]
    assert [tuple(map(int, version.split("."))) for version in versions] == [OLDEST, NEWEST]


def test_each_word_of_the_glossary_is_defined_once_and_used() -> None:
    words = re.findall(r"^([a-zA-Z][\w()-]*(?: \w+)*) {2,}\S", validator.__doc__ or "", re.MULTILINE)
    assert len(words) > 30
    assert len(set(words)) == len(words)
    sources = [path for path in (ROOT / "validator").rglob("*.py") if path != ROOT / "validator" / "__init__.py"]
    text = re.sub(r"[\s_-]+", " ", "\n".join(path.read_text(encoding="utf-8") for path in sources)).lower()
    assert [word for word in words if re.sub(r"[\s_-]+", " ", word).lower() not in text] == []
