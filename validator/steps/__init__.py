"""The pipeline, one step per module, from collecting a window to the final report: ``pipeline`` says in which order.

A step reads top to bottom: load, decide (core), save, act. Every step is safe to run twice and to stop anywhere: what
it did is in the database, what it owes is a row in ``due`` with a wake time. Steps see the world through
``validator.ports`` only; ``Context`` carries the adapters. A step answers with a StepResult that Flower shows.

Steps, all on one floor:
    dispatch     beat's task: opens windows, and queues every row whose wake time has passed
    collect      window ended: pull, check, deduplicate; the own observation follows
    late         bundle's windows held: observe what came too late for them
    advance      one instance: load, apply, save, speak
    obtain       fetch a set or body that a statement names
    look_at_wallet   a bundle's windows are held: what will it cost, can we pay
    seal, upload, verify, attest, submit: the bundle's way to Arweave and the report's way to Polygon
    catchup, mend, retention: take what was decided without us, obtain again what was damaged, delete what has served
    peer_service what the peers listener calls;  chain_watch: what the head watcher does

Steps never import each other. What they share lies below, in small libraries (import-linter knows the layers):
    pulling, proposals, uploads, apply_decision      a pull; building and judging; announced uploads; after a decision
    late_candidates, peer_sets, bundle_files, drafts, attestations
    agreed, permissions, records, statements, eligibility, pruned, window_buffer
    context      what every step is given: the adapters, and the parts that keep something in memory
    cut_points, asking, claims, noticed, identity    those parts, each with its own lock
    admission, reconcile, spool, tallies             know nothing of a validator

Decided against (docs/decisions): one long task per window (0005), and events between tasks (0006).
"""
