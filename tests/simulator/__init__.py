"""Whole networks of the real agreement core under a virtual clock, with faults mixed by seed.

    python -m tests.simulator --seeds N [--first SEED] [--validators n] [--plain] [--json FILE]
    python -m tests.simulator --mutations [NAME…] --seeds N [--record]
    python -m tests.simulator --delays

One seed is one run: members with disks and clocks, a network that loses, delays, repeats and splits, up to f faulty
members (liars that see every message and choose receivers per vote and per observation, members that are gone, lose
their disk, come back from an old copy or share their key with a second machine), members that leave and return,
brokers that answer some only, permissions that end or begin between two blocks, one or two windows and their late sets.
What runs is ``validator.protocol.consensus``: state machine, votes, union, budgets, outcomes, judgements. Simulated
are the shell around it (``node``), brokers (``content``, ``scenario``), network and time (``world``) and liars
(``liars``). Signatures are tokens that nobody can guess.

``monitor`` checks the invariants after every step, or at the end where only the end can tell; it counts bytes by the
longest encoding. ``account`` is its second half: from what a member heard it says what the member may say, must have
said, persisted and scheduled, and compares at every step. A seed replays exactly.

``mutations`` are planted bugs that have names, each with a seed or a test that catches it. ``sites`` are all places of
the core where one small mistake can hide, read from its syntax tree; ``caught`` says for each what notices it,
``hunt`` runs the tests for that.
"""
