"""The database and the segments: everything a validator must not forget.

What it owns: tables (schema.py) on SQLite or PostgreSQL, the files of sets (segments.py), and the read side of the
operator's screen (view.py). Each repository module holds functions that take an open connection; the caller opens
the transaction, so what belongs together is written together:

    with database.write() as connection:
        row = instances.load_instance(connection, config_digest, instance, lock=True)
        …decide (core)…
        statements.journal_vote(connection, vote)
        instances.save_instance(connection, changed, expected_version=row.version)
    # only now may the vote be heard

Why so: a vote and the state it follows from are one transaction, conditional on the state's version and under a
unique key, so neither a second worker nor a crash can make the validator say two things. Writers are serialised in
one place on both engines: SQLite by BEGIN IMMEDIATE, PostgreSQL by locking the instance's row first. No transaction
stays open across a network call or a sleep.

Decided against: an ORM (identity maps hide when something is written), one JSON column for everything (a unique
constraint must see its columns), and locks in Redis (lost with Redis).
"""
