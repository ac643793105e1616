"""Validator of the Log Store Network.

A validator looks at each time window of the network's streams, agrees with the other validators on
exactly which messages it holds, writes them to Arweave, and settles who pays and who earns.

Glossary (one meaning each; the code uses these words and no others):

window          half-open span of time [start_ms, end_ms); the unit that is agreed on
instance        one single-decree agreement: a window by its start, or a late set by its bundle's number
epoch           run of windows with one committee and one parameter set
committee       the validators of an epoch, sorted by address; n members, at most f of them faulty
config digest   SHA-256 that names network, contracts, parameters, epoch and committee; in all that is signed
cut-off         the moment a validator freezes what it observed of a window
observation     what one validator saw: a root over its partition digests, broker shares, prices
set             the messages behind a root; named by that root, fetched by reconciliation
entry           one stream partition of a window: root, count, bytes, flags
outcome         what a window holds: entries, medians, the observations they follow from
proposal        an outcome put forward by the leader of a round
vote            prevote or precommit; for an outcome digest or for nil
proof           a quorum of prevotes of one round for one outcome
certificate     a quorum of precommits of one round for one outcome
quorum          n - f; two quorums share an honest member
identity        (stream, partition, timestamp, signed digest): what makes two records one message
variant         records of one identity that differ in fields the signature does not cover
equivocation    two identities under one message id
evidence        two different signed statements where only one is allowed
late set        messages that missed their window, decided once per bundle
bundle          consecutive windows and one late set: one Parquet file, one Arweave transaction
manifest        the canonical description of a bundle inside its file
report          who pays and who earns for one bundle; pure function of agreed data and chain state
ledger          what reports owe each other: captures in flight, dues, cumulative receipts
attestation     a signature on a report
transmission    sending an attested report to the contract, in stages
receipt         a consumer's signed promise to pay for bytes it read
"""

__version__ = "0.1.0"
