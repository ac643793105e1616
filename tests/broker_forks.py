"""Brokers as processes of their own that start in a moment: forked from one that has imported everything.

python -m tests.broker_forks      one command a line, JSON; one answer a line
{"start": settings, "log": PATH}  -> {"pid": N}
{"end": PID, "signal": N}         -> {"status": N}, once it is gone
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from validator import log as logs
from validator.broker.config import BrokerSettings
from validator.broker.run import run_broker
from validator.setup.console import die_with_parent


def start(settings: dict[str, Any], log: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    die_with_parent()
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(sink, number)
    status = 1
    try:
        logs.configure("INFO", "json")
        run_broker(BrokerSettings(**settings))
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        if "start" in command:
            answer = {"pid": start(command["start"], Path(command["log"]))}
        else:
            os.kill(command["end"], command["signal"])
            answer = {"status": os.waitpid(command["end"], 0)[1]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
