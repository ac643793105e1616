"""Set reconciliation against the protocol's own JavaScript, byte for byte: ``… negentropy_reference [--seeds N]``.

Needs Node and npm. The reference is taken from the npm package applesauce-relay, which carries it with both roles
(MIT licence, by the protocol's author; the package's only change is where SHA-256 comes from) and is fetched into a
temporary folder, checked against the SHA-256 below and never installed.

Each seed makes two sets of records and holds three sessions over them, each side a process of its own spoken to in
lines (`tests/conformance/negentropy.py`): the reference with itself, ours as client, ours as server. All three must
say the same bytes in the same order and find the same ids; without a frame limit these are exactly the differences.
Then the bytes that begin another protocol version, and what is no version at all, are answered or refused alike.

The reference's numbers have 32 bits, so timestamps here are seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from validator.setup.binaries import compute_sha256, find_node, find_npm
from validator.setup.console import SetupError

AGREED, DIFFERED, USAGE = 0, 1, 2

PACKAGES = {
    "applesauce-relay@6.2.1": (
        "applesauce-relay-6.2.1.tgz",
        "01c53db9bfe01d9a278524dc39eb7d88c25f86a42322785a5364b0dfb7684849",
        "reference",
    ),
    "@noble/hashes@2.2.0": (
        "noble-hashes-2.2.0.tgz",
        "018b38bd7af36645fa0ece8f89eba21c828f3e4d219da5aacadd78bd0e654606",
        "node_modules/@noble/hashes",
    ),
}
"""npm package → name of its archive, the archive's SHA-256, where its files go; the second has the first's SHA-256."""
MODULE = "reference/dist/lib/negentropy.js"
BRIDGE = Path(__file__).with_suffix(".mjs")

SIZES = (0, 1, 2, 31, 32, 33, 100, 480, 1000, 5000)
LIMITS = (0, 4096, 5000, 60_000)
BEGINNINGS = ("62", "60", "6f00", "50", "70", "00", "ff")
"""Of messages in another version of the protocol, and of what is none."""
MOST_MESSAGES = 5000
"""Of one side in one session; the longest here has some hundred."""

Items = list[tuple[int, bytes]]
Words = Sequence[str]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance negentropy_reference")
    parser.add_argument("--seeds", type=int, default=40, help="pairs of sets (40: every size with every limit)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    chosen = parser.parse_args(arguments)
    ours: Words = (sys.executable, "-m", "tests.conformance", "negentropy")
    try:
        with tempfile.TemporaryDirectory(prefix="logstore-negentropy-") as folder:
            theirs: Words = (find_node(), str(BRIDGE), str(fetch_reference(Path(folder))))
            return compare(ours, theirs, range(chosen.first, chosen.first + chosen.seeds))
    except SetupError as error:
        print(f"the protocol's JavaScript cannot be had: {error}", file=sys.stderr)
        return USAGE


def fetch_reference(folder: Path) -> Path:
    """Fetch and unpack the packages below ``folder``; return the path of the module. Raises: SetupError."""
    npm = find_npm()
    environment = {**os.environ, "PATH": f"{Path(npm[0]).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    for package, (name, sha256, place) in PACKAGES.items():
        words = [*npm, "pack", package, "--pack-destination", str(folder), "--ignore-scripts"]
        done = subprocess.run(words, capture_output=True, cwd=folder, env=environment, timeout=200, check=False)
        archive = folder / name
        if done.returncode or not archive.is_file():
            said = done.stderr.decode(errors="replace").strip()[-500:]
            raise SetupError(f"npm could not fetch {package}: {said}", "look at npm's registry setting")
        if compute_sha256(archive) != sha256:
            raise SetupError(f"{name} is not the archive of that version", "check the package mirror in use")
        with tarfile.open(archive) as packed:
            # older patch releases of Python 3.11 have no filters; the archive is known byte for byte
            packed.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
            packed.extractall(folder / "unpacked")
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / "unpacked" / "package").rename(folder / place)
    return folder / MODULE


def compare(ours: Words, theirs: Words, seeds: range, beginnings: Sequence[str] = BEGINNINGS) -> int:
    """Hold all sessions, then try other versions' beginnings; print each difference and what was compared."""
    differing = messages = moved = unfound = 0
    for seed in seeds:
        case = make_case(seed)
        reference = hold_session(theirs, theirs, case)
        differences = [
            f"{role}: {difference}"
            for role, session in (
                ("ours as client", hold_session(ours, theirs, case)),
                ("ours as server", hold_session(theirs, ours, case)),
            )
            if (difference := reference.differs_from(session))
        ]
        left = case.differences ^ reference.found
        if left and not case.frame_limit:
            differences.append(f"{len(left)} differences not found")
        unfound += len(left)
        messages, moved = messages + len(reference.messages), moved + sum(map(len, reference.messages)) // 2
        differing += bool(differences)
        for difference in differences:
            print(f"seed {seed} ({case}): {difference}")
    for start in beginnings:
        said = {tuple(answer_once(words, start)) for words in (ours, theirs)}
        if len(said) != 1:
            differing += 1
            print(f"a message that begins with {start} is answered with {' and '.join(map(repr, sorted(said)))}")
    print(
        f"{len(seeds)} pairs of sets, {messages} messages and {moved} bytes a role, byte for byte the reference's; "
        f"{unfound} differences left by frame limits, the same by all"
        if not differing
        else f"{differing} differ"
    )
    return DIFFERED if differing or not seeds else AGREED


