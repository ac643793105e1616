"""What the words of `python3 -m validator.setup` do.

Exit status: the command's own; 2 for a wrong word and for a set-up that cannot finish, 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from validator.setup import environment, stages
from validator.setup.binaries import ROOT
from validator.setup.console import SetupError, say

USAGE = """\
usage: python3 -m validator.setup COMMAND [ARGS…]

  devnet ARGS…      set up, then run a whole network on this machine (ARGS: see `devnet --help`)
  quickstart ARGS…  the same, but it goes on until Ctrl-C, and you are taken through it: store, query, prove
  test              set up, then run all test stages, two at a time, and print their table
  test ARGS…        set up, then run pytest alone with these words, as in: test -k round, or test tests/unit
  ci-stages NAME…   set up, then run these test stages only; `ci-stages --list` shows them
  install           set up only, with what tests need

Needs Python 3.11 to 3.13 on Linux and nothing else; all it makes lies in .venv. The second start needs no network.
LOGSTORE_REDIS_SERVER_BIN, LOGSTORE_ANVIL_BIN, LOGSTORE_NODE_BIN and LOGSTORE_NPM_BIN name binaries to use instead of
those found, LOGSTORE_STREAMR_PACKAGES a folder of Streamr's packages. Without Node 20 and npm Streamr is simulated.
"""

TOUR = (
    *("--keep", "--tour", "--flower", "none"),
    *("--rate", "5", "--window-seconds", "10", "--brokers", "2"),
)
"""A network that two cores bear for hours: windows cost about the same however long they are."""
NETWORKS = {"devnet": (), "quickstart": TOUR}
"""What runs a network, and its options before the given ones."""
WORDS = (*NETWORKS, "test", "ci-stages", "install")


def main(arguments: Sequence[str], started_ms: int) -> int:
    """Run one command and return its exit status; `started_ms` is when the command line began, Unix ms."""
    signal.signal(signal.SIGTERM, _on_terminate)
    word = arguments[0] if arguments else ""
    rest = list(arguments[1:])
    try:
        if word in ("-h", "--help", "help"):
            sys.stdout.write(USAGE)
            return 0
        if word == "ci-stages" and rest == ["--list"]:
            sys.stdout.write(stages.describe_stages())
            return 0
        if not word:
            sys.stderr.write(USAGE)
            return 2
        if word not in WORDS:
            raise SetupError(f"unknown command {word!r}", f"one of {', '.join(WORDS)}; see --help")
        if word == "install" and rest:
            raise SetupError(f"install takes no words ({rest[0]!r})", "leave them out")
        if word not in NETWORKS:  # tests try Ctrl-C, also where a shell has started them in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        chosen = stages.choose_stages(rest) if word == "ci-stages" else stages.STAGES
        environment.make_ready(for_tests=word not in NETWORKS)
        if word in NETWORKS:
            _become([str(environment.SCRIPT), "devnet", *NETWORKS[word], *rest], started_ms)
        if word == "test" and rest:
            _become(stages.pytest_words(rest), started_ms, folder=str(ROOT))
        if word == "install":
            return 0
        return stages.run_stages(chosen)
    except SetupError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _become(words: list[str], started_ms: int, folder: str | None = None) -> NoReturn:
    """Replace this process by the command, which sees when its command line began."""
    os.environ["LOGSTORE_STARTED_MS"] = str(started_ms)
    if folder is not None:
        os.chdir(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        os.execv(words[0], words)
    except OSError as error:
        raise SetupError(f"{words[0]} does not start ({error.strerror})", "remove .venv and try again") from error


def _on_terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    """End like an exit, so that children are stopped on the way out."""
    sys.exit(143)
