"""A line harness for set reconciliation, to be driven against other implementations: ``… negentropy``.

Reads from standard input, one command a line, and answers on standard output as other harnesses of Negentropy V1 do:

    item,<timestamp>,<hex id>   add a record          seal       no more records
    initiate                    -> msg,<hex>          msg,<hex>  -> have,<hex id>… need,<hex id>… then msg,<hex> or done

The environment variable FRAMESIZELIMIT sets the frame limit in bytes (0 or unset: none, else at least 4096).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from validator.protocol.consensus.reconcile import Records, answer, initiate, reconcile
from validator.protocol.errors import InvariantError, MalformedInput


def main(arguments: list[str]) -> int:
    if arguments:
        print("usage: python -m tests.conformance negentropy < commands", file=sys.stderr)
        return 2
    try:
        harness = Harness(int(os.environ.get("FRAMESIZELIMIT") or "0"))
    except ValueError:
        print("FRAMESIZELIMIT is neither 0 nor at least 4096", file=sys.stderr)
        return 2
    for number, line in enumerate(sys.stdin, 1):
        try:
            for reply in harness.obey(line.strip()):
                print(reply, flush=True)
        except (ValueError, MalformedInput, InvariantError) as error:
            print(f"line {number}: {error}", file=sys.stderr)
            return 1
    return 0


class Harness:
    """One side of a session."""

    def __init__(self, frame_limit: int) -> None:
        if frame_limit != 0 and frame_limit < 4096:
            raise ValueError("frame limit")
        self.frame_limit = frame_limit
        self.items: list[tuple[int, bytes]] = []
        self.records: Records | None = None
        self.initiator = False

    def obey(self, line: str) -> Iterator[str]:
        """Answers to one command. Raises ValueError for a command that does not fit."""
        command, *fields = line.split(",")
        if command == "item" and len(fields) == 2:
            if self.records is not None:
                raise ValueError("item after seal")
            self.items.append((int(fields[0]), bytes.fromhex(fields[1])))
        elif command == "seal" and self.records is None:
            self.records = Records(self.items)
        elif command == "initiate" and self.records is not None and not self.initiator:
            self.initiator = True
            yield "msg," + initiate(self.records).hex()
        elif command == "msg" and self.records is not None and len(fields) < 2:
            yield from self.reply(self.records, bytes.fromhex(fields[0] if fields else ""))
        elif line:
            raise ValueError(f"{line[:40]!r} is no command here")

    def reply(self, records: Records, message: bytes) -> Iterator[str]:
        if not self.initiator:
            yield "msg," + answer(records, message, frame_limit=self.frame_limit).hex()
            return
        following, have, need = reconcile(records, message, frame_limit=self.frame_limit)
        yield from (f"have,{item.hex()}" for item in have)
        yield from (f"need,{item.hex()}" for item in need)
        yield "done" if following is None else "msg," + following.hex()