# --- cases ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """Two sets and a frame limit in bytes."""

    client: Items
    server: Items
    frame_limit: int

    @property
    def differences(self) -> frozenset[tuple[str, bytes]]:
        """What a session finds: ids that only the client has, ids that only the server has."""
        mine, other = {item for _, item in self.client}, {item for _, item in self.server}
        return frozenset({("have", item) for item in mine - other} | {("need", item) for item in other - mine})

    def __str__(self) -> str:
        return (
            f"{len(self.client)} and {len(self.server)} records, {len(self.differences)} differences, "
            f"frame limit {self.frame_limit}"
        )


def make_case(seed: int) -> Case:
    """Sizes and limits in turn; what is in common, timestamps and how alike the ids are by chance."""
    rng = random.Random(seed)
    count, frame_limit = SIZES[seed % len(SIZES)], LIMITS[seed // len(SIZES) % len(LIMITS)]
    span = rng.choice((1, 3, 60, 1_000_000))
    prefix = bytes(rng.choice((0, 0, 1, 28)))
    start = rng.choice((0, 1_700_000_000))
    ids = sorted({prefix + rng.randbytes(32 - len(prefix)) for _ in range(count)})
    items = [(start + rng.randrange(span), item) for item in ids]
    kept = [rng.choice((0, 0.3, 0.9, 0.99, 0.999, 1, 1)) for _ in range(2)]
    client, server = ([item for item in items if rng.random() < part] for part in kept)
    rng.shuffle(client)
    return Case(client, server, frame_limit)


# --- sessions -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Session:
    """What was said: all messages in order as hex, and per answer what the client found in it."""

    messages: list[str]
    steps: list[frozenset[tuple[str, bytes]]]

    @property
    def found(self) -> frozenset[tuple[str, bytes]]:
        return frozenset[tuple[str, bytes]]().union(*self.steps)

    def differs_from(self, other: Session) -> str | None:
        """Where the first difference is, in words."""
        for number, (one, two) in enumerate(zip(self.messages, other.messages, strict=False)):
            if one != two:
                at = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), 0) // 2
                return f"message {number} ({'answer' if number % 2 else 'query'}) differs at byte {at}"
        if len(self.messages) != len(other.messages):
            return f"{len(other.messages)} messages, not {len(self.messages)}"
        return "other ids are found" if self.steps != other.steps else None


class Side:
    """One process that obeys lines."""

    def __init__(self, words: Words, frame_limit: int) -> None:
        environment = {**os.environ, "FRAMESIZELIMIT": str(frame_limit)}
        self.child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
        )

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.communicate()

    def tell(self, lines: str) -> None:
        assert self.child.stdin is not None
        with suppress(BrokenPipeError):  # one that ended answers nothing: that is what is compared
            self.child.stdin.write(lines)
            self.child.stdin.flush()

    def load(self, items: Items) -> None:
        self.tell("".join([*(f"item,{timestamp},{item.hex()}\n" for timestamp, item in items), "seal\n"]))

    def ask(self, line: str) -> tuple[list[str], str]:
        """What it found, and its message or ``done``; an ended process says the empty string."""
        assert self.child.stdout is not None
        self.tell(line + "\n")
        found: list[str] = []
        while (reply := self.child.stdout.readline().strip()).startswith(("have,", "need,")):
            found.append(reply)
        return found, reply


def hold_session(client_words: Words, server_words: Words, case: Case) -> Session:
    """A whole session. Both sides run to its end, or to the first that says nothing."""
    said = Session([], [])
    with Side(client_words, case.frame_limit) as client, Side(server_words, case.frame_limit) as server:
        client.load(case.client)
        server.load(case.server)
        _, line = client.ask("initiate")
        while line.startswith("msg,") and len(said.messages) < 2 * MOST_MESSAGES:
            said.messages.append(line.removeprefix("msg,"))
            _, line = server.ask(line)
            said.messages.append(line.removeprefix("msg,"))
            if not line:
                break
            found, line = client.ask(line)
            pairs = (item.split(",") for item in found)
            said.steps.append(frozenset((kind, bytes.fromhex(item)) for kind, item in pairs))
    if line != "done":
        said.messages.append(f"the session ended with {line[:20]!r}")
    return said


def answer_once(words: Words, message: str) -> list[str]:
    """What a server and what a client with no records say to this message; "refused" for an end without an answer."""
    said = []
    for begin in ([], ["initiate"]):
        with Side(words, 0) as side:
            side.load([])
            for line in begin:
                side.ask(line)
            said.append(side.ask(f"msg,{message}")[1] or "refused")
    return said
