"""The command line itself: help, version, and who is told what went wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from logstore import cli
from tests import paths
from validator import __version__


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = cli.main(words)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_without_words_the_help_is_printed_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys)
    assert (status, out) == (2, "")
    assert err.startswith("Usage: logstore [OPTIONS] COMMAND")
    status, out, err = run(capsys, "bundle")
    assert status == 2
    assert "list" in err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"logstore {__version__}\n", "")


def test_a_usage_error_names_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "bundle", "list", "--wat")
    assert (status, out) == (2, "")
    assert err.endswith(". See logstore bundle list --help.\n")
    assert run(capsys, "bundle", "show", "abc")[2].endswith("as an integer. See logstore bundle show --help.\n")
    assert run(capsys, "bundle", "sho")[2].endswith("'show'? See logstore bundle --help.\n")


def test_with_json_an_error_is_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "bundle", "list", "--network", "missing.toml", "--json")
    assert status == 2
    document = json.loads(out)
    assert (document["verdict"], document["status"]) == ("usage", 2)
    assert document["error"] in err


@pytest.mark.parametrize("name", ["sql", "export"])
def test_what_is_asked_of_bundles_is_asked_by_the_short_word_too(capsys: pytest.CaptureFixture[str], name: str) -> None:
    short, long = run(capsys, name, "--help"), run(capsys, "bundle", name, "--help")
    assert short[0] == 0
    assert long[1].partition("\n")[2] == short[1].partition("\n")[2]
    assert long[1].startswith(f"Usage: logstore bundle {name}")


@pytest.mark.parametrize("words", [["--help"], ["bundle", "list", "--network", "missing.toml", "--json"]])
def test_who_reads_no_further_is_told_nothing(words: list[str]) -> None:
    """A pipe whose reader has ended, as that of ``| head``; status as the shell names it, for help and failures too."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "logstore.cli", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=paths.ROOT)
    os.close(writer)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (0 if words == ["--help"] else 1)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["verify", "missing.parquet"], "missing.parquet: no such file"),
        (["query", "0x…/s", "--verify", "all"], "--verify: 'all' is none of none, signatures, proof"),
        (["publish", "0x…/s", "{"], "content: no JSON"),
    ],
)
def test_a_wrong_word_is_named_before_any_network_is_asked_for(
    capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    status, out, err = run(capsys, *words, "--network", "missing.toml")
    assert (status, out) == (2, "")
    assert named in err
