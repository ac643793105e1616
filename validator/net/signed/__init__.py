"""Requests among nodes that know each other by their keys: validators (net.peers), brokers (net.mutual).

    signing    what is signed, in whose domain, and the headers that carry it
    faults     refusals, by name
    pages      messages in bulk
    client     asks: every request signed, every answer checked and kept with its question
    listener   answers: checks in order of cost, per-sender limits, signed answers

POST only, everything safe to repeat. A request's signature says whose limits it counts against, an answer's signature
whose word it is. Signatures cover the bytes as they are sent; there is no HTTP content encoding, so a TLS terminator in
front changes nothing. What is said on one channel can never be shown on another: its purpose is in the domain.
"""
