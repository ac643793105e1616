// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

// Leaves and trees of what the network agrees on (format 2). A leaf hash is SHA-256 of 0x00 and the leaf's bytes, all of
// fixed width and unsigned big-endian; nodes are those of RFC 9162. Every leaf names its level in 16 bytes and commits to
// the number of leaves below it, so a proof brings no number that has to be believed.

/// A message as its leaf shows it. `publisher` is the publisher's id as bytes (20 of an account, else a public key),
/// `content` as it was signed, `canonicalHash` SHA-256 of the message's canonical bytes.
struct MessageFields {
    string streamId;
    uint32 partition;
    uint64 timestampMs;
    uint32 sequenceNumber;
    bytes publisher;
    bytes content;
    bytes32 canonicalHash;
}

/// What one window holds of one stream partition. Flags: 1 full, 2 incomplete, 4 variants, 8 equivocation.
struct EntryFields {
    string streamId;
    uint32 partition;
    bytes32 root;
    uint64 count;
    uint64 signedBytes;
    uint64 canonicalBytes;
    uint8 flags;
}

/// From a message's leaf to its entry's: the message is number `index` of `count`.
struct EntryStep {
    uint64 index;
    uint64 count;
    uint64 signedBytes;
    uint64 canonicalBytes;
    uint8 flags;
    bytes32[] path;
}

/// From an entry's leaf to its window's, whose hash is the outcome digest. `kind` is 1 for a window, `number` then its
/// start in Unix ms; 2 for the late set of the bundle `number`. `restHash` is SHA-256 of the rest of the outcome.
struct WindowStep {
    uint8 kind;
    uint64 number;
    bytes32 restHash;
    uint64 index;
    uint64 entries;
    bytes32[] path;
}

/// From a window's leaf to the bundle root: number `index` of `leaves`, of which the first is the header's.
struct BundleStep {
    uint64 index;
    uint64 leaves;
    bytes32[] path;
}

struct MessageProof {
    EntryStep entry;
    WindowStep window;
    BundleStep bundle;
}

struct EntryProof {
    WindowStep window;
    BundleStep bundle;
}

/// What ReportManager answers to other contracts. All revert where report `number` was not accepted yet.
interface IStoredMessages {
    function verifyMessage(uint64 number, MessageFields calldata message, MessageProof calldata proof)
        external
        view
        returns (bool);
    function verifyEntry(uint64 number, EntryFields calldata entry, EntryProof calldata proof)
        external
        view
        returns (bool);
    function verifyWindow(uint64 number, bytes32 outcomeDigest, BundleStep calldata proof) external view returns (bool);
}

// --- leaves --------------------------------------------------------------------------------------------------------

function messageLeaf(MessageFields calldata m) pure returns (bytes32) {
    return sha256(
        abi.encodePacked(
            bytes1(0),
            bytes16("logstore2message"),
            sha256(bytes(m.streamId)),
            m.partition,
            m.timestampMs,
            m.sequenceNumber,
            sha256(m.publisher),
            sha256(m.content),
            m.canonicalHash
        )
    );
}

function entryLeaf(
    string calldata streamId,
    uint32 partition,
    bytes32 root,
    uint64 count,
    uint64 signedBytes,
    uint64 canonicalBytes,
    uint8 flags
) pure returns (bytes32) {
    return sha256(
        abi.encodePacked(
            bytes1(0),
            bytes16("logstore2entry"),
            sha256(bytes(streamId)),
            partition,
            root,
            count,
            signedBytes,
            canonicalBytes,
            flags
        )
    );
}

function windowLeaf(WindowStep calldata step, bytes32 root) pure returns (bytes32) {
    return sha256(
        abi.encodePacked(
            bytes1(0), bytes16("logstore2window"), step.kind, step.number, root, step.entries, step.restHash
        )
    );
}

function bundleLeaf(uint64 leaves, bytes32 root) pure returns (bytes32) {
    return sha256(abi.encodePacked(bytes1(0), bytes16("logstore2bundle"), leaves, root));
}

// --- trees ---------------------------------------------------------------------------------------------------------

/// The root that a leaf hash, its place and its path lead to; `fits` is false where these do not belong together.
/// RFC 9162 section 2.1.3.2: the last node of a level without a neighbour moves up unchanged.
function rootAbove(bytes32 leafHash, uint64 index, uint64 size, bytes32[] calldata path)
    view
    returns (bool fits, bytes32 root)
{
    if (index >= size) return (false, 0);
    root = leafHash;
    uint256 used = 0;
    uint256 place = index;
    unchecked {
        uint256 last = size - 1;
        while (last != 0) {
            bool isRight = place & 1 == 1;
            if (isRight || place < last) {
                if (used == path.length) return (false, 0);
                root = isRight ? nodeHash(path[used], root) : nodeHash(root, path[used]);
                ++used;
            }
            place >>= 1;
            last >>= 1;
        }
    }
    fits = used == path.length;
}

/// SHA-256 of 0x01, left and right, without growing memory.
function nodeHash(bytes32 left, bytes32 right) view returns (bytes32 result) {
    assembly ("memory-safe") {
        let free := mload(0x40)
        mstore8(free, 1)
        mstore(add(free, 1), left)
        mstore(add(free, 33), right)
        if iszero(staticcall(gas(), 2, free, 65, 0, 32)) { revert(0, 0) }
        result := mload(0)
    }
}
