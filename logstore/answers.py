"""A query's answer: messages as they stream, checked, from one broker or from several in turn.

    with network.query("0x…/sensors", start="-1h") as answer:
        for message in answer:
            ...
        print(answer.proof.proves)

What a broker gives and must not give raises ``Refused`` with its URL, the field and the reason: nobody else is asked,
since the caller will want to know. A broker that does not answer, or whose answer breaks off, is only left: the answer
goes on at the next, behind the last message that was handed out.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from logstore.answer_check import AnswerCheck, Row, Verify, find_certified
from logstore.brokers import Brokers, Place
from validator.protocol.codec.answer import MAX_ANSWER_BYTES, Request
from validator.protocol.codec.completeness import MAX_CLIMB_BYTES, MAX_MARKS_BYTES, MAX_SET_PROOF_BYTES
from validator.protocol.codec.frames import take_frames
from validator.protocol.codec.limits import MAX_CANONICAL_BYTES
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import ConfigError, RemoteFault, TransientError, ValidatorError
from validator.protocol.model import Message
from validator.protocol.parameters import Network

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow as pa

    from logstore.answer_proof import AnswerProof
    from logstore.paying import Payer
    from logstore.store import LogStore
    from validator.net.chain.bundles import AcceptedBundles
    from validator.protocol.codec.secp256k1 import Signer

MAX_OBJECT_BYTES = max(MAX_CANONICAL_BYTES, MAX_ANSWER_BYTES, MAX_SET_PROOF_BYTES, MAX_CLIMB_BYTES, MAX_MARKS_BYTES)
FIRST_BATCH, BATCH = 256, 4_096
"""Messages whose signatures are checked at once: few first, since somebody waits, then more, since that is cheaper."""
WAIT_S = 0.25
"""So long what has come waits for more."""
ROUNDS = 4
"""How often all brokers are asked without a new message before it is given up."""
PAUSE_S = 0.5
T = TypeVar("T")
Read = Callable[[AnswerCheck, Iterable[bytes]], Iterator[T]]
"""Makes of one broker's answer what is handed out, and has the check see all of it."""


