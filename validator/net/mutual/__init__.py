"""What brokers ask each other, and what anybody may ask a broker about what it holds, over signed requests.

    wire     bodies of every endpoint: canonical CBOR, message pages as zstd CBOR sequences
    client   ``Line``: one question to one broker; over HTTP to checked addresses
    audit    the consumer's question: what has the first broker left out that a second one holds?

Questions go from the coarse to the fine, and every answer is the broker's signed word: sums over spans of time, sums of
a slice's partitions, one Negentropy session over partitions that differ, bodies by leaf. Nothing keeps a state between
two requests. The other side is validator.broker.answers; what is done with answers, validator.broker.repair.
"""
