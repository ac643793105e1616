"""Where a secp256k1 key may lie, and who signs with it: adapters of the port ``Signer`` (protocol.codec.secp256k1).

    source.py    what a key's text says, recognised by its content: hex, a keystore, or the address of a remote signer
    keystore.py  a key under a password (web3 secret storage, version 3)
    remote.py    ``RemoteSigner``: a server that holds the key and speaks Web3Signer's HTTP

The text is read once; from then on only a ``Signer`` goes around, whose repr shows the address and nothing else.

Decided against (docs/decisions): ``eth_signTypedData`` and ``eth_signTransaction`` of remote signers (0028).
"""
