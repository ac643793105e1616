"""Agreement without input and output: values in, values out; no clock, socket, database or randomness.

    quorum       how many of n are enough for what
    window       union, variants, budgets, entries of a set
    proposal     outcomes: built, judged valid, judged acceptable
    votes        the statements an instance holds, bounded; what a peer lacks
    events       what the machine is told and what it asks to be done
    state        its state, saved and restored
    round        the machine: Tendermint with an observation before it (arXiv 1807.04938)
    certificate  polkas and certificates
    evidence     two statements where one is allowed
    reconcile    Negentropy V1, one set against another

A shell loads state and statements, calls ``round.advance`` with an event, the time and a signer, saves the new state,
the statements said and the quorums in one transaction on condition of the state's version, then performs the effects
in order. Events that found an older state are answered anew from the newer one: nothing was said in between.

Decided against (docs/decisions): votes that carry data (0001), aggregated signatures (0002), a global sequence of
windows (0003), quorums sent on request only (0004).
"""
