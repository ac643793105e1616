// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {
    BundleStep,
    EntryFields,
    EntryProof,
    EntryStep,
    IStoredMessages,
    MessageFields,
    MessageProof,
    WindowStep,
    bundleLeaf,
    entryLeaf,
    messageLeaf,
    rootAbove,
    windowLeaf
} from "./Leaves.sol";
import {
    ConsumerLine,
    INodeManager,
    IQueryManager,
    IStoreManager,
    MAX_AMOUNT,
    MAX_LINES,
    MAX_STREAM_ID,
    NodeLine,
    Report,
    StreamLine
} from "./Types.sol";
import {Owned} from "./Owned.sol";

/// Accepts one report per bundle, in order, signed by a quorum of the committee, and settles it in the same call.
///
/// The committee is kept as the code of an otherwise empty contract: reading n addresses costs one cold account access
/// instead of one cold storage slot each. Signatures are compact (EIP-2098), 64 bytes, in ascending order of the
/// signers' index; the bitmap says whose they are.
contract ReportManager is Owned, IStoredMessages {
    /// n: the largest quorum's signatures still leave room for a full report in one transaction, and a bitmap shares a
    /// slot with the block number.
    uint256 public constant MAX_COMMITTEE = 32;

    /// What one pass over the stream lines yields.
    struct Streams {
        bytes32 hash;
        bytes32[] keys;
        uint256[] amounts;
        uint256 captured;
        uint256 length;
    }

    struct Accepted {
        bytes32 bundleRoot;
        bytes32 storageId;
        bytes32 reportDigest;
        uint64 lastMs;
        uint64 blockNumber;
        uint128 signerBitmap;
    }

    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant STREAM_TYPE = keccak256("StreamLine(string id,uint256 capture,uint64 byteCount)");
    bytes32 private constant CONSUMER_TYPE =
        keccak256("ConsumerLine(address consumer,uint256 capture,uint64 byteCount)");
    bytes32 private constant NODE_TYPE = keccak256("NodeLine(address node,int256 amount)");
    bytes32 private constant REPORT_TYPE = keccak256(
        "Report(bytes32 configDigest,uint64 number,uint64 height,bytes32 blockHash,uint64 firstMs,uint64 lastMs,"
        "bytes32 previousRoot,bytes32 bundleRoot,bytes32 storageId,address uploader,bytes32 ledgerRoot,"
        "StreamLine[] streams,ConsumerLine[] consumers,NodeLine[] nodes,uint256 treasury,address[] nextCommittee,"
        "bytes32 nextConfigDigest)"
        "ConsumerLine(address consumer,uint256 capture,uint64 byteCount)" "NodeLine(address node,int256 amount)"
        "StreamLine(string id,uint256 capture,uint64 byteCount)"
    );
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    INodeManager public immutable nodeManager;
    IStoreManager public immutable storeManager;
    IQueryManager public immutable queryManager;
    uint256 private immutable _domainChainId;
    bytes32 private immutable _domainSeparator;

    address private _committeeCode;
    uint64 public nextNumber;
    uint32 public configCount;
    bytes32 public configDigest;
    /// How often a committee has been set, by the owner or by a report.
    uint64 public rotations;
    mapping(uint64 number => Accepted) private _reports;

    event ReportAccepted(
        uint64 indexed number,
        bytes32 bundleRoot,
        bytes32 storageId,
        uint256 signerBitmap,
        uint256 captured,
        uint256 treasury
    );
    event CommitteeChanged(bytes32 indexed configDigest, uint32 configCount, address[] members);

    error WrongNumber(uint64 expected);
    error WrongPreviousRoot(bytes32 expected);
    error WrongConfigDigest(bytes32 expected);
    error WrongSpan();
    error WrongCalldataLength();
    error BadBitmap();
    error WrongSignatureCount(uint256 expected);
    error BadSignature(uint256 index);
    error TooManyLines();
    error BadStreamId(uint256 line);
    error StreamsNotSorted(uint256 line);
    error ConsumersNotSorted(uint256 line);
    error NodesNotSorted(uint256 line);
    error AmountTooLarge();
    error NotConserved();
    error UnknownBlock();
    error EmptyRoot();
    error BadCommittee();
    error BadConfigDigest();
    error CommitteeAlreadySet();
    error NoCommittee();
    error NotWired();
    error NoSuchReport();

    constructor(INodeManager nodeManager_, IStoreManager storeManager_, IQueryManager queryManager_) {
        if (
            nodeManager_.reportManager() != address(this) || storeManager_.reportManager() != address(this)
                || queryManager_.reportManager() != address(this)
        ) revert NotWired();
        nodeManager = nodeManager_;
        storeManager = storeManager_;
        queryManager = queryManager_;
        _domainChainId = block.chainid;
        _domainSeparator = _computeDomainSeparator();
    }

    // --- committee -------------------------------------------------------------------------------------------------

    /// Sets the committee and config digest of the first epoch, once.
    function setCommittee(address[] calldata members, bytes32 digest) external onlyOwner {
        if (_committeeCode != address(0)) revert CommitteeAlreadySet();
        _changeCommittee(members, digest);
    }

    /// Re-opens what is stuck: everything after the last accepted report is agreed anew under the new digest.
    function raiseConfigCount(address[] calldata members, bytes32 digest) external onlyOwner {
        if (_committeeCode == address(0)) revert NoCommittee();
        if (digest == configDigest) revert BadConfigDigest();
        ++configCount;
        _changeCommittee(members, digest);
    }

    /// The members, ascending.
    function committee() public view returns (address[] memory members) {
        bytes memory packed = _loadCommittee();
        uint256 n = packed.length / 20;
        members = new address[](n);
        for (uint256 i = 0; i < n; ++i) {
            members[i] = _memberAt(packed, i);
        }
    }

    function isMember(address node) external view returns (bool) {
        bytes memory packed = _loadCommittee();
        uint256 n = packed.length / 20;
        for (uint256 i = 0; i < n; ++i) {
            if (_memberAt(packed, i) == node) return true;
        }
        return false;
    }

    /// Signatures a report needs: n - f, where f = (n - 1) / 3 rounded down.
    function quorum() external view returns (uint256) {
        return _quorum(_loadCommittee().length / 20);
    }

    // --- reports ---------------------------------------------------------------------------------------------------

    /// Checks, accepts and settles one report. Anybody may send it: only the signatures count.
    function submitReport(Report calldata report, uint256 signerBitmap, bytes calldata signatures) external {
        uint64 number = nextNumber;
        if (report.number != number) revert WrongNumber(number);
        if (number == 0) {
            if (report.previousRoot != 0) revert WrongPreviousRoot(0);
        } else {
            Accepted storage previous = _reports[number - 1];
            if (report.previousRoot != previous.bundleRoot) revert WrongPreviousRoot(previous.bundleRoot);
            if (report.firstMs <= previous.lastMs) revert WrongSpan();
        }
        if (report.lastMs < report.firstMs) revert WrongSpan();
        if (report.configDigest != configDigest) revert WrongConfigDigest(configDigest);
        if (report.bundleRoot == 0) revert EmptyRoot();

        (bytes32 digest, Streams memory streams) = _readContent(report);
        // Selector, three head words, the report's 17, five length words, then the lists.
        uint256 length = 4 + 32 * (3 + 17 + 5) + streams.length + 96 * report.consumers.length
            + 64 * report.nodes.length + 32 * report.nextCommittee.length
            + ((signatures.length + 31) & ~uint256(31));
        if (msg.data.length != length) revert WrongCalldataLength();
        _checkSignatures(digest, signerBitmap, signatures);
        _checkBlock(report.height, report.blockHash);

        _reports[number] = Accepted(
            report.bundleRoot, report.storageId, digest, report.lastMs, uint64(block.number), uint128(signerBitmap)
        );
        nextNumber = number + 1;
        if (report.nextCommittee.length > 0) {
            _changeCommittee(report.nextCommittee, report.nextConfigDigest);
        } else if (report.nextConfigDigest != 0) {
            revert BadConfigDigest();
        }

        uint256 captured;
        if (streams.keys.length > 0) captured += storeManager.capture(streams.keys, streams.amounts);
        if (report.consumers.length > 0) captured += queryManager.capture(report.consumers);
        uint256 treasury;
        if (report.nodes.length > 0 || captured > 0) treasury = nodeManager.settle(report.nodes, captured);
        emit ReportAccepted(number, report.bundleRoot, report.storageId, signerBitmap, captured, treasury);
    }

    /// What members sign for this report: EIP-712 in the domain (LogStoreReport, 1, chain id, this contract). Reverts
    /// where submitReport would for sizes, order or conservation.
    function reportDigest(Report calldata report) external view returns (bytes32 digest) {
        (digest,) = _readContent(report);
    }

    function domainSeparator() public view returns (bytes32) {
        return block.chainid == _domainChainId ? _domainSeparator : _computeDomainSeparator();
    }

    function reportOf(uint64 number)
        public
        view
        returns (
            bytes32 bundleRoot,
            bytes32 storageId,
            bytes32 digest,
            uint64 lastMs,
            uint64 blockNumber,
            uint256 signerBitmap
        )
    {
        if (number >= nextNumber) revert NoSuchReport();
        Accepted memory a = _reports[number];
        return (a.bundleRoot, a.storageId, a.reportDigest, a.lastMs, a.blockNumber, a.signerBitmap);
    }

    /// The newest report; `exists` is false, and all else zero, before the first.
    function lastReport()
        external
        view
        returns (
            bool exists,
            uint64 number,
            bytes32 bundleRoot,
            bytes32 storageId,
            bytes32 digest,
            uint64 lastMs,
            uint64 blockNumber,
            uint256 signerBitmap
        )
    {
        if (nextNumber == 0) return (false, 0, 0, 0, 0, 0, 0, 0);
        number = nextNumber - 1;
        Accepted memory a = _reports[number];
        return (true, number, a.bundleRoot, a.storageId, a.reportDigest, a.lastMs, a.blockNumber, a.signerBitmap);
    }

    // --- what is stored --------------------------------------------------------------------------------------------

    /// Does the bundle of report `number` hold this message? Roots and leaf hashes are computed from the fields on the
    /// way up, and each leaf holds the number of leaves below it; the bundle root commits to the number of its own.
    function verifyMessage(uint64 number, MessageFields calldata message, MessageProof calldata proof)
        external
        view
        returns (bool)
    {
        EntryStep calldata step = proof.entry;
        (bool fits, bytes32 root) = rootAbove(messageLeaf(message), step.index, step.count, step.path);
        bytes32 leaf = entryLeaf(
            message.streamId,
            message.partition,
            root,
            step.count,
            step.signedBytes,
            step.canonicalBytes,
            step.flags
        );
        return _isBelow(number, leaf, proof.window, proof.bundle) && fits;
    }

    /// Does a window (or late set) of the bundle of report `number` have this entry for a stream partition?
    function verifyEntry(uint64 number, EntryFields calldata entry, EntryProof calldata proof)
        external
        view
        returns (bool)
    {
        bytes32 leaf = entryLeaf(
            entry.streamId,
            entry.partition,
            entry.root,
            entry.count,
            entry.signedBytes,
            entry.canonicalBytes,
            entry.flags
        );
        return _isBelow(number, leaf, proof.window, proof.bundle);
    }

    /// Does the bundle of report `number` hold the window or late set of this outcome digest, which certificates name?
    /// The first leaf is the header's.
    function verifyWindow(uint64 number, bytes32 outcomeDigest, BundleStep calldata proof) public view returns (bool) {
        if (number >= nextNumber) revert NoSuchReport();
        (bool fits, bytes32 root) = rootAbove(outcomeDigest, proof.index, proof.leaves, proof.path);
        return fits && proof.index != 0 && bundleLeaf(proof.leaves, root) == _reports[number].bundleRoot;
    }

    // --- inside ----------------------------------------------------------------------------------------------------

    function _isBelow(uint64 number, bytes32 leaf, WindowStep calldata window, BundleStep calldata bundle)
        private
        view
        returns (bool)
    {
        (bool fits, bytes32 root) = rootAbove(leaf, window.index, window.entries, window.path);
        return verifyWindow(number, windowLeaf(window, root), bundle) && fits;
    }

    /// Bounds, order and conservation, and what members sign, in one pass over each list.
    function _readContent(Report calldata report) private view returns (bytes32 digest, Streams memory streams) {
        if (report.nextCommittee.length > MAX_COMMITTEE) revert BadCommittee();
        if (report.treasury > MAX_AMOUNT) revert AmountTooLarge();
        streams = _readStreams(report.streams);
        (bytes32 consumersHash, uint256 paid) = _readConsumers(report.consumers);
        (bytes32 nodesHash, int256 given) = _readNodes(report.nodes);
        if (given + int256(report.treasury) != int256(streams.captured + paid)) revert NotConserved();

        bytes memory head = abi.encode(
            REPORT_TYPE,
            report.configDigest,
            report.number,
            report.height,
            report.blockHash,
            report.firstMs,
            report.lastMs,
            report.previousRoot,
            report.bundleRoot,
            report.storageId,
            report.uploader,
            report.ledgerRoot
        );
        bytes memory tail = abi.encode(
            streams.hash,
            consumersHash,
            nodesHash,
            report.treasury,
            keccak256(abi.encodePacked(report.nextCommittee)),
            report.nextConfigDigest
        );
        digest = keccak256(abi.encodePacked(hex"1901", domainSeparator(), keccak256(bytes.concat(head, tail))));
    }

    function _readStreams(StreamLine[] calldata lines) private pure returns (Streams memory result) {
        uint256 count = lines.length;
        if (count > MAX_LINES) revert TooManyLines();
        bytes32[] memory hashes = new bytes32[](count);
        bytes32[] memory keys = new bytes32[](count);
        uint256[] memory amounts = new uint256[](count);
        uint256 captured;
        uint256 length = 160 * count;
        string calldata previous = string(msg.data[:0]);
        for (uint256 i = 0; i < count; ++i) {
            StreamLine calldata line = lines[i];
            string calldata id = line.id;
            uint256 size = bytes(id).length;
            if (size == 0 || size > MAX_STREAM_ID) revert BadStreamId(i);
            if (i > 0 && !_less(previous, id)) revert StreamsNotSorted(i);
            previous = id;
            uint256 amount = line.capture;
            if (amount > MAX_AMOUNT) revert AmountTooLarge();
            bytes32 key = keccak256(bytes(id));
            hashes[i] = _hash4(STREAM_TYPE, key, amount, line.byteCount);
            keys[i] = key;
            amounts[i] = amount;
            unchecked {
                captured += amount;
                length += (size + 31) & ~uint256(31);
            }
        }
        return Streams(_hashAll(hashes), keys, amounts, captured, length);
    }

    function _readConsumers(ConsumerLine[] calldata lines) private pure returns (bytes32, uint256 captured) {
        uint256 count = lines.length;
        if (count > MAX_LINES) revert TooManyLines();
        bytes32[] memory hashes = new bytes32[](count);
        address previous;
        for (uint256 i = 0; i < count; ++i) {
            ConsumerLine calldata line = lines[i];
            address consumer = line.consumer;
            if (i > 0 && consumer <= previous) revert ConsumersNotSorted(i);
            previous = consumer;
            uint256 amount = line.capture;
            if (amount > MAX_AMOUNT) revert AmountTooLarge();
            hashes[i] = _hash4(CONSUMER_TYPE, bytes32(uint256(uint160(consumer))), amount, line.byteCount);
            unchecked {
                captured += amount;
            }
        }
        return (_hashAll(hashes), captured);
    }

    function _readNodes(NodeLine[] calldata lines) private pure returns (bytes32, int256 given) {
        uint256 count = lines.length;
        if (count > MAX_LINES) revert TooManyLines();
        bytes32[] memory hashes = new bytes32[](count);
        address previous;
        for (uint256 i = 0; i < count; ++i) {
            NodeLine calldata line = lines[i];
            address node = line.node;
            if (i > 0 && node <= previous) revert NodesNotSorted(i);
            previous = node;
            int256 amount = line.amount;
            if (amount > int256(MAX_AMOUNT) || amount < -int256(MAX_AMOUNT)) revert AmountTooLarge();
            hashes[i] = keccak256(abi.encode(NODE_TYPE, node, amount));
            unchecked {
                given += amount;
            }
        }
        return (_hashAll(hashes), given);
    }

    function _hash4(bytes32 a, bytes32 b, uint256 c, uint256 d) private pure returns (bytes32 result) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, a)
            mstore(add(free, 32), b)
            mstore(add(free, 64), c)
            mstore(add(free, 96), d)
            result := keccak256(free, 128)
        }
    }

    function _hashAll(bytes32[] memory hashes) private pure returns (bytes32 result) {
        assembly ("memory-safe") {
            result := keccak256(add(hashes, 32), mul(mload(hashes), 32))
        }
    }

    function _checkSignatures(bytes32 digest, uint256 bitmap, bytes calldata signatures) private view {
        bytes memory packed = _loadCommittee();
        uint256 n = packed.length / 20;
        if (n == 0) revert NoCommittee();
        uint256 needed = _quorum(n);
        if (bitmap >> n != 0) revert BadBitmap();
        if (signatures.length != 64 * needed) revert WrongSignatureCount(needed);
        uint256 seen = 0;
        for (uint256 i = 0; i < n; ++i) {
            if (bitmap >> i & 1 == 0) continue;
            if (seen == needed) revert WrongSignatureCount(needed);
            bytes32 r = bytes32(signatures[64 * seen:]);
            uint256 vs = uint256(bytes32(signatures[64 * seen + 32:]));
            uint256 s = vs & (type(uint256).max >> 1);
            address signer = s > HALF_ORDER ? address(0) : ecrecover(digest, uint8(27 + (vs >> 255)), r, bytes32(s));
            if (signer == address(0) || signer != _memberAt(packed, i)) revert BadSignature(i);
            unchecked {
                ++seen;
            }
        }
        if (seen != needed) revert WrongSignatureCount(needed);
    }

    /// The report's block lies in the past; where the chain still knows its hash, it is that hash.
    function _checkBlock(uint64 height, bytes32 hash) private view {
        if (height >= block.number || hash == 0) revert UnknownBlock();
        if (block.number - height <= 256 && blockhash(height) != hash) revert UnknownBlock();
    }

    function _changeCommittee(address[] calldata members, bytes32 digest) private {
        uint256 n = members.length;
        if (n == 0 || n > MAX_COMMITTEE) revert BadCommittee();
        if (digest == 0) revert BadConfigDigest();
        // Code that copies the rest of itself: PUSH2 size, DUP1, PUSH1 10, PUSH0, CODECOPY, PUSH0, RETURN, STOP.
        bytes memory code = new bytes(11 + 20 * n + 12); // 12 to spare: members are written as whole words
        uint256 header = uint256(0x61) << 80 | (20 * n + 1) << 64 | 0x80600a5f395ff300;
        address last;
        assembly ("memory-safe") {
            mstore(add(code, 32), shl(168, header))
        }
        for (uint256 i = 0; i < n; ++i) {
            address member = members[i];
            if (member <= last) revert BadCommittee();
            last = member;
            assembly ("memory-safe") {
                mstore(add(add(code, 43), mul(i, 20)), shl(96, member))
            }
        }
        address stored;
        assembly ("memory-safe") {
            stored := create(0, add(code, 32), add(11, mul(20, n)))
        }
        if (stored == address(0)) revert BadCommittee();
        _committeeCode = stored;
        configDigest = digest;
        ++rotations;
        emit CommitteeChanged(digest, configCount, members);
    }

    /// Packed addresses, 20 bytes each; empty before the first committee.
    function _loadCommittee() private view returns (bytes memory packed) {
        address stored = _committeeCode;
        if (stored == address(0)) return packed;
        uint256 size = stored.code.length - 1;
        packed = new bytes(size);
        assembly ("memory-safe") {
            extcodecopy(stored, add(packed, 32), 1, size)
        }
    }

    function _memberAt(bytes memory packed, uint256 index) private pure returns (address member) {
        assembly ("memory-safe") {
            member := shr(96, mload(add(add(packed, 32), mul(index, 20))))
        }
    }

    function _quorum(uint256 n) private pure returns (uint256) {
        return n == 0 ? 0 : n - (n - 1) / 3;
    }

    /// Compares two texts byte by byte, a word at a time.
    function _less(string calldata left, string calldata right) private pure returns (bool) {
        uint256 a = bytes(left).length;
        uint256 b = bytes(right).length;
        uint256 shorter = a < b ? a : b;
        for (uint256 offset = 0; offset < shorter; offset += 32) {
            uint256 x;
            uint256 y;
            assembly ("memory-safe") {
                x := calldataload(add(left.offset, offset))
                y := calldataload(add(right.offset, offset))
            }
            if (shorter - offset < 32) {
                uint256 unused = 8 * (32 - (shorter - offset));
                x >>= unused;
                y >>= unused;
            }
            if (x != y) return x < y;
        }
        return a < b;
    }

    function _computeDomainSeparator() private view returns (bytes32) {
        return keccak256(
            abi.encode(DOMAIN_TYPE, keccak256("LogStoreReport"), keccak256("1"), block.chainid, address(this))
        );
    }
}
