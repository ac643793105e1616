"""Records as pages, and what is asked of pages told as of records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from validator.protocol.columns import Page, page_of
from validator.protocol.consensus.window import Budget, Spending
from validator.protocol.joining import Survey
from validator.protocol.model import Equivocation, Record, StreamPart


def pages_of(records: Sequence[Record], rows: int = 2) -> Iterator[Page]:
    """Records in canonical order as pages of so many rows."""
    for _, members in groupby(records, key=lambda r: r.message.stream_part):
        some = list(members)
        for start in range(0, len(some), rows):
            yield page_of(some[start : start + rows])


def records_behind(pages: Iterator[Page] | Sequence[Page], records: Sequence[Record]) -> list[Record]:
    """The records of pages, found by leaf."""
    by_leaf = {record.leaf: record for record in records}
    return [by_leaf[leaf] for page in pages for leaf in page.list_leaves()]


def cut_to_budget(records: Sequence[Record], budget: Budget) -> tuple[list[Record], bool]:
    """What fits, and whether something was cut."""
    spending = Spending(budget)
    kept = [page for page in map(spending.take, pages_of(records)) if page is not None]
    return records_behind(kept, records), spending.full


def may_be_full(records: Sequence[Record], budget: Budget) -> bool:
    spending = Spending(budget)
    for page in pages_of(records):
        spending.take(page)
    return spending.may_be_full()


def find_equivocations(records: Sequence[Record], limit: int) -> tuple[tuple[Equivocation, ...], int, set[StreamPart]]:
    """Evidence, how many there are, and their partitions."""
    survey = Survey()
    for page in pages_of(sorted(records, key=lambda r: r.order)):
        survey.add(page)
    survey.close()
    return survey.evidence(limit), len(survey.equivocations), survey.equivocated
