"""Brokers over HTTP: the adapter that fulfils ``ports.MessageSource``.

    fetch_window     all brokers at once, two requests at a time to each, one deadline for all
    pull             one broker, one stream partition: page after page, each further on in time than the last
    body             split into records while it arrives (lines, or length-prefixed frames), never parsed further
    Pull             what came, whether it is all, and by name why not

A broker is a stranger: its URL, answers and pace are checked by ``validator.fetching``; here every count is bounded
and every way to fail has a name. One broker's fault costs its own pulls only, and what arrived before it is kept.

Decided against: an event loop. A pull is one blocking call per page in two threads per broker, over the one HTTP
client whose limits count for brokers and peers alike; an asynchronous twin of it would have doubled the code that
strangers talk to, and costs more processor time per request.
"""
