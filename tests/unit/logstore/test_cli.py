"""The command line itself: help, version, and who is told what went wrong."""

from __future__ import annotations

import json

import pytest

from logstore import cli
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
    assert err.endswith("See logstore bundle list --help.\n")


def test_with_json_an_error_is_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "bundle", "list", "--network", "missing.toml", "--json")
    assert status == 2
    document = json.loads(out)
    assert (document["verdict"], document["status"]) == ("usage", 2)
    assert document["error"] in err