class QueryAnswer:
    """Iterate once, over ``Message``s, or over ``batches`` of rows. One thread."""

    def __init__(
        self,
        request: Request,
        verify: Verify,
        network: Network,
        brokers: Brokers,
        reports: Callable[[], AcceptedBundles],
        *,
        pause: Callable[[float], None] = time.sleep,
        close: Callable[[], None] = lambda: None,
        last: int | None = None,
        payer: Payer | None = None,
    ) -> None:
        """``reports``: what the contract holds; asked with ``Verify.PROOF`` only. ``last``: no more than so many are
        handed out, the newest, once all are checked. ``payer``: pays for each part that was read.
        """
        self.request = request
        self.verify = verify
        self._network = network
        self._brokers = brokers
        self._find_reports = reports
        self._pause = pause
        self._close = close
        self._payer = payer
        self._arrived = 0
        """Bytes of the part that is read."""
        self._newest: deque[Row] | None = None if last is None else deque(maxlen=last)
        self._check: AnswerCheck | None = None
        self._accepted: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give connections back."""
        self._close()

    def __iter__(self) -> Iterator[Message]:
        """Messages in the network's order. Raises as ``batches``."""
        for rows in self.batches():
            for row in rows:
                yield row.record.message

    def batches(self) -> Iterator[list[Row]]:
        """Messages with the sets that they are in, as they come. Raises as ``_batches``."""
        if self._newest is None:
            yield from self._batches()
            return
        for rows in self._batches():
            self._newest.extend(rows)
        yield list(self._newest)

    def _batches(self) -> Iterator[list[Row]]:
        return self._read_all(_read_rows)

    def _read_all(self, read: Read[T]) -> Iterator[T]:
        """What ``read`` makes of one broker's answer after another.

        Raises:
            Refused: a broker gave what it must not; names it, the field and the reason.
            TransientError: no broker answers, or none goes on.
            RemoteFault: all refuse; says why.
        """
        if self._check is not None:
            raise ConfigError("an answer is read once", field="answer")
        turns = _Turns(self._brokers.places, self._pause)
        while self._check is None:
            place = turns.place
            try:
                self._check = self._begin(place)
            except (TransientError, RemoteFault) as error:
                turns.failed(error)
        check = self._check
        while not check.is_done:
            before, place = check.given, turns.place
            if self._payer is not None:
                self._payer.require_left()
            try:
                try:
                    yield from self._ask(check, place, read)
                finally:
                    self._pay(check, place)
                turns.worked()
            except (TransientError, RemoteFault) as error:
                if check.given > before:
                    turns.worked()
                turns.failed(error)

    @property
    def proof(self) -> AnswerProof:
        """What is proven, and what rests on whose word. Raises ConfigError before the answer was read to its end."""
        from logstore.answer_proof import summarise

        if self._check is None or not self._check.is_done:
            raise ConfigError("an answer is proven when it was read to its end", field="answer")
        return summarise(self._check, self._accepted)

    def arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """Messages as Arrow record batches, as they come: see ``answer_export`` for the columns. Raises as ``batches``.

        Where nothing is verified no message becomes an object, if numpy is there.
        """
        from logstore.answer_export import make_batch, read_columns

        if self.verify is Verify.NONE and self._newest is None and find_spec("numpy") is not None:
            yield from self._read_all(read_columns)
        else:
            yield from (make_batch(rows) for rows in self.batches())

    def to_arrow(self) -> pa.Table:
        """All messages, once all are checked. Raises as ``batches``."""
        import pyarrow as pa

        from logstore.answer_export import make_schema

        return pa.Table.from_batches(self.arrow_batches(), schema=make_schema())

    def to_pandas(self) -> pandas.DataFrame:
        """All messages, once all are checked. Raises as ``batches``; ConfigError: pandas is not installed."""
        _require("pandas")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """All messages, once all are checked. Raises as ``batches``; ConfigError: polars is not installed."""
        _require("polars")
        import polars

        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    def to_parquet(self, path: str | Path) -> int:
        """Write a Parquet file, which is there when all of it is checked, or not at all; how many messages.

        Memory does not grow with the answer. Raises as ``batches``; OSError: it cannot be written.
        """
        from logstore.answer_export import write_parquet
        from logstore.files import written_whole

        with written_whole(Path(path)) as file:
            return write_parquet(self.arrow_batches(), file)

    def _begin(self, place: Place) -> AnswerCheck:
        """With the certified history that this broker and the contract both know."""
        as_of = self._brokers.head(place).newest
        certified = None
        if self.verify is Verify.PROOF:
            reports = self._find_reports()
            self._accepted = reports.count
            as_of = None if as_of is None or not reports.count else min(as_of, reports.count - 1)
            if as_of is not None:
                certified = find_certified(reports, self._network, self.request, as_of)
        context = SigningContext(self._network.chain_id, self._network.contracts.report_manager)
        return AnswerCheck(self.request, self.verify, context, as_of, certified)

    def _pay(self, check: AnswerCheck, place: Place) -> None:
        """For signed bytes of the part, by its trailer or as they were counted; never for more than arrived."""
        arrived, self._arrived = self._arrived, 0
        if self._payer is not None and arrived and check.parts:
            part = check.parts[-1]
            signed = part.signed_bytes if part.trailer is None else part.trailer.signed_bytes
            self._brokers.pay(self._payer, place, min(signed, arrived))

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._arrived += len(chunk)
            yield chunk

    def _ask(self, check: AnswerCheck, place: Place, read: Read[T]) -> Iterator[T]:
        """One answer. Raises TransientError where it ends without a trailer."""
        address = self._brokers.head(place).address
        check.begin(address, str(place.url))
        proof = "full" if check.certified is not None else "none"
        with self._brokers.ask(place, self.request, check.as_of, check.cursor, proof) as answer:
            yield from read(check, self._counted(answer.chunks))
        if check.parts[-1].trailer is None:
            raise TransientError(f"{place.url}: the answer is cut: it has no trailer", url=str(place.url))


