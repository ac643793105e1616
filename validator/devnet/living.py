"""A network that goes on until it is interrupted: ``devnet --keep``, for somebody who wants to try it.

Traffic, windows, bundles and reports go on in epochs of ``--windows`` windows. Once a window is agreed the network is
announced to ``logstore`` and everything a newcomer needs is said; with ``--tour`` they are then taken through it.
Nothing is checked from outside, and no logs are written for that. Ctrl-C ends it with one line and exit status 0.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack, closing

from validator.devnet.children import Children
from validator.devnet.collect import LOOKED_AT, Operators
from validator.devnet.display import Display
from validator.devnet.folder import RunFolder
from validator.devnet.newcomer import NAME, announce_network
from validator.devnet.plan import STUCK_S, Options, members_of
from validator.devnet.process import now_ms
from validator.devnet.progress import LOOK_S, PAUSE_S, Progress
from validator.devnet.stage import Stage
from validator.quantities import show_count
from validator.setup.binaries import ROOT

TOUR = ("quickstart",)


class Living:
    """A network that has been launched and is watched."""

    def __init__(self, options: Options, folder: RunFolder, children: Children, display: Display, stage: Stage) -> None:
        self.options = options
        self.folder = folder
        self.children = children
        self.display = display
        self.stage = stage
        self.progress = Progress(options, stage.network.genesis_ms, members_of(options))
        self._waits = ""

    def run(self) -> int:
        """Until Ctrl-C; 0. Raises ChildEnded if a part ends by itself."""
        urls = {validator.name: validator.operator_url for validator in self.stage.validators}
        with closing(Operators(urls, LOOKED_AT)) as operators, ExitStack() as announced:
            is_known = False
            try:
                while True:
                    self._look(operators)
                    if not is_known and self.progress.agreed_windows():
                        is_known = True
                        self._announce(announced, operators)
                    self._rest()
            except KeyboardInterrupt:
                self.display.end_live()
                self.display.say(self.closing_line())
                return 0

    def closing_line(self) -> str:
        """What the network has done, as it ends."""
        agreed, final = self.progress.agreed_windows(), self.progress.final_reports()
        seconds = max(0, now_ms() - self.stage.network.genesis_ms) // 1000
        windows, reports = (numbers[-1] + 1 if numbers else 0 for numbers in (agreed, final))
        return (
            f"devnet: ended after {seconds // 60} min {seconds % 60} s: {show_count(windows, 'window')} agreed, "
            f"{show_count(reports, 'report')} final; files in {self.folder.path}"
        )

    def welcome(self) -> list[str]:
        """What a newcomer needs: where to look, which streams there are, a key, and what to try."""
        stage = self.stage
        first = stage.streams[0].id
        tool = _tool("logstore")
        return [
            "",
            "The network is up, and goes on until Ctrl-C.",
            "",
            f"  look at messages, proofs   {stage.broker_urls[0]}/explorer",
            f"  look at a validator        {stage.validators[0].operator_url}/",
            *(
                f"  {'streams' if number == 0 else '':<27}{stream.id}, {show_count(stream.partitions, 'partition')}"
                for number, stream in enumerate(stage.streams)
            ),
            f"  a key with coins           {self.folder.path / 'keys' / NAME}",
            "",
            "Try in another terminal, here; the network and the key are found by themselves:",
            "",
            f"  {tool} quickstart",
            f"  {tool} query {first} --last 5",
            f"  {tool} verify --help",
            "",
        ]

    # --- inside -----------------------------------------------------------------------------------

    def _look(self, operators: Operators) -> None:
        """Show what has changed; say once if nothing does any more, and why."""
        progress = self.progress
        changes = progress.take_in(operators.fetch_statuses(progress.names), now_ms(), time.monotonic())
        if not self.options.tour:
            for line in changes:
                self.display.change(line)
            self.display.show(progress)
        if now_ms() < progress.genesis_ms:
            progress.note_change(time.monotonic())
        still_s = time.monotonic() - progress.changed_s
        waits = progress.describe_wait() if still_s > max(STUCK_S, self.options.window_seconds + 60) else ""
        if waits and not self._waits:
            self.display.say(f"no state has changed for {still_s:.0f} s: {waits}")
        self._waits = waits

    def _announce(self, announced: ExitStack, operators: Operators) -> None:
        streams = [stream.id for stream in self.stage.streams]
        announced.enter_context(announce_network(self.folder, self.options, streams, self.stage.broker_urls))
        for line in self.welcome():
            self.display.say(line)
        if self.options.tour:
            tour = subprocess.Popen([sys.executable, "-m", "logstore", *TOUR], cwd=ROOT)
            while tour.poll() is None:
                self._rest()
                self._look(operators)
            self.display.say("")
            self.display.say("The network goes on; end it with Ctrl-C.")

    def _rest(self) -> None:
        end = time.monotonic() + LOOK_S
        while time.monotonic() < end:
            self.children.check()
            time.sleep(PAUSE_S)


def _tool(name: str) -> str:
    """How a program of ours is called from the project's folder."""
    return f".venv/bin/{name}" if (ROOT / ".venv" / "bin" / name).is_file() else name
