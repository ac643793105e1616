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
import {CONSUMER_LINE, INodeManager, IPayers, MAX_LINES, NODE_LINE, Report, STREAM_LINE} from "./Types.sol";
import {Guarded} from "./Guarded.sol";

/// Accepts one report per bundle, in order, signed by a quorum of the committee, and settles it in the same call.
///
/// The committee is kept as the code of an otherwise empty contract, with all that changes only with it: reading n
/// addresses costs one cold account access instead of one cold storage slot each, and where that contract is follows from
/// how many there have been. Signatures are compact (EIP-2098), 64 bytes, in
/// ascending order of the signers' index; the bitmap says whose they are. Of a report two slots are kept; all else is in
/// its event.
contract ReportManager is Guarded, IStoredMessages {
    /// n: the largest quorum's signatures still leave room for a full report in one transaction, and a bitmap has 32 bits.
    uint256 public constant MAX_COMMITTEE = 32;

    struct Accepted {
        bytes32 bundleRoot;
        uint256 rest; // end in ms (6 bytes), block number (5), signers' bitmap (4), first 17 bytes of what was signed
    }

    /// One slot, which every report writes. `committees` have been set; `consumersCaptured` counts what QueryManager has
    /// captured for NodeManager, modulo 2^96.
    struct Progress {
        uint40 nextNumber;
        uint48 lastMs;
        uint32 committees;
        uint40 pausedUntil;
        uint96 consumersCaptured;
    }

    /// What the newest committee's contract holds as its code. `epochs` have ended by their last report.
    struct Committee {
        bytes32 digest;
        uint32 count;
        uint32 epochs;
        bytes packed; // addresses, 20 bytes each
    }

    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant REPORT_TYPE = keccak256(
        "Report(bytes32 configDigest,uint32 configCount,uint64 number,uint64 height,bytes32 blockHash,uint64 firstMs,"
        "uint64 lastMs,bytes32 previousRoot,bytes32 bundleRoot,bytes32 storageId,address uploader,bytes32 ledgerRoot,"
        "uint256 captured,uint256 treasury,bytes lines,address[] nextCommittee,bytes32 nextConfigDigest)"
    );
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    INodeManager public immutable nodeManager;
    IPayers public immutable storeManager;
    IPayers public immutable queryManager;
    uint256 private immutable _domainChainId;
    bytes32 private immutable _domainSeparator;

    Progress private _progress;
    mapping(uint256 number => Accepted) private _reports;

    /// All of a report that its two slots do not hold, and what became of it: `captured` and `treasury` are what really
    /// came and stayed.
    event ReportAccepted(
        uint64 indexed number,
        bytes32 bundleRoot,
        bytes32 storageId,
        bytes32 reportDigest,
        bytes32 ledgerRoot,
        address uploader,
        uint256 signerBitmap,
        uint256 captured,
        uint256 treasury,
        bytes lines
    );
    event CommitteeChanged(bytes32 indexed configDigest, uint32 configCount, address[] members);

    error WrongNumber(uint64 expected);
    error WrongPreviousRoot(bytes32 expected);
    error WrongConfigDigest(bytes32 expected);
    error WrongConfigCount(uint32 expected);
    error WrongSpan();
    error WrongCalldataLength();
    error BadBitmap();
    error WrongSignatureCount(uint256 expected);
    error BadSignature(uint256 index);
    error TooManyLines();
    error BadLines();
    error NotConserved();
    error UnknownBlock();
    error EmptyRoot();
    error BadCommittee();
    error BadConfigDigest();
    error CommitteeAlreadySet();
    error NoCommittee();
    error NotWired();
    error NoSuchReport();

    constructor(
        INodeManager nodeManager_,
        IPayers storeManager_,
        IPayers queryManager_,
        address guardian_,
        uint256 raiseDelay_
    ) Guarded(guardian_, raiseDelay_) {
        if (
            nodeManager_.reportManager() != address(this) || storeManager_.reportManager() != address(this)
                || queryManager_.reportManager() != address(this)
                || address(storeManager_.nodeManager()) != address(nodeManager_)
                || address(queryManager_.nodeManager()) != address(nodeManager_)
                || nodeManager_.storeManager() != address(storeManager_)
                || nodeManager_.queryManager() != address(queryManager_)
                || address(storeManager_.stakeToken()) != address(nodeManager_.stakeToken())
                || address(queryManager_.stakeToken()) != address(nodeManager_.stakeToken())
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
        if (_progress.committees != 0) revert CommitteeAlreadySet();
        _progress.committees = 1;
        _changeCommittee(members, digest, 0, 0);
    }

    /// Announces that everything after the last accepted report is to be agreed anew, under a new digest.
    function announceConfigCount(address[] calldata members, bytes32 digest) external onlyOwner {
        Committee memory current = _loadCommittee(_progress.committees);
        // slither-disable-next-line incorrect-equality -- a digest is never 0 where there is a committee
        if (current.digest == 0) revert NoCommittee();
        // slither-disable-next-line incorrect-equality -- the very same digest is refused, no amount
        if (digest == current.digest) revert BadConfigDigest();
        _requireCommittee(members, digest);
        _announce(keccak256(abi.encode(members, digest, current.count)), digest, members);
    }

    /// Does what was announced, once its delay is over. The count is in what members sign, so nothing that was signed
    /// under an older one is ever accepted again, whatever the digest.
    function raiseConfigCount(address[] calldata members, bytes32 digest) external onlyOwner {
        Committee memory current = _loadCommittee(_progress.committees);
        _execute(keccak256(abi.encode(members, digest, current.count)));
        ++_progress.committees;
        _changeCommittee(members, digest, current.count + 1, current.epochs);
    }

    function configCount() external view returns (uint32) {
        return _loadCommittee(_progress.committees).count;
    }

    function configDigest() external view returns (bytes32) {
        return _loadCommittee(_progress.committees).digest;
    }

    function nextNumber() external view returns (uint64) {
        return _progress.nextNumber;
    }

    function consumersCaptured() external view returns (uint96) {
        return _progress.consumersCaptured;
    }

    /// How many epochs have ended by their last report: what tells when something that leaves may be paid out.
    function endedEpochs() external view returns (uint32) {
        return _loadCommittee(_progress.committees).epochs;
    }

    function withdrawalsPaused() external view returns (bool) {
        return block.timestamp < withdrawalsPausedUntil;
    }

    function submissionsPausedUntil() public view override returns (uint256) {
        return _progress.pausedUntil;
    }

    function _pauseSubmissionsUntil(uint256 time) internal override {
        _progress.pausedUntil = uint40(time);
        emit SubmissionsPausedUntil(time);
    }

    /// The members, ascending.
    function committee() public view returns (address[] memory members) {
        bytes memory packed = _loadCommittee(_progress.committees).packed;
        uint256 n = packed.length / 20;
        members = new address[](n);
        for (uint256 i = 0; i < n; ++i) {
            members[i] = _memberAt(packed, i);
        }
    }

    function isMember(address node) external view returns (bool) {
        bytes memory packed = _loadCommittee(_progress.committees).packed;
        uint256 n = packed.length / 20;
        for (uint256 i = 0; i < n; ++i) {
            if (_memberAt(packed, i) == node) return true;
        }
        return false;
    }

    /// Signatures a report needs: n - f, where f = (n - 1) / 3 rounded down.
    function quorum() external view returns (uint256) {
        bytes memory packed = _loadCommittee(_progress.committees).packed;
        return _quorum(packed.length / 20);
    }

    // --- reports ---------------------------------------------------------------------------------------------------

    /// Checks, accepts and settles one report. Anybody may send it: only the signatures count.
    function submitReport(Report calldata report, uint256 signerBitmap, bytes calldata signatures) external {
        Progress memory progress = _progress;
        if (block.timestamp < progress.pausedUntil) revert SubmissionsPaused();
        uint64 number = progress.nextNumber;
        if (report.number != number) revert WrongNumber(number);
        // slither-disable-next-line incorrect-equality -- reports count from 0, whatever the time
        bytes32 previousRoot = number == 0 ? bytes32(0) : _reports[number - 1].bundleRoot;
        if (report.previousRoot != previousRoot) revert WrongPreviousRoot(previousRoot);
        if (number != 0 && report.firstMs <= progress.lastMs) revert WrongSpan();
        if (report.lastMs < report.firstMs || report.lastMs > type(uint48).max) revert WrongSpan();
        if (report.bundleRoot == 0) revert EmptyRoot();
        // Selector, three head words, the report's 17, three length words, then the lists.
        uint256 length = 4 + 32 * (3 + 17 + 3 + report.nextCommittee.length)
            + ((report.lines.length + 31) & ~uint256(31)) + ((signatures.length + 31) & ~uint256(31));
        if (msg.data.length != length) revert WrongCalldataLength();

        bytes32 digest = reportDigest(report);
        Committee memory current = _loadCommittee(progress.committees);
        // slither-disable-next-line incorrect-equality -- a digest is never 0 where there is a committee
        if (current.digest == 0) revert NoCommittee();
        if (report.configDigest != current.digest) revert WrongConfigDigest(current.digest);
        if (report.configCount != current.count) revert WrongConfigCount(current.count);
        _checkSignatures(current.packed, digest, signerBitmap, signatures);
        _checkBlock(report.height, report.blockHash);

        Accepted storage accepted = _reports[number];
        accepted.bundleRoot = report.bundleRoot;
        accepted.rest = uint256(report.lastMs) << 208 | uint256(uint40(block.number)) << 168 | signerBitmap << 136
            | uint256(digest) >> 120;
        (progress.nextNumber, progress.lastMs) = (uint40(number + 1), uint48(report.lastMs));
        if (report.nextCommittee.length > 0) {
            ++progress.committees;
            _changeCommittee(report.nextCommittee, report.nextConfigDigest, current.count, current.epochs + 1);
        } else if (report.nextConfigDigest != 0) {
            revert BadConfigDigest();
        }
        (uint256 captured, uint256 treasury) = _settle(report, progress);
        _announceReport(report, digest, signerBitmap, captured, treasury);
    }

    /// What members sign for this report: EIP-712 in the domain (LogStoreReport, 1, chain id, this contract).
    function reportDigest(Report calldata report) public view returns (bytes32 digest) {
        bytes32 kind = REPORT_TYPE;
        bytes32 domain = domainSeparator();
        bytes32 lines = keccak256(report.lines);
        bytes32 committeeHash = keccak256(abi.encodePacked(report.nextCommittee));
        bytes32 next = report.nextConfigDigest;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, kind)
            calldatacopy(add(free, 32), report, 448) // the 14 members before the lists, a word each as EIP-712 has them
            mstore(add(free, 480), lines)
            mstore(add(free, 512), committeeHash)
            mstore(add(free, 544), next)
            let content := keccak256(free, 576)
            mstore(free, shl(240, 0x1901))
            mstore(add(free, 2), domain)
            mstore(add(free, 34), content)
            digest := keccak256(free, 66)
        }
    }

    function domainSeparator() public view returns (bytes32) {
        return block.chainid == _domainChainId ? _domainSeparator : _computeDomainSeparator();
    }

    /// What is kept of a report; `digestStart` are the first 17 bytes of what was signed. The block's ReportAccepted has
    /// the rest.
    function reportOf(uint64 number)
        public
        view
        returns (bytes32 bundleRoot, uint64 lastMs, uint64 blockNumber, uint256 signerBitmap, bytes17 digestStart)
    {
        if (number >= _progress.nextNumber) revert NoSuchReport();
        Accepted memory a = _reports[number];
        return (
            a.bundleRoot,
            uint64(a.rest >> 208),
            uint40(a.rest >> 168),
            uint32(a.rest >> 136),
            bytes17(uint136(a.rest))
        );
    }

    /// The newest report; `exists` is false, and all else zero, before the first.
    function lastReport()
        external
        view
        returns (
            bool exists,
            uint64 number,
            bytes32 bundleRoot,
            uint64 lastMs,
            uint64 blockNumber,
            uint256 signerBitmap,
            bytes17 digestStart
        )
    {
        uint64 next = _progress.nextNumber;
        // slither-disable-next-line incorrect-equality -- reports count from 0, whatever the time
        if (next == 0) return (false, 0, 0, 0, 0, 0, 0);
        number = next - 1;
        (bundleRoot, lastMs, blockNumber, signerBitmap, digestStart) = reportOf(number);
        return (true, number, bundleRoot, lastMs, blockNumber, signerBitmap, digestStart);
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
        if (number >= _progress.nextNumber) revert NoSuchReport();
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

    /// Has the lines applied: the managers check their order, and this that they add up to what was signed.
    function _settle(Report calldata report, Progress memory progress)
        private
        returns (uint256 captured, uint256 treasury)
    {
        bytes calldata lines = report.lines;
        if (lines.length < 6) revert BadLines();
        uint256 counts = uint48(bytes6(lines[:6]));
        uint256 streams = counts >> 32;
        uint256 consumers = counts >> 16 & 0xffff;
        if (streams > MAX_LINES || consumers > MAX_LINES || counts & 0xffff > MAX_LINES) revert TooManyLines();
        uint256 first = 6 + STREAM_LINE * streams;
        uint256 second = first + CONSUMER_LINE * consumers;
        if (lines.length != second + NODE_LINE * (counts & 0xffff)) revert BadLines();

        uint256 wanted;
        if (streams > 0) (wanted, captured) = storeManager.capture(lines[6:first]);
        uint256 fromConsumers;
        if (consumers > 0) {
            uint256 more;
            (more, fromConsumers) = queryManager.capture(lines[first:second]);
            wanted += more;
            unchecked {
                progress.consumersCaptured += uint96(fromConsumers);
            }
        }
        uint256 word = uint256(progress.consumersCaptured) << 160 | uint256(progress.pausedUntil) << 120
            | uint256(progress.committees) << 88 | uint256(progress.lastMs) << 40 | progress.nextNumber;
        assembly ("memory-safe") {
            sstore(_progress.slot, word)
        }
        int256 given;
        (given, treasury) = nodeManager.settle(lines[second:], captured, fromConsumers);
        captured += fromConsumers;
        if (wanted != report.captured || given + int256(report.treasury) != int256(wanted)) revert NotConserved();
    }

    function _announceReport(
        Report calldata report,
        bytes32 digest,
        uint256 signerBitmap,
        uint256 captured,
        uint256 treasury
    ) private {
        emit ReportAccepted(
            report.number,
            report.bundleRoot,
            report.storageId,
            digest,
            report.ledgerRoot,
            report.uploader,
            signerBitmap,
            captured,
            treasury,
            report.lines
        );
    }

    function _checkSignatures(bytes memory packed, bytes32 digest, uint256 bitmap, bytes calldata signatures)
        private
        view
    {
        uint256 n = packed.length / 20;
        uint256 needed = _quorum(n);
        if (bitmap >> n != 0) revert BadBitmap();
        uint256 count;
        for (uint256 rest = bitmap; rest != 0; rest &= rest - 1) ++count;
        if (count != needed || signatures.length != 64 * needed) revert WrongSignatureCount(needed);
        uint256 wrong = type(uint256).max; // the first member whose signature it is not
        assembly ("memory-safe") {
            let input := mload(0x40)
            mstore(input, digest)
            let place := signatures.offset
            let member := add(packed, 32)
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                if and(shr(i, bitmap), 1) {
                    let vs := calldataload(add(place, 32))
                    let s := shr(1, shl(1, vs))
                    mstore(add(input, 32), add(27, shr(255, vs)))
                    mstore(add(input, 64), calldataload(place))
                    mstore(add(input, 96), s)
                    mstore(0, 0) // stays where the precompiled contract finds no signer
                    pop(staticcall(gas(), 1, input, 128, 0, 32))
                    // No member is the zero address.
                    // slither-disable-next-line incorrect-equality -- this very member has to have signed
                    if or(gt(s, HALF_ORDER), iszero(eq(mload(0), shr(96, mload(member))))) {
                        wrong := i
                        break
                    }
                    place := add(place, 64)
                }
                member := add(member, 20)
            }
        }
        if (wrong != type(uint256).max) revert BadSignature(wrong);
    }

    /// The report's block lies in the past; where the chain still knows its hash, it is that hash.
    function _checkBlock(uint64 height, bytes32 hash) private view {
        if (height >= block.number || hash == 0) revert UnknownBlock();
        if (block.number - height <= 256 && blockhash(height) != hash) revert UnknownBlock();
    }

    function _requireCommittee(address[] calldata members, bytes32 digest) private pure {
        uint256 n = members.length;
        if (n == 0 || n > MAX_COMMITTEE) revert BadCommittee();
        if (digest == 0) revert BadConfigDigest();
        address last = address(0);
        for (uint256 i = 0; i < n; ++i) {
            if (members[i] <= last) revert BadCommittee();
            last = members[i];
        }
    }

    function _changeCommittee(address[] calldata members, bytes32 digest, uint32 count, uint32 epochs) private {
        _requireCommittee(members, digest);
        uint256 n = members.length;
        uint256 size = 41 + 20 * n;
        // Code that copies the rest of itself: PUSH2 size, DUP1, PUSH1 10, PUSH0, CODECOPY, PUSH0, RETURN, STOP.
        bytes memory code = new bytes(10 + size + 12); // 12 to spare: members are written as whole words
        uint256 header = uint256(0x61) << 80 | size << 64 | 0x80600a5f395ff300;
        assembly ("memory-safe") {
            mstore(add(code, 32), shl(168, header))
            mstore(add(code, 43), digest)
            mstore(add(code, 75), or(shl(224, count), shl(192, epochs)))
        }
        for (uint256 i = 0; i < n; ++i) {
            address member = members[i];
            assembly ("memory-safe") {
                mstore(add(add(code, 83), mul(i, 20)), shl(96, member))
            }
        }
        address stored;
        assembly ("memory-safe") {
            stored := create(0, add(code, 32), add(10, size))
        }
        if (stored == address(0)) revert BadCommittee();
        emit CommitteeChanged(digest, count, members);
    }

    /// The committee that was set as the `number`th; all zero before the first.
    function _loadCommittee(uint256 number) private view returns (Committee memory found) {
        // slither-disable-next-line incorrect-equality -- committees count from 1, whatever the time
        if (number == 0) return found;
        address code = _createdAs(number);
        uint256 size = code.code.length - 41;
        bytes memory packed = new bytes(size);
        bytes32 digest;
        uint256 counts;
        assembly ("memory-safe") {
            extcodecopy(code, 0, 1, 40)
            digest := mload(0)
            counts := shr(192, mload(32))
            extcodecopy(code, add(packed, 32), 41, size)
        }
        return Committee(digest, uint32(counts >> 32), uint32(counts), packed);
    }

    /// Where the contract is that this one has created as its `number`th: the hash of both in RLP.
    function _createdAs(uint256 number) private view returns (address) {
        bytes memory rlp;
        if (number < 0x80) rlp = abi.encodePacked(hex"d694", address(this), uint8(number));
        else if (number < 0x100) rlp = abi.encodePacked(hex"d794", address(this), hex"81", uint8(number));
        else if (number < 0x10000) rlp = abi.encodePacked(hex"d894", address(this), hex"82", uint16(number));
        else if (number < 0x1000000) rlp = abi.encodePacked(hex"d994", address(this), hex"83", uint24(number));
        else rlp = abi.encodePacked(hex"da94", address(this), hex"84", uint32(number));
        return address(uint160(uint256(keccak256(rlp))));
    }

    function _memberAt(bytes memory packed, uint256 index) private pure returns (address member) {
        assembly ("memory-safe") {
            member := shr(96, mload(add(add(packed, 32), mul(index, 20))))
        }
    }

    function _quorum(uint256 n) private pure returns (uint256) {
        // slither-disable-next-line incorrect-equality -- members count from 1, whatever the time
        return n == 0 ? 0 : n - (n - 1) / 3;
    }

    function _computeDomainSeparator() private view returns (bytes32) {
        return keccak256(
            abi.encode(DOMAIN_TYPE, keccak256("LogStoreReport"), keccak256("1"), block.chainid, address(this))
        );
    }
}
