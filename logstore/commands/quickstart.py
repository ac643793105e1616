"""logstore quickstart: from a key with coins to a proven message, each command shown."""

from __future__ import annotations

import json
import shlex
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from logstore.commands.options import (
    KeyOption,
    NetworkOption,
    connected,
    make_output,
)
from logstore.errors import NotStored, Refused
from logstore.output import count_of
from logstore.times import format_time
from validator.protocol.errors import RemoteFault, TransientError, ValidatorError

if TYPE_CHECKING:
    from logstore.output import Output
    from logstore.store import LogStore
    from validator.protocol.model import Address

PATH = "/quickstart"
TOKENS = 10 * 10**18
READINGS = (21.5, 21.7, 22.0)
READY_S = 120.0
"""Until brokers know a new stream, and let a new account read."""
STORED_S = 900.0
"""Until a message lies in a bundle that the contract holds: some windows, an upload, and a report."""
LOOK_S = 2.0


def quickstart(
    key: KeyOption = None,
    network: NetworkOption = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="At most so long for the proof; 0: end before it.")
    ] = STORED_S,
) -> None:
    """Take a tour through a network: pay, publish, read, audit, prove. Every command that runs is shown.

    A development network that runs on this machine is found by itself, with a key that has coins; on another network
    the key's account pays. What is done already is not done again.

    Example: logstore quickstart
    """
    from logstore.keys import require_signer

    output = make_output(False)
    with connected(network, None, None, None, output, key) as store:
        address = require_signer(store.signer).address
    common = [*(["--network", network] if network else []), *(["--key", str(key)] if key else [])]
    Tour(output, common, address, network, key).take(wait)


