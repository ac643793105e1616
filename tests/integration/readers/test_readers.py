"""A bundle's file in the hands of those who know nothing of us: every reader gives every value of every column.

DuckDB, pyarrow, Polars, pandas and fastparquet, as their users call them; hyparquet in a file of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.readers.conftest import ReadBundle, Values
from validator.protocol.codec.bundle_schema import COLUMNS

TIMES = ("timestamp", "prev_timestamp")
BYTES = ("new_group_key", "content_bytes", "signature")


def parse(rows: Iterable[Values]) -> list[Values]:
    """Of a reader that gives a content as the text it is."""
    return [{**row, "content": json.loads(row["content"]) if isinstance(row["content"], str) else None} for row in rows]


def read_with_duckdb(path: Path) -> list[Values]:
    import duckdb

    with duckdb.connect() as connection:
        times = ", ".join(f"epoch_ms({name}) as {name}" for name in TIMES)
        relation = connection.sql(f"select * replace ({times}) from '{path}'")
        return parse(dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall())


def read_with_pyarrow(path: Path) -> list[Values]:
    import pyarrow.parquet as pq

    return parse(pq.read_table(path).to_pylist())


def read_with_polars(path: Path) -> list[Values]:
    import polars as pl

    frame = pl.read_parquet(path).with_columns(pl.col("content").cast(pl.String))
    return parse(frame.with_columns(pl.col(TIMES).dt.epoch("ms")).to_dicts())


def read_with_pandas(path: Path) -> list[Values]:
    import pandas as pd

    return parse(pd.read_parquet(path).to_dict("records"))


def read_with_fastparquet(path: Path) -> list[Values]:
    """It makes objects of JSON itself."""
    from fastparquet import ParquetFile

    return list(ParquetFile(path).to_pandas().to_dict("records"))


@pytest.mark.parametrize(
    "read", [read_with_duckdb, read_with_pyarrow, read_with_polars, read_with_pandas, read_with_fastparquet]
)
def test_a_reader_gives_every_value_of_every_column(bundle: ReadBundle, read: Callable[[Path], list[Values]]) -> None:
    rows = read(bundle.path)
    assert [tuple(row) for row in rows] == [COLUMNS] * len(bundle.rows)
    assert [{name: plain(name, value) for name, value in row.items()} for row in rows] == bundle.rows


def plain(name: str, value: Any) -> Any:
    """What the value means, in Python's own types."""
    if name == "content":
        return None if value != value else value
    if value is None or value != value or str(value) in ("NaT", "<NA>", "None"):
        return None
    if name in TIMES:
        return value if isinstance(value, int) else round(value.timestamp() * 1_000)
    if name in BYTES:
        return bytes(value).hex()
    if isinstance(value, str):
        return value
    return bool(value) if name == "late" else int(value)
