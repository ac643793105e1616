"""Agreement without input and output: values in, values out; no clock, socket, database or randomness.

    window     union, variants, budgets, entries of a set
    proposal   outcomes: built, judged valid, judged acceptable
    votes      the statements an instance holds, bounded; what a peer lacks
    events     what the machine is told and what it asks to be done
    state      its state, saved and restored
    round      the machine: Tendermint with an observation before it (arXiv 1807.04938), its docstring the table of
               all transitions; over inputs (what is told, and noted) and working (one step's working copy)
    driver     persist, send, ask: the one place that decides their order
    views      what a state answers: the door, a peer, the status page
    boundary   where a bundle ends
    evidence   two statements where one is allowed
    reconcile  Negentropy V1, one set against another

Below it stand how many of n are enough for what (``protocol.quorum``), and whether a quorum is genuine
(``codec.certificate``). A shell loads state and statements, and gives ``driver.drive`` events, the time and a handler
each for persist, send and ask; it saves in one transaction on condition of the state's version. Events that found an
older state are answered anew from the newer one: nothing was said in between.

Decided against (docs/decisions): votes that carry data (0001), aggregated signatures (0002), a global sequence of
windows (0003), quorums sent on request only (0004).
"""
