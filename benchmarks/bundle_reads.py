"""What readers fetch by range for two seconds of one stream, all columns or two, out of a bundle's file."""

from __future__ import annotations

import importlib.util
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

SPAN = timedelta(seconds=2)
FEW = ["timestamp", "content"]


def measure_reads(path: Path) -> dict[str, Any]:
    """Bytes fetched by each reader, for each stream; pyarrow through a file that counts, Polars through HTTP."""
    questions = _choose(path)
    readers = {"pyarrow": _read_with_pyarrow}
    skipped = []
    if importlib.util.find_spec("polars") is None:
        skipped.append("Polars")
    else:
        readers["Polars"] = _read_with_polars
    fetched = {}
    for name, read in readers.items():
        for wanted, columns in (("all columns", None), ("timestamp and content", FEW)):
            sizes = [read(path, stream_id, start, columns) for stream_id, start in questions]
            fetched[f"{name}, {wanted}"] = {"median": int(median(sizes)), "most": max(sizes)}
    return {"file_bytes": path.stat().st_size, "streams": len(questions), "fetched": fetched, "skipped": skipped}


def _choose(path: Path) -> list[tuple[str, datetime]]:
    """Each stream, and a third of its time."""
    table = pq.read_table(path, columns=["stream_id", "timestamp"])
    found = []
    for stream_id in table.column("stream_id").unique().to_pylist():
        times = table.filter(pc.equal(table.column("stream_id"), stream_id)).column("timestamp")
        found.append((stream_id, times[len(times) // 3].as_py()))
    return found


class _Counting(io.RawIOBase):
    """A file that counts what is read of it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.count = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


def _read_with_pyarrow(path: Path, stream_id: str, start: datetime, columns: list[str] | None) -> int:
    with _Counting(path) as file:
        filters = [("stream_id", "==", stream_id), ("timestamp", ">=", start), ("timestamp", "<", start + SPAN)]
        found = pq.read_table(file, columns=columns, filters=filters)
        _require_rows(found.num_rows)
        return file.count


def _read_with_polars(path: Path, stream_id: str, start: datetime, columns: list[str] | None) -> int:
    import polars

    with _served(path) as (url, count):
        column = polars.col("timestamp")
        rows = polars.scan_parquet(url).filter(
            polars.col("stream_id") == stream_id, column >= start, column < start + SPAN
        )
        _require_rows((rows if columns is None else rows.select(columns)).collect().height)
        return sum(count)


def _require_rows(count: int) -> None:
    if not count:
        raise SystemExit("a query that must find rows found none")


@contextmanager
def _served(path: Path) -> Iterator[tuple[str, list[int]]]:
    """A web server of one file that knows ranges, and the sizes of its answers."""
    data = path.read_bytes()
    sizes: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(200, len(data))

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            first, last = 0, len(data) - 1
            if wanted:
                begin, _, end = wanted.removeprefix("bytes=").partition("-")
                first = int(begin) if begin else max(0, len(data) - int(end))
                last = min(int(end), last) if begin and end else last
            body = data[first : last + 1]
            sizes.append(len(body))
            self._answer(206 if wanted else 200, len(body), f"bytes {first}-{last}/{len(data)}")
            self.wfile.write(body)

        def _answer(self, status: int, size: int, place: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(size))
            self.send_header("Accept-Ranges", "bytes")
            if status == 206:
                self.send_header("Content-Range", place)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/bundle.parquet", sizes
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
