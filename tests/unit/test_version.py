"""What `--version` says, with and without Git, and without any setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import put_git
from validator import __version__, cli
from validator.commit import FILE, find_commit
from validator.protocol.codec.manifest_rules import CODEC_VERSION
from validator.protocol.parameters import PROTOCOL_VERSIONS

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a folder of its own, on a machine whose only program is what a test puts in ``bin``."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    folder = tmp_path / "checkout" / "validator"
    folder.mkdir(parents=True)
    return folder


def test_a_checkout_is_at_the_commit_that_git_names(package: Path, tmp_path: Path) -> None:
    put_git(tmp_path / "bin", f"{COMMIT}-dirty")
    (package.parent / ".git").mkdir()
    assert find_commit(package) == f"{COMMIT}-dirty"


def test_a_linked_work_tree_is_a_checkout_too(package: Path, tmp_path: Path) -> None:
    put_git(tmp_path / "bin", COMMIT)
    (package.parent / ".git").write_text("gitdir: elsewhere\n")
    assert find_commit(package) == COMMIT


def test_a_package_installed_inside_somebody_s_repository_does_not_take_that_one_s_commit(
    package: Path, tmp_path: Path
) -> None:
    put_git(tmp_path / "bin", COMMIT)
    (tmp_path / ".git").mkdir()
    assert find_commit(package) is None


def test_what_a_build_wrote_down_counts_more_than_git(package: Path, tmp_path: Path) -> None:
    put_git(tmp_path / "bin", "f" * 40)
    (package.parent / ".git").mkdir()
    (package / FILE).write_text(f"{COMMIT}\n")
    assert find_commit(package) == COMMIT


def test_a_build_that_did_not_know_leaves_the_word_to_git(package: Path, tmp_path: Path) -> None:
    put_git(tmp_path / "bin", COMMIT)
    (package.parent / ".git").mkdir()
    (package / FILE).write_text("")
    assert find_commit(package) == COMMIT


def test_without_git_or_with_one_that_refuses_the_commit_is_not_known(package: Path, tmp_path: Path) -> None:
    (package.parent / ".git").mkdir()
    assert find_commit(package) is None
    put_git(tmp_path / "bin", COMMIT, status=128)
    assert find_commit(package) is None


def test_the_version_needs_neither_git_nor_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LOGSTORE_NO_SUCH_SETTING", "refused by every command that reads settings")
    assert cli.main(["--version"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines == {
        "logstore-validator": __version__,
        "commit": find_commit() or "not known",
        "protocol": " ".join(map(str, PROTOCOL_VERSIONS)),
        "bundle": str(CODEC_VERSION),
    }
