"""Brokers over HTTP: the adapter that fulfils ``ports.MessageSource``.

    stream_window    all brokers at once, two requests at a time to each, one deadline for all
    dialects         how each broker wants to be asked, learned from its answers, and when it wants to be left alone
    ranges           one broker, one stream partition: what to ask next, until there is evidence that nothing is left
    pages            a body, split into records while it arrives (lines, or length-prefixed frames)
    Pull             what came, whether it is all, and by name why not

A broker is a stranger: its URL, answers and pace are checked by ``validator.net.http``; here every count is bounded
and every way to fail has a name. One broker's fault costs its own pulls only, and what arrived before it is kept.

Decided against (docs/decisions): an event loop (0011). A pull is one blocking call per page in two threads per broker.
"""
