"""Validator of the Log Store Network.

A validator looks at each time window of the network's streams, agrees with the other validators on
exactly which messages it holds, writes them to Arweave, and settles who pays and who earns.

Glossary (one meaning each; the code uses these words and no others):

Time and the chain
window          half-open span of time [start_ms, end_ms); the unit that is agreed on
round           one attempt of an instance to decide, led by one member; the next begins where it fails
grace           how long after a window's end its cut-off is, so that what is under way still arrives
cut-off         the moment a validator freezes what it observed of a window
horizon         how long after a window's end messages of it are still accepted from brokers, for a late set
margin          how much further back than the horizon a late set may reach, so that what one has all can obtain
epoch           run of windows with one committee and one parameter set
B(t)            the cut point of a time: the highest block not later than t minus a lag, once a finalised one follows
config digest   SHA-256 that names network, contracts, parameters, epoch and committee; in all that is signed

Who
committee       the validators of an epoch, sorted by address; n members, at most f of them faulty
seat            a place in the committee; a validator without one follows, verifies and serves, and signs nothing
quorum          n - f members; two quorums share an honest one
leader          whose turn it is to propose in a round; the order of turns is drawn from instance and config digest

Messages
scope           which streams are stored, and how much of each, as the chain says at an instance's block
identity        (stream, partition, timestamp, signed digest): what makes two records one message
variant         records of one identity that differ in fields the signature does not cover
equivocation    two identities under one message id
entry           one stream partition of a window: root, count, bytes, flags
set             the messages behind a root; named by that root, fetched by reconciliation
segment         the file of a set: its canonical messages, compressed, with their index
late set        messages that missed their window, decided once per bundle
leaf            the bytes of a message, an entry, a window or a bundle that stand below a root, and their hash
root            the one hash above all leaves of a tree

Agreement
instance        one single-decree agreement: a window by its start, or a late set by its bundle's number
statement       what a member signs about an instance: an observation, a proposal or a vote
observation     what one validator saw: a root over its partition digests, broker shares, prices
outcome         what a window holds: entries, medians, the observations they follow from
body            the canonical bytes of an observation or outcome; statements name it by its digest
proposal        an outcome put forward by the leader of a round
vote            prevote or precommit; for an outcome digest or for nil
polka           a quorum of prevotes of one round for one outcome
certificate     a quorum of precommits of one round for one outcome
evidence        two different signed statements where only one is allowed

The permanent record
bundle          consecutive windows and one late set: one Parquet file, one Arweave transaction
seal            to write the file of a bundle whose windows and late set are agreed
manifest        the canonical description of a bundle inside its file
proof           what a consumer holds: the way from a message's leaf up to a root that members signed

Money
report          who pays and who earns for one bundle; pure function of agreed data and chain state
ledger          what reports owe each other: captures in flight, dues, cumulative receipts
attestation     a signature on a report
transmission    sending an attested report to the contract, in stages
receipt         a consumer's signed promise to pay for bytes it read
"""

__version__ = "0.1.0"
