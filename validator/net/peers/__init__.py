"""The committee over HTTP: signed requests, signed answers, canonical bodies.

    signing   what is signed: EIP-712 domain LogStorePeers, and the headers that carry it
    wire      bodies of every endpoint: canonical CBOR, message pages as zstd CBOR sequences
    client    the port ``Peers`` over connections to checked addresses (validator.net.http.client)

The other side is validator.server.peers. One endpoint per question, POST only, all of them safe to repeat: what peers
tell each other carries its own signatures, so a request's signature only says whose limits it counts against, and an
answer's signature whose word it is. Signatures cover the bytes as they are sent; there is no HTTP content encoding, so
a TLS terminator in front changes nothing.

Decided against (docs/decisions): a stream per peer (0013), and mutual TLS (0014).

Clocks may be wrong. A request carries the sender's time as protection against replays beyond the memory of
(boot id, counter); where it is off, the answer says the server's time, the client signs again with it, and nobody is
shut out. Gossip, certificates and handshakes are taken whatever the time: they prove themselves.
"""
