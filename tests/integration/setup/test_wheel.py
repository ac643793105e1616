"""The wheel as the build backend of the lock makes it, from a source archive as packagers do: what must be in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.programs import put_git

PARTS = ("validator", "tasks", "contracts_abi", "alembic", "pyproject.toml", "README.md", "LICENSE", "hatch_build.py")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def build(kind: str, checkout: Path, folder: Path, programs: str) -> Path:
    words = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    environment = {**os.environ, "PATH": programs}
    subprocess.run(words, cwd=checkout, check=True, capture_output=True, timeout=100, env=environment)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from an unpacked source archive of a checkout at ``COMMIT``, where Git knows nothing any more."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, checkout / part)
    (checkout / ".git").mkdir()
    put_git(folder / "bin", COMMIT)
    archive = build("sdist", checkout, folder / "sdist", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "unpacked")  # our own archive; older patch releases of 3.11 have no filters
    (unpacked,) = (folder / "unpacked").iterdir()
    return zipfile.ZipFile(build("wheel", unpacked, folder / "wheel", str(folder / "nothing")))


def read_metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    return BytesParser().parsebytes(wheel.read(name))


def test_the_wheel_names_its_licence_and_carries_the_text(wheel: zipfile.ZipFile) -> None:
    metadata = read_metadata(wheel)
    assert (metadata["License-Expression"], metadata.get_all("License-File")) == ("MIT", ["LICENSE"])
    (text,) = [n for n in wheel.namelist() if n.endswith(".dist-info/licenses/LICENSE")]
    assert wheel.read(text) == (ROOT / "LICENSE").read_bytes()


def test_each_of_our_packages_in_the_wheel_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    packages = {Path(name).parts[0] for name in wheel.namelist() if name.endswith(".py")}
    assert packages == {"validator", "tasks", "contracts_abi"}
    assert {f"{package}/py.typed" for package in packages} <= set(wheel.namelist())


def test_the_wheel_carries_migrations_and_contracts_and_no_tests(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    migrations = [path.name for path in (ROOT / "alembic" / "versions").glob("0*.py")]
    assert migrations
    assert {f"validator/store/migrations/versions/{name}" for name in migrations} <= names
    assert {f"contracts_abi/{p.name}" for p in (ROOT / "contracts_abi").glob("*.json")} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]


def test_the_wheel_knows_its_commit_though_it_was_built_where_there_is_no_repository(wheel: zipfile.ZipFile) -> None:
    assert wheel.read("validator/commit.txt").decode().strip() == COMMIT


def test_the_wheel_carries_the_program_that_joins_streamr_s_network(wheel: zipfile.ZipFile) -> None:
    node = ROOT / "validator" / "net" / "streamr" / "node"
    files = {str(path.relative_to(ROOT)) for path in node.rglob("*") if path.is_file()}
    assert "validator/net/streamr/node/bridge.mjs" in files
    assert files <= set(wheel.namelist())
