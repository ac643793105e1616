"""One network as its readers see it: what the contract holds, the bundles' files, and SQL over their messages."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from logstore.connection import Connection, Sources, now_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from duckdb import DuckDBPyConnection, DuckDBPyRelation

    from logstore.answer_check import Row
    from logstore.answers import QueryAnswer
    from logstore.auditing import AuditVerdict
    from logstore.bundles import Bundles
    from logstore.chains import Chains
    from logstore.keys import Key
    from logstore.money import Balance, Step, StreamInfo
    from logstore.paying import Payer
    from logstore.proofs import Proof
    from logstore.publishing import Published, Publisher
    from logstore.verdicts import AnyVerdict
    from validator.net.chain.account import Account
    from validator.protocol.codec.secp256k1 import Signer
    from validator.protocol.model import Address, Message


class LogStore(Connection):
    """A connection, and what is made of it. One thread.

    What its methods raise is listed in ``logstore.errors``. The examples have a ``stream`` and

        with logstore.connect() as network: ...
    """

    def __init__(self, sources: Sources, key: Key | None = None) -> None:
        """``key``: who signs what is published, paid and asked; see ``keys``."""
        super().__init__(sources)
        self._key = key
        self._chains: dict[Address, Chains] = {}
        self._publishers: dict[tuple[str, int], Publisher] = {}
        self._database: DuckDBPyConnection | None = None
        """Of the newest query: its relation lives by it."""

    def close(self) -> None:
        """Give connections back; relations of queries end too."""
        if self._database is not None:
            self._database.close()
        for publisher in self._publishers.values():
            publisher.close()
        for chains in self._chains.values():
            chains.close()
        if "account" in self.__dict__:
            self.account.close()
        super().close()

    @cached_property
    def signer(self) -> Signer | None:
        """Who signs, if anybody is named: see ``keys``. Raises Usage."""
        from logstore.keys import find_signer

        running = self.sources.running
        return find_signer(self._key, newcomer=running.key if running else "")

    def signer_of(self, key: Key | None) -> Signer | None:
        """Of a key that is named for one call, else the connection's. Raises Usage."""
        from logstore.keys import find_signer

        return self.signer if key is None else find_signer(key)

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
        key: Key | None = None,
        last: int | None = None,
        max_price: str | int | None = None,
        max_total: str | int | None = None,
    ) -> QueryAnswer:
        """The messages of [start, end) as brokers hold them, checked while they stream; nothing is asked before that.

        ``last``: the newest so many before ``end``, whatever ``start`` is. ``max_price`` a MiB and ``max_total``, such
        as "0.01LSAN" and "1LSAN": what is read is paid for by receipts within this budget, and never beyond.

        ``verify``: "proof": certified history is complete; "signatures": publishers' and the broker's; "none".
        ``brokers``: URLs, instead of those that the chain names. ``key``: the consumer's, where they want one.

            >>> with network.query(stream, "-1h") as answer:
            ...     contents = [message.content for message in answer]
            >>> contents[0]
            b'{"temperature":21.5}'
            >>> answer.proof.count == len(contents)
            True

        Raises:
            Usage: a time, level or URL that is none, or no broker to ask.
            Unreachable, Fault: the chain, which names the brokers, cannot be read.
        """
        from logstore.answers import find_brokers, make_request, open_answer, parse_verify_level
        from logstore.times import parse_time

        from_ms, to_ms = (parse_time(str(text), now_ms(), name) for text, name in ((start, "start"), (end, "end")))
        request, level = make_request(stream, partition, from_ms, to_ms), parse_verify_level(verify)
        signer = self.signer_of(key)
        payer = self._find_payer(signer, max_price, max_total)
        return open_answer(self, request, level, find_brokers(self, brokers, signer), last, payer)

    # --- money and streams ------------------------------------------------------------------------

    @cached_property
    def account(self) -> Account:
        """The signer's, at the contracts. Raises Usage: no key, no node; Unreachable: none answers."""
        from logstore.money import open_account

        return open_account(self)

    def balance(self) -> Balance:
        """Coins, tokens, and what reading is paid from.

        >>> network.balance().tokens > 0
        True
        """
        from logstore.money import fetch_balance

        return fetch_balance(self.account)

    def mint(self, amount: str | int, *, dry_run: bool = False) -> list[Step]:
        """Buy tokens, "10LSAN" or base units, for the chain's own coin; ``dry_run``: only say what it would cost.

            >>> (step,) = network.mint("10LSAN", dry_run=True)
            >>> (bought,) = network.mint("10LSAN")
            >>> step.text == bought.text
            True

        Raises:
            Usage: no key, no amount, or nothing is sold.
            Denied: the contract refuses; says why.
            Unreachable, UnknownOutcome: nodes do not answer, or it is not mined in time.
        """
        from logstore import money

        return money.perform(self.account, money.mint(self.account, money.units_of(amount)), dry_run=dry_run)

    def stake(
        self, amount: str | int, stream: str | None = None, *, consumer: str | None = None, dry_run: bool = False
    ) -> list[Step]:
        """Pay for a stream's storing, or where none is named for reading, one's own or ``consumer``'s. Raises as
        ``mint``.

            >>> [step.text.split()[0] for step in network.stake("4LSAN", stream)]
            ['allow', 'bring']
            >>> steps = network.stake("2LSAN")
        """
        from logstore import money

        calls = money.stake(self.account, money.units_of(amount), stream, consumer)
        return money.perform(self.account, calls, dry_run=dry_run)

    def withdraw(
        self, amount: str | int | None = None, stream: str | None = None, *, dry_run: bool = False
    ) -> list[Step]:
        """Begin to take an amount out of what ``stake`` paid in; without one, pay out what has waited. Raises as
        ``mint``.

            >>> steps = network.withdraw("1LSAN")
            >>> network.balance().leaving is None
            False
        """
        from logstore import money

        units = None if amount is None else money.units_of(amount)
        return money.perform(self.account, money.withdraw(self.account, units, stream), dry_run=dry_run)

    def create_stream(self, name: str, partitions: int = 1) -> str:
        """Register a stream, "/sensors", below the key's address; its id. Raises as ``mint``.

        >>> network.create_stream("/weather", partitions=2)
        '0x.../weather'
        """
        from logstore import money

        stream, calls = money.create_stream(self.account, name, partitions)
        money.perform(self.account, calls)
        return stream

    def permit(
        self, stream: str, user: str = "public", *, publish: bool | None = None, subscribe: bool | None = None
    ) -> list[Step]:
        """Let an address, or everybody, publish or subscribe, or no longer; None: as it is. Raises as ``mint``.

        >>> steps = network.permit(stream, "public", subscribe=True)
        >>> network.stream(stream).is_public
        True
        """
        from logstore import money

        calls = money.permit(self.account, stream, user, publish=publish, subscribe=subscribe)
        return money.perform(self.account, calls)

    def stream(self, stream: str) -> StreamInfo:
        """What registry and StoreManager hold of a stream. Raises Usage: there is none of this id.

        >>> network.stream(stream).may_publish
        True
        """
        from logstore.money import fetch_stream

        return fetch_stream(self, stream)

    # --- messages ---------------------------------------------------------------------------------

    def publisher(self, stream: str, *, partition: int = 0, brokers: Sequence[str] = ()) -> Publisher:
        """For many messages of one partition: see ``publishing``.

        ``brokers``: URLs, instead of those that the chain names.

            >>> with network.publisher(stream) as sensor:
            ...     sent = [sensor.publish({"number": number}) for number in range(3)]
            >>> [len(each.brokers) for each in sent]
            [1, 1, 1]

        Raises:
            Usage: no key, no broker, or the folder of the chains cannot be written.
            Unreachable, Fault: the chain, which names the brokers, cannot be read.
        """
        from logstore.brokers import find_places
        from logstore.chains import Chains
        from logstore.keys import require_signer
        from logstore.publishing import Publisher
        from validator.net.running_network import state_folder

        signer = require_signer(self.signer)
        if signer.address not in self._chains:
            folder = state_folder() / "publish" / self.sources.cache.name
            self._chains[signer.address] = Chains(folder, signer.address)
        places, http = find_places(self, brokers)
        return Publisher(stream, partition, signer, self._chains[signer.address], places, http)

    def publish(
        self, stream: str, content: Any, timestamp: str | int | None = None, *, partition: int = 0
    ) -> Published:
        """One message, signed and on a broker's disk when this returns; ``timestamp``: of late data, else the present.

            >>> sent = network.publish(stream, {"temperature": 21.5})
            >>> sent.message.content
            b'{"temperature":21.5}'
            >>> late = network.publish(stream, {"temperature": 20.0}, "-1d")

        Raises:
            Refused: no broker takes it; says why.
            Usage, Unreachable, Fault: as ``publisher``, or no broker can be reached.
        """
        publisher = self._publishers.get((stream, partition))
        if publisher is None:
            publisher = self._publishers[stream, partition] = self.publisher(stream, partition=partition)
        return publisher.publish(content, timestamp)

    def _find_payer(
        self, signer: Signer | None, max_price: str | int | None, max_total: str | int | None
    ) -> Payer | None:
        """None: nothing may be paid. Raises Usage: no key, or half a budget."""
        if max_price is None and max_total is None:
            return None
        from logstore.keys import require_signer
        from logstore.money import units_of
        from logstore.paying import Payer
        from validator.net.running_network import state_folder
        from validator.protocol.errors import ConfigError

        if max_price is None or max_total is None:
            raise ConfigError("budget: name both, --max-price of a MiB and --max-total", field="max_price")
        folder = state_folder() / "receipts" / self.sources.cache.name
        price, total = units_of(max_price), units_of(max_total)
        signer = require_signer(signer)
        return Payer(signer, self.network, folder, max_price=price, max_total=total, clock=now_ms)

    def follow(
        self,
        stream: str,
        start: str | int = "now",
        *,
        partition: int = 0,
        verify: str = "signatures",
        brokers: Sequence[str] = (),
        max_price: str | int | None = None,
        max_total: str | int | None = None,
    ) -> Iterator[Message]:
        """Messages as they come, without an end: see ``following``. Raises as an answer of ``query``.

        >>> for message in network.follow(stream, "-1m"):
        ...     print(message.content)
        ...     break
        b'{"temperature":21.5}'
        """
        from logstore.following import pace

        looks = self.looks(
            stream,
            start,
            partition=partition,
            verify=verify,
            brokers=brokers,
            max_price=max_price,
            max_total=max_total,
        )
        return (row.message for rows in pace(looks) for row in rows)

    def looks(
        self,
        stream: str,
        start: str | int = "now",
        *,
        partition: int = 0,
        verify: str = "signatures",
        brokers: Sequence[str] = (),
        max_price: str | int | None = None,
        max_total: str | int | None = None,
    ) -> Iterator[list[Row]]:
        """As ``follow``, for programs that wait in ways of their own: each step asks once, and may find nothing.

        >>> len(next(network.looks(stream, "-1m")))
        1
        """
        from logstore.following import look_again

        payer = self._find_payer(self.signer, max_price, max_total)
        return look_again(
            self, stream, start, partition=partition, verify=verify, brokers=brokers, key=self.signer, payer=payer
        )

    def audit(
        self,
        stream: str,
        start: str | int = "-1h",
        end: str | int = "now",
        *,
        partition: int = 0,
        brokers: Sequence[str] = (),
        key: Key | None = None,
    ) -> AuditVerdict:
        """What the first broker answers, compared with what the second holds; ``brokers``: these two, or the chain's.

            >>> network.audit(stream, start, end, brokers=[first, second]).lacking
            0

        Raises:
            Refused: the answer is false, or leaves messages out.
            Usage: fewer than two brokers.
            Unreachable, Fault: one of them, or the chain, does not answer.
        """
        from logstore.answer_check import Verify
        from logstore.answers import make_request
        from logstore.auditing import audit_brokers
        from logstore.times import parse_time

        from_ms, to_ms = (parse_time(str(text), now_ms(), name) for text, name in ((start, "start"), (end, "end")))
        return audit_brokers(
            self, make_request(stream, partition, from_ms, to_ms), Verify.PROOF, brokers, self.signer_of(key)
        )

    # --- proofs -----------------------------------------------------------------------------------

    def prove(
        self,
        stream: str,
        time: str | int | None = None,
        *,
        start: str | int | None = None,
        end: str | int | None = None,
        partition: int | None = None,
        sequence: int | None = None,
        publisher: str | None = None,
    ) -> list[Proof]:
        """A proof of each message of a time, to the ms; or, of [start, end), one proof of all messages of a partition
        and that there are no others. What is in no bundle yet cannot be proven.

        ``partition``, ``sequence``, ``publisher`` (hex): only these messages of the time; of a span the partition is
        the one, by default 0.

            >>> (proof,) = network.prove(stream, "2023-11-14T22:13:20.300")
            >>> proof.messages[0].content
            b'{"number":3,"unit":"K"}'
            >>> path = proof.save("proofs")
            >>> (span,) = network.prove(stream, start="2023-11-14T22:13:20", end="2023-11-14T22:13:21")

        Raises:
            NotStored: no such message, or the span ends behind what is stored.
            Refused: a bundle's file is not what the contract holds.
            Usage: neither a time nor a span, or both.
            Unreachable, Fault: something could not be fetched.
        """
        from logstore.output import Output
        from logstore.proofs import Choice, parse_publisher, prove_messages, prove_span, require_one_question
        from logstore.times import parse_time

        output, now = Output(as_json=True), now_ms()
        choice = Choice(partition, sequence, parse_publisher(publisher))
        if not require_one_question(time is not None, choice, (start, end)):
            return prove_messages(self, output, stream, parse_time(str(time), now, "time"), choice)
        from_ms = 0 if start is None else parse_time(str(start), now, "start")
        until_ms = now if end is None else parse_time(str(end), now, "end")
        return [prove_span(self, output, stream, partition or 0, from_ms, until_ms)]

    def verify(
        self,
        target: str | Path | bytes | int | Proof,
        *,
        offline: bool = False,
        signatures: bool = False,
        roots: Sequence[str | bytes] = (),
    ) -> AnyVerdict:
        """A verdict on a proof (what ``prove`` gave, its file or bytes) or on a bundle (file, number, Arweave id), with
        the contract's word: what it ``proves``, and what it ``leaves_open``. What is false is raised, never returned.

        ``offline``: nobody is asked, certificates are checked against the committee that is named. ``roots``: bundle
        roots that the caller knows. ``signatures``: every message's own in a bundle too.

            >>> (proof,) = network.prove(stream, "2023-11-14T22:13:20.300")
            >>> network.verify(proof).proves
            'this message is in bundle 0, whose root the contract holds, and its publisher signed it'
            >>> network.verify(0).leaves_open
            ''

        Raises:
            Refused: it does not prove what it says; names the field and the reason.
            Usage: no such file or bundle.
            Unreachable, Fault: the contract or a gateway could not be asked.
        """
        from logstore.output import Output
        from logstore.verdicts import Verifier, parse_root

        known = [parse_root(root) for root in roots]
        store = None if offline else self
        return Verifier(self.network, store, Output(as_json=True), known, signatures).verify(target)

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

            >>> network.sql("select count(*) as messages from messages", "2023-11-14", "2023-11-15").fetchall()
            [(21,)]

        Raises:
            Refused: a bundle's file is not what the contract holds.
            Usage: a time or query that is none, or DuckDB is not installed.
            Unreachable, Fault: something could not be fetched.
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