class Tour:
    """The steps, one after the other."""

    def __init__(self, output: Output, common: list[str], address: Address, network: str | None, key: Path | None):
        self._output = output
        self._common = common
        self._keyless = common[: 2 * (network is not None)]
        self._network = network
        self._key = key
        self.stream = f"0x{address.hex()}{PATH}"

    def take(self, wait_s: float) -> None:
        """Raises what a command raises that cannot go on."""
        stream = self.stream
        self._step("The network: its contracts, and who agrees on what is stored.")
        self._run(["network", "show", *self._keyless])
        self._pay()
        self._step("Publish: each line is signed with your key, and on a broker's disk when the command ends.")
        times = self._publish()
        self._step("Read: every signature is checked, and at the end it is said what rests on whose word.")
        self._patiently(["query", stream, "--last", str(len(times)), *self._common])
        self._step("Audit: does one broker leave out what another one holds?")
        self._try(["audit", stream, "--from", str(times[0]), "--to", str(times[-1] + 1), *self._common])
        if wait_s <= 0:
            return
        self._step("Prove: once your message lies in a bundle on Arweave, and the contract holds the bundle's root.")
        self._wait_stored(times[0], wait_s)
        with tempfile.TemporaryDirectory(prefix="logstore-") as folder:
            prove = ["prove", stream, str(times[0]), "--output", folder, *self._keyless]
            self._patiently(prove, READY_S)
            for file in sorted(Path(folder).iterdir()):
                self._step("Verify: this small file convinces whoever has the network's file; no broker is asked.")
                self._run(["verify", str(file), *self._keyless])
                kept = Path(file.name)
                kept.write_bytes(file.read_bytes())
                self._output.note(f"kept as {kept}")
        self._output.line()
        self._output.line("That was all of it: stored, read and proven. Go on with logstore --help, or in Python:")
        self._output.line(f"    import logstore; network = logstore.connect(); network.query({stream!r}).to_arrow()")

    def _pay(self) -> None:
        """Buy tokens, register the stream, and pay for storing and reading it, as far as it is not done yet."""
        acting = [*self._common, "--yes"]
        with connected(self._network, None, None, None, self._output, self._key) as store:
            held = store.balance()
            exists = store.reports.chain.fetch_view("StreamRegistry", "exists", (self.stream,))[0]
            is_paid = bool(exists and store.stream(self.stream).balance)
        if not (held.reading and is_paid) and held.tokens < TOKENS:
            self._step("Tokens: what storing and reading are paid with.")
            self._run(["mint", "10LSAN", *acting])
        if not exists:
            self._step("A stream, registered at Streamr's own registry. You may publish on it, nobody else.")
            self._run(["stream", "create", PATH, *acting])
        if not is_paid:
            self._step("Pay for storing it; brokers keep it from now on, validators agree on what it holds.")
            self._run(["stake", "5LSAN", "--stream", self.stream, *acting])
        if not held.reading:
            self._step("Pay for reading; brokers answer whoever has a balance.")
            self._run(["stake", "2LSAN", *acting])

    def _publish(self) -> list[int]:
        """Times of the messages."""
        shown = ["publish", self.stream, json.dumps({"temperature": READINGS[0]}), *self._common]
        self._show(shown)
        until = time.monotonic() + READY_S
        times: list[int] = []
        with connected(self._network, None, None, None, self._output, self._key) as store:
            for reading in READINGS:
                times.append(self._publish_one(store, reading, until))
        self._output.line(f"published {count_of(len(times), 'message')} like it, the first at {format_time(times[0])}")
        return times

    def _publish_one(self, store: LogStore, reading: float, until: float) -> int:
        is_told = False
        while True:
            try:
                return store.publish(self.stream, {"temperature": reading}).timestamp_ms
            except (Refused, TransientError):
                if time.monotonic() > until:
                    raise
            if not is_told:
                self._output.note("brokers look every few seconds for new streams; waiting")
                is_told = True
            time.sleep(LOOK_S)

    def _wait_stored(self, at_ms: int, wait_s: float) -> None:
        """Raises NotStored."""
        until = time.monotonic() + wait_s
        said = ""
        with self._output.busy("windows are agreed, a bundle is sealed and posted, its report is accepted"):
            while True:
                stored = self._stored_until()
                if stored > at_ms:
                    break
                if time.monotonic() > until:
                    raise NotStored(f"not in a bundle after {wait_s:.0f} s: {said}; try logstore prove later")
                now_said = f"stored until {format_time(stored)}" if stored else "no bundle is accepted yet"
                if now_said != said:
                    said = now_said
                    self._output.note(said)
                time.sleep(LOOK_S)

    def _stored_until(self) -> int:
        """Up to where bundles hold everything, in Unix ms; 0 where there is none, or nobody can say now."""
        try:
            with connected(self._network, None, None, None, self._output) as store:
                newest = store.reports.fetch(store.reports.count - 1) if store.reports.count else None
                return 0 if newest is None else newest.end_ms
        except (TransientError, RemoteFault):
            return 0

    # --- running and showing

    def _step(self, text: str) -> None:
        self._output.line()
        self._output.line(text)

    def _show(self, words: list[str]) -> None:
        self._output.line(f"$ logstore {shlex.join(words)}")
        self._output.flush()

    def _run(self, words: list[str]) -> None:
        """Raises what the command raises."""
        self._show(words)
        self._invoke(words)
        self._output.flush()

    def _invoke(self, words: list[str]) -> None:
        from logstore.cli import invoke

        invoke(words)

    def _patiently(self, words: list[str], within_s: float = READY_S) -> None:
        """Until it works: what was paid or stored a moment ago is not known everywhere."""
        self._show(words)
        self._again(lambda: self._invoke(words), within_s)
        self._output.flush()

    def _again(self, work: Callable[[], None], within_s: float) -> None:
        until = time.monotonic() + within_s
        while True:
            try:
                return work()
            except (NotStored, TransientError, RemoteFault):
                if time.monotonic() > until:
                    raise
            time.sleep(LOOK_S)

    def _try(self, words: list[str]) -> None:
        """A step that a network of one broker cannot take."""
        try:
            self._run(words)
        except ValidatorError as error:
            if isinstance(error, Refused):
                raise
            self._output.note(f"not now: {error}")
