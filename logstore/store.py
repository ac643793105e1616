"""One network as its readers see it: what the contract holds, the bundles' files, and SQL over their messages."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from logstore.connection import Connection, Sources, now_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb import DuckDBPyConnection, DuckDBPyRelation

    from logstore.answers import QueryAnswer
    from logstore.auditing import AuditVerdict
    from logstore.bundles import Bundles
    from validator.protocol.codec.secp256k1 import SigningKey


class LogStore(Connection):
    """A connection, and what is made of it. One thread."""

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources)
        self._database: DuckDBPyConnection | None = None
        """Of the newest query: its relation lives by it."""

    def close(self) -> None:
        """Give connections back; relations of queries end too."""
        if self._database is not None:
            self._database.close()
        super().close()

    @cached_property
    def bundles(self) -> Bundles:
        """Files of bundles, downloaded once."""
        from logstore.bundles import Bundles

        return Bundles(self)

    def query(
        self,
        stream: str,
        start: str | int = "-1h",
        end: str | int = "now",
        *,
        partition: int = 0,
        verify: str = "proof",
        brokers: Sequence[str] = (),
        key: SigningKey | None = None,
    ) -> QueryAnswer:
        """The messages of [start, end) as brokers hold them, checked while they stream; nothing is asked before that.

        ``verify``: "proof": certified history is complete; "signatures": publishers' and the broker's; "none".
        ``brokers``: URLs, instead of those that the chain names. ``key``: the consumer's, where they want one.

        Raises:
            ConfigError: a time, level or URL that is none, or no broker to ask.
            TransientError, RemoteFault: the chain, which names the brokers, cannot be read.
        """
        from logstore.answers import make_request, open_answer, parse_verify_level
        from logstore.times import parse_time

        from_ms, to_ms = (parse_time(str(text), now_ms(), name) for text, name in ((start, "start"), (end, "end")))
        request = make_request(stream, partition, from_ms, to_ms)
        return open_answer(self, request, parse_verify_level(verify), brokers, key)

    def audit(
        self,
        stream: str,
        start: str | int = "-1h",
        end: str | int = "now",
        *,
        partition: int = 0,
        brokers: Sequence[str] = (),
        key: SigningKey | None = None,
    ) -> AuditVerdict:
        """What the first broker answers, compared with what the second holds; ``brokers``: these two, or the chain's.

        Raises:
            Refused: the answer is false, or leaves messages out.
            ConfigError: fewer than two brokers.
            TransientError, RemoteFault: one of them, or the chain, does not answer.
        """
        from logstore.answer_check import Verify
        from logstore.answers import make_request
        from logstore.auditing import audit_brokers
        from logstore.times import parse_time

        from_ms, to_ms = (parse_time(str(text), now_ms(), name) for text, name in ((start, "start"), (end, "end")))
        return audit_brokers(self, make_request(stream, partition, from_ms, to_ms), Verify.PROOF, brokers, key)

    def sql(
        self,
        query: str,
        start: str | int = "-1h",
        end: str | int = "now",
        *,
        verify: bool = True,
        allow_files: bool = False,
    ) -> DuckDBPyRelation:
        """The answer of a query over ``messages`` of [start, end): ``.df()``, ``.pl()``, ``.fetchall()``.

        ``allow_files``: the query may read and write files of this machine, and reach whatever DuckDB reaches.

        Raises:
            Refused: a bundle's file is not what the contract holds.
            ConfigError: a time or query that is none, or DuckDB is not installed.
            TransientError, RemoteFault: something could not be fetched.
        """
        from logstore.output import Output
        from logstore.query import open_messages, start_query
        from logstore.selection import select_files
        from logstore.times import parse_time

        from_ms, to_ms = (parse_time(str(text), now_ms(), name) for text, name in ((start, "start"), (end, "end")))
        output = Output(as_json=True)
        self.bundles.cache.open()  # what an earlier query read may go
        files = select_files(self.reports, self.bundles, output, from_ms, to_ms, verify=verify)
        self._database = open_messages(files, from_ms, to_ms, self.sources.cache, allow_files=allow_files)
        return start_query(self._database, query, allow_files=allow_files)
