"""One broker on several machines: what its processes share lies in one PostgreSQL, chosen by ``…_DATABASE_URL``.

    ingest (bridge) ──┐                                  ┌── serve ──> consumers
    ingest (bridge) ──┼──> messages, marks, sums, money <┤
         one of them leads: sums, repair, heartbeats     └── serve ──> validators, other brokers

What a broker keeps, and where that is then:

    messages            shared: a table partitioned by UTC day (``messages``); retention drops a partition
    marks, sums         shared: whoever stores marks the slices in the same transaction; who leads sums them (``sums``)
    accounts            shared: charged before the next page goes out: nobody reads twice on one credit (``accounts``)
    evidence            shared: who leads adds to it, the others look for more (``shelf``)
    lead                an advisory lock: sums, repair with other brokers, heartbeats, dropping old days and comparing
                        with bundles are one process's, and pass to another when its session ends (``lead``)
    repair's positions  memory of who leads: another begins by comparing sums, which costs questions and no message
    followers           poll the store, and their place is in the cursor that the client has: nothing to share
    logins, tokens      signed by consumers and checked by each process: nothing is remembered that another must know
    certified, lake     per machine: an index of bundles and proven chunks, refilled from chain and gateways
    rates, registry     per process; a cursor, an answer and its proofs are the same wherever they are made

Every process refuses a database of another broker or network, and brings the schema up to date (``schema``). While the
server is away nothing is acknowledged: POST and queries are told to come again (/readyz names the database), ingest
holds what the bridge has brought and the bridge what its buffer holds; processes come back by themselves.

There is no pooler of transactions between a process and the server: the lead is a session's. Two rows that share a
place (timestamp, sequence number) are sorted when they are read: a publisher who puts a million messages there makes
pages of that partition dearer here than in day files, whose index has the whole key.

Decided against: a table per day addressed by name (the planner would not see that days are in order); logical
replication between files of several machines (two writers of one account); a lease with an end in a row (clocks of two
machines, where a session's end is the server's own word).
"""
