"""Arweave's vectors agree with our code, case by case; and the programs that judge them let nothing altered pass."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import paths, vector_file
from tests.conformance import ans104, arweave
from tests.vector_file import Section, cases_of, find_difference

PROGRAMS: dict[str, ModuleType] = {"arweave": arweave, "ans104": ans104}
FILES = {name: paths.VECTORS / f"{name}.json" for name in PROGRAMS}
VECTORS: dict[str, dict[str, Any]] = {name: json.loads(path.read_text()) for name, path in FILES.items()}
SECTIONS: dict[str, dict[str, Section]] = {
    name: program.sections_of(VECTORS[name]) for name, program in PROGRAMS.items()
}
ALL_SECTIONS = [(name, section) for name, sections in SECTIONS.items() for section in sections]
ALL_CASES = [(name, s, label, case) for name, s in ALL_SECTIONS for label, case in cases_of(VECTORS[name], s)]
TOLD = {
    *(
        "name",
        "note",
        "why",
        "reason",
        "layout",
        "signer",
        "tags_rule",
        "rule",
        "arbundles_accepts",
        "arbundles_parses",
    ),
    *("text", "signature_data_sha256"),  # of a transaction of format 1, which is refused for its format
}
"""Values for people."""
MADE_BY_RULE = {"mul", "mod", "add", "size"}
NOT_JUDGED = {"chunk_checks": {("data_size",)}}
"""A node takes a chunk whose data is said to be one byte longer than it is."""


def nodes(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a case its values are."""
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in TOLD and not (key in MADE_BY_RULE and set(value) >= MADE_BY_RULE):
                yield from nodes(child, (*at, key))
    elif value is not None:
        yield at


def alter(case: Any, at: tuple[Any, ...]) -> Any:
    """The case with another value of the same kind there."""
    altered = copy.deepcopy(case)
    holder = altered
    for key in at[:-1]:
        holder = holder[key]
    value = holder[at[-1]]
    if isinstance(value, bool):
        holder[at[-1]] = not value
    elif isinstance(value, int):
        holder[at[-1]] = value + 1
    elif value.isdecimal():
        holder[at[-1]] = str(int(value) + 1)
    elif value:
        middle = len(value) // 2
        holder[at[-1]] = value[:middle] + ("B" if value[middle] == "A" else "A") + value[middle + 1 :]
    else:
        holder[at[-1]] = "AAAA"
    return altered


def first_sound_case(name: str, section: str) -> Any:
    """One with something in it: an altered one must not be wrong for another reason already."""
    return next(
        case
        for _, case in cases_of(VECTORS[name], section)
        if not isinstance(case, dict) or (case.get("error") is None and case.get("chunks", case.get("tags", True)))
    )


@pytest.mark.parametrize(
    ("name", "section", "case"),
    [pytest.param(name, section, case, id=f"{name}-{section}-{label}") for name, section, label, case in ALL_CASES],
)
def test_we_agree_with_who_made_the_vector(name: str, section: str, case: Any) -> None:
    assert find_difference(SECTIONS[name][section], case) is None


@pytest.mark.parametrize(
    ("name", "section"),
    [(n, s) for n, s in ALL_SECTIONS if not s.startswith("invalid") and s != "format1"],
)
def test_each_value_of_a_vector_counts(name: str, section: str) -> None:
    case = first_sound_case(name, section)
    judge = PROGRAMS[name].sections_of(VECTORS[name])[section]
    unnoticed = [at for at in nodes(case) if find_difference(judge, alter(case, at)) is None]
    assert set(unnoticed) == NOT_JUDGED.get(section, set())


def _of_invalid(name: str, section: str) -> Any:
    """A sound case as one that should be refused."""
    if name == "arweave":
        sound = VECTORS[name]["transactions"][0]
        return {"json": arweave.wire_of(sound, sound["signatures"]["salt0"]), "error": "tx_signature_not_valid"}
    if section == "invalid_items":
        item = next(case for case in VECTORS[name]["items"] if "raw_b64" in case)
        return {"raw_b64": item["raw_b64"], "reason": "of nothing"}
    return {"raw_b64": VECTORS[name]["bundles"][0]["raw_b64"], "reason": "of nothing"}


@pytest.mark.parametrize(("name", "section"), [(n, s) for n, s in ALL_SECTIONS if s.startswith("invalid")])
def test_what_is_sound_is_no_vector_of_what_must_be_refused(name: str, section: str) -> None:
    assert find_difference(SECTIONS[name][section], _of_invalid(name, section)) is not None


def test_a_refusal_for_another_reason_is_a_difference() -> None:
    section, case = SECTIONS["arweave"]["invalid_transactions"], VECTORS["arweave"]["invalid_transactions"][0]
    assert find_difference(section, {**case, "error": "tx_id_not_valid"}) == (
        "judged tx_signature_not_valid, the node says tx_id_not_valid"
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_tells_what_it_compared_and_stops_at_the_first_difference(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run: Callable[[list[str]], int] = PROGRAMS[name].main
    count = sum(1 for program, *_ in ALL_CASES if program == name)
    assert run([str(FILES[name])]) == vector_file.AGREED
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:-1]] == list(SECTIONS[name])
    assert said[-1] == f"{count} of {count} agree"

    altered = copy.deepcopy(VECTORS[name])
    section = list(SECTIONS[name])[-2]
    for case in altered[section]:
        case |= alter(case, next(at for at in nodes(case) if at[0] in ("sha256", "error", "ratio_ok")))
    (tmp_path / "altered").write_text(json.dumps(altered))
    assert run([str(tmp_path / "altered")]) == vector_file.DIFFERED
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:-1]] == list(SECTIONS[name])[:-2]
    assert said[-1].startswith(f"{section}/{altered[section][0]['name']}: ")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_section_that_nobody_judges_and_one_that_is_missing_are_differences(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run: Callable[[list[str]], int] = PROGRAMS[name].main
    more = tmp_path / "more"
    more.write_text(json.dumps({**VECTORS[name], "more": []}))
    assert run([str(more)]) == vector_file.DIFFERED
    assert "sections not judged: ['more']" in capsys.readouterr().out
    less = tmp_path / "less"
    section = list(SECTIONS[name])[-1]
    less.write_text(json.dumps({key: value for key, value in VECTORS[name].items() if key != section}))
    assert run([str(less)]) == vector_file.DIFFERED
    assert f"sections not there: ['{section}']" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "streamr-vectors/1"}'])
def test_another_file_is_a_mistake_of_who_named_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(text)
    for program in PROGRAMS.values():
        assert program.main([str(tmp_path / "other")]) == vector_file.USAGE
        assert program.main([str(tmp_path / "missing")]) == vector_file.USAGE
        assert program.main([]) == vector_file.USAGE
