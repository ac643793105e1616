"""Celery wiring: the app, beat's schedule, one module per queue. No logic: a task loads the node and calls a step.

Ids in, a short summary out: Flower's columns are the operations screen. State lives in the database; a message only
says "look again", so every task is safe to run twice, and what Redis or a worker loses beat finds again.

A fleet runs two releases while it is upgraded, and either may take up what the other has queued. So what a task is
given beside its key may only hasten or spare work, never decide what is done; it is added as a named argument with a
default, and sent by its name. A worker that does not know it leaves it out, says so once, and does the work
(``answers``); one that misses it takes the default. What is named by position stays as it is, a task that is renamed
keeps its old name for one release, and a row of a task that a worker does not know waits for one that does.
"""
