"""The wheel as the build backend of the lock makes it: what must be in it, and what must not."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

from tests.paths import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (built,) = folder.iterdir()
    return zipfile.ZipFile(built)


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
