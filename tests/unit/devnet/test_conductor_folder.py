"""The run's folder: new or empty, locked, private where it holds keys; old runs go, those in use stay."""

from __future__ import annotations

import os
import shutil
import stat
from collections import namedtuple
from pathlib import Path

import pytest

from validator.devnet import folder as folders
from validator.devnet.folder import open_folder, write_private
from validator.protocol.errors import ConfigError


def test_a_named_folder_is_made_and_kept(tmp_path: Path) -> None:
    with open_folder(tmp_path / "a" / "b") as folder:
        assert folder.path == tmp_path / "a" / "b"
        sockets = folder.sockets
        assert len(str(sockets / "redis")) < 100
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder.path / "keys").stat().st_mode) == 0o700
    assert not sockets.exists()
    assert (tmp_path / "a" / "b" / "logs").is_dir()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with (
        open_folder(tmp_path / "run"),
        pytest.raises(ConfigError, match=r"^--data: .* in use"),
        open_folder(tmp_path / "run"),
    ):
        pass


def test_a_folder_that_was_used_is_refused(tmp_path: Path) -> None:
    with open_folder(tmp_path / "run"):
        pass
    with pytest.raises(ConfigError, match=r"^--data: .* not empty"), open_folder(tmp_path / "run"):
        pass


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1 << 40, 1 << 40, (512 << 20) - 1))
    with pytest.raises(ConfigError, match=r"^--data: 511 MiB are free"), open_folder(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path) == []


def test_the_last_three_runs_are_kept_and_none_in_use_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devnet-data" / "mine").mkdir(parents=True)
    with open_folder(None) as first:
        for _ in range(4):
            with open_folder(None) as folder:
                newest = folder.path
        kept = {path.name for path in (tmp_path / "devnet-data").iterdir()}
        assert {"mine", first.path.name, newest.name} <= kept
    with open_folder(None) as folder:
        newest = folder.path
    kept = {path.name for path in (tmp_path / "devnet-data").iterdir()}
    assert len(kept) == 4
    assert {"mine", newest.name} <= kept


def test_sockets_of_a_dead_devnet_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "SOCKETS", str(tmp_path / "s"))
    dead, alive = (tmp_path / "s" / f"logstore-devnet-{pid}-x" for pid in (2**22 + 1, os.getpid()))
    dead.mkdir(parents=True)
    alive.mkdir()
    with open_folder(tmp_path / "run"):
        assert not dead.exists()
        assert alive.exists()


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    path = write_private(tmp_path / "key", "text")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "text"
