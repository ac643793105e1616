"""The broker: a role that caches every registered stream and answers queries between two timestamps.

    bus | POST ──> ingest ──> store <── repair (other brokers), lake (certified bundles)
                                 │
    consumers, validators <── serve <── query (one order over certified windows, late sets and the tail)

    ingest     bytes become records: cheap checks first, signatures in batches on threads, permission remembered
    store      SQLite, one file per UTC day and shard; behind ``ports.message_store``; ``postgres`` on several machines
    query      pages by key, cursors that any broker understands, a signed trailer behind every answer
    certified  ReportManager followed, bundles verified, holes filled (``comparing``), every set proven (``history``)
    lake       entries read out of bundles by range: holes, and whatever lies behind retention
    serve      HTTP: ``/v1``, and what the clients of today know (``dialects``)

It owns its folder of day files, or a PostgreSQL of its own, and nothing else: what it holds can be had again from other
brokers and from bundles, so a lost disk costs time and no message that anybody else has. It never shares a database
with a validator.

Decided against: one SQLite database for all days (retention would be deletes and a vacuum; a file is unlinked); LMDB
(its map has a size fixed in advance, and a reader stops the reuse of pages); a transaction held open while an answer is
written (one slow reader would keep the log from being folded back); judging variants (two records of one identity, or
of one message id, are both kept: a forged copy neither replaces nor hides the true one).
"""