def _read_rows(check: AnswerCheck, chunks: Iterable[bytes]) -> Iterator[list[Row]]:
    for objects in split_objects(chunks):
        rows = check.read(objects)
        if rows:
            yield rows


def _require(library: str) -> None:
    if find_spec(library) is None:
        raise ConfigError(f"{library} is not installed: pip install {library}", field=library)


class _Turns:
    """Whose turn it is, and when it is enough."""

    def __init__(self, places: list[Place], pause: Callable[[float], None]) -> None:
        self._places = list(places)
        self._pause = pause
        self._failures = 0

    @property
    def place(self) -> Place:
        return self._places[0]

    def worked(self) -> None:
        self._failures = 0

    def failed(self, error: ValidatorError) -> None:
        """The next's turn. Raises the error where nobody is left, or nobody gives anything any more."""
        place = self._places.pop(0)
        if isinstance(error, TransientError):
            self._places.append(place)
        self._failures += 1
        if not self._places or self._failures >= ROUNDS * len(self._places):
            raise error
        if self._failures >= len(self._places):
            self._pause(PAUSE_S * self._failures / len(self._places))


def split_objects(chunks: Iterable[bytes], clock: Callable[[], float] = time.monotonic) -> Iterator[list[bytes]]:
    """Frames of u32 length and an object, some at a time. What ends within a frame just ends.

    Raises:
        MalformedInput: a frame that is longer than any object.
        TransientError: as ``chunks`` does, behind all that came whole before it broke off.
    """
    buffer = bytearray()
    whole: list[bytes] = []
    most, began_s = FIRST_BATCH, clock()
    try:
        for chunk in chunks:
            buffer += chunk
            for item in take_frames(buffer, MAX_OBJECT_BYTES):
                whole.append(item)
                if len(whole) == most:
                    yield whole
                    whole, most, began_s = [], min(2 * most, BATCH), clock()
            if whole and clock() > began_s + WAIT_S:
                yield whole
                whole, began_s = [], clock()
    except TransientError:
        if whole:
            yield whole
        raise
    if whole:
        yield whole


def parse_verify_level(text: str) -> Verify:
    """Raises ConfigError."""
    try:
        return Verify(text)
    except ValueError:
        raise ConfigError(f"--verify: {text!r} is none of {', '.join(Verify)}", field="verify") from None


def make_request(stream: str, partition: int, from_ms: int, until_ms: int) -> Request:
    """Raises ConfigError: the span is empty, or the partition none."""
    if from_ms >= until_ms:
        raise ConfigError("start: not before end", field="start")
    if not 0 <= partition < 100:
        raise ConfigError(f"partition: {partition} is none of 0 to 99", field="partition")
    return Request(stream, partition, from_ms, until_ms)


def find_brokers(store: LogStore, named: Iterable[str], key: Signer | None) -> tuple[Brokers, Callable[[], None]]:
    """Brokers that are named, or else those that the chain names; and what gives their connections back."""
    from logstore.brokers import find_places

    places, http = find_places(store, named)
    context = SigningContext(store.network.chain_id, store.network.contracts.report_manager)
    return Brokers(places, http, context, key), http.close


def open_answer(
    store: LogStore,
    request: Request,
    verify: Verify,
    found: tuple[Brokers, Callable[[], None]],
    last: int | None = None,
    payer: Payer | None = None,
) -> QueryAnswer:
    """Of brokers that were found, whose connections are given back with the answer's. ``last``: the newest so many."""
    brokers, close = found
    if last is not None:
        first_ms = brokers.find_last(request.stream_id, request.partition, last)
        start = request.until_ms - 1 if first_ms is None else min(first_ms, request.until_ms - 1)
        request = replace(request, from_ms=start)
    return QueryAnswer(
        request, verify, store.network, brokers, lambda: store.reports, close=close, last=last, payer=payer
    )
