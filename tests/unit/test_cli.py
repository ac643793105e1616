"""The command line: one line and status 2 for every wrong word, before anything is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from validator import cli
from validator.devnet import conductor
from validator.devnet.summary import FIELDS


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = cli.main(words)
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--brokers", "0"], "--brokers"),
        (["--brokers", "many"], "--brokers"),
        (["--brokres", "3"], "--brokres"),
        (["--loss", "1"], "--loss"),
        (["--window-seconds", "1"], "--window-seconds"),
        (["--windows", "0"], "--windows"),
        (["--kill-one", "--validators", "3"], "--kill-one"),
        (["--kill-one", "--windows", "3"], "--kill-one"),
        (["--chaos", "kill-bus"], "--chaos"),
        (["--chaos", "clock", "--windows", "1"], "--chaos"),
        (["--flower", "some"], "--flower"),
        (["surplus"], "surplus"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, said = run(capsys, "devnet", *words)
    assert status == 2
    assert said.count("\n") == 1
    assert named in said
    assert os.listdir(tmp_path) == []


def test_without_words_the_help_is_printed_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = run(capsys)
    assert status == 2
    assert said.startswith("Usage: logstore-validator [OPTIONS] COMMAND")
    assert all(f"\n  {command} " in said for command in ("check", "devnet", "evidence", "init", "serve", "votes"))
    status, said = run(capsys, "evidence")
    assert status == 2
    assert said.startswith("Usage: logstore-validator evidence")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["devnet", "--wat"], "logstore-validator devnet"),
        (["evidence", "list", "--wat"], "logstore-validator evidence list"),
        (["evidence", "lost"], "logstore-validator evidence"),
        (["votes", "export"], "logstore-validator votes export"),
        (["nope"], "logstore-validator"),
    ],
)
def test_a_usage_error_names_the_help_of_the_command_that_was_called(
    words: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = run(capsys, *words)
    assert status == 2
    assert said.endswith(f"See {command} --help.\n")


def test_a_json_file_that_cannot_be_written_is_noticed_before_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, said = run(capsys, "devnet", "--json", str(tmp_path / "missing" / "summary.json"))
    assert (status, said.count("\n")) == (2, 1)
    assert "--json" in said
    assert os.listdir(tmp_path) == []


def test_a_data_folder_that_is_not_empty_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    status, said = run(capsys, "devnet", "--data", str(tmp_path))
    assert (status, said.count("\n")) == (2, 1)
    assert "--data" in said
    assert "not empty" in said
    assert (tmp_path / "precious").read_text() == "text"


def test_a_data_folder_below_a_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, said = run(capsys, "devnet", "--data", str(tmp_path / "file" / "data"))
    assert (status, said.count("\n")) == (2, 1)
    assert "--data" in said


@pytest.mark.parametrize("variable", ["LOGSTORE_ANVIL_BIN", "LOGSTORE_REDIS_SERVER_BIN"])
def test_a_missing_binary_is_refused_by_its_variable(
    variable: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    status, said = run(capsys, "devnet")
    assert (status, said.count("\n")) == (2, 1)
    assert variable in said
    assert os.listdir(tmp_path) == []


def test_outside_a_checkout_devnet_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conductor, "ROOT", tmp_path)
    status, said = run(capsys, "devnet")
    assert (status, said.count("\n")) == (2, 1)
    assert "checkout" in said


def test_help_explains_every_field_of_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["devnet", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name}: {meaning}" in shown for name, meaning in FIELDS)


def test_init_without_settings_names_the_first_one_that_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("LOGSTORE_"):
            monkeypatch.delenv(name)
    status, said = run(capsys, "init")
    assert (status, said.count("\n")) == (2, 1)
    assert "LOGSTORE_NETWORK_FILE" in said


def test_flower_does_not_start_without_its_login(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for login in ("", "password", "operator:"):
        monkeypatch.setenv("FLOWER_BASIC_AUTH", login)
        status, said = run(capsys, "flower")
        assert (status, said.count("\n")) == (2, 1)
        assert "FLOWER_BASIC_AUTH" in said


def test_a_worker_of_no_such_queue_is_refused_with_the_queues_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = run(capsys, "worker", "uploads")
    assert (status, said.count("\n")) == (2, 1)
    assert "'collect', 'round', 'bundle', 'report'" in said


def test_ctrl_c_is_status_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(conductor, "run_devnet", interrupt)
    assert run(capsys, "devnet")[0] == 130
