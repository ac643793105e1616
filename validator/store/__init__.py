"""The database and the segments: everything a validator must not forget.

What it owns: tables (schema.py) on SQLite or PostgreSQL, the files of sets (segments.py; what they hold:
segment_format.py), files of bundles made of them (bundle_writer.py, in a child process), and the read side of the
operator's screen (view). ``SqlStore`` fulfils the port ``Store``, one class per room; every method is one transaction
of milliseconds, never open across a network call or a sleep.

Persist, then speak: ``InstanceRows.save_instance`` writes own votes and the state they follow from in one
transaction, on condition of the state's version and under a unique key, so neither a second worker nor a crash can
make the validator say two things. Writers are serialised in one place on both engines: SQLite by BEGIN IMMEDIATE,
PostgreSQL by locking the instance's row first.

Decided against (docs/decisions): an ORM (0007), one JSON column for everything (0008), locks in Redis (0009), and an
index file beside each set (0010).
"""
