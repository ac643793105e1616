// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {INodeManager, IStreamRegistry, IToken, MAX_STREAM_ID, STREAM_LINE} from "./Types.sol";
import {Payers} from "./Payers.sol";

/// Balances of stored streams. Whoever stakes for a stream owns shares of its balance, so a capture charges every
/// stakeholder in proportion without touching any of them. What is unstaked buys no more storage, but pays like the rest
/// until it is free: what was stored before is captured by then.
contract StoreManager is Payers {
    /// One slot, all that a report writes. A generation's shares are void once its balance is used up.
    struct Store {
        uint96 balance;
        uint128 shares;
        uint32 generation;
    }

    struct Exit {
        uint128 shares;
        uint32 generation;
        uint32 epoch;
        uint48 time;
    }

    IStreamRegistry public immutable streamRegistry;

    /// Streams that were ever staked for; their indices are 1 to count.
    uint32 public count;
    uint256 private _brought; // less what was withdrawn
    mapping(bytes32 key => uint256) private _index; // by keccak-256 of the stream id
    Store[1 << 32] private _stores; // by index: a slot each, found without hashing
    mapping(uint256 index => mapping(uint256 generation => uint256)) private _leaving; // shares
    mapping(uint256 index => mapping(uint256 generation => mapping(address stakeholder => uint256))) private _shares;
    mapping(uint256 index => mapping(address stakeholder => Exit)) private _exits;
    mapping(address stakeholder => uint256[]) private _stakedFor; // indices, once each
    mapping(uint256 index => mapping(address stakeholder => bool)) private _hasStaked;

    event StoreIndexed(uint32 indexed index, string store);
    event StoreUpdated(string store, bool isNew, uint256 amount);
    event Unstaked(address indexed stakeholder, uint32 indexed index, uint256 amount, uint32 epoch, uint48 time);
    event Withdrawn(address indexed stakeholder, uint32 indexed index, uint256 amount);
    event CaptureShort(uint32 indexed index, uint256 wanted, uint256 captured);

    error NoSuchStream();
    error BadStreamId();
    error AmountTooSmall();

    constructor(IToken token, IStreamRegistry registry, INodeManager nodeManager_, address reportManager_)
        Payers(token, nodeManager_, reportManager_)
    {
        streamRegistry = registry;
    }

    /// What a stream may spend, in base units: without what is leaving.
    function stores(string calldata streamId) external view returns (uint256 balance) {
        (balance,) = _balances(indexOf(streamId));
    }

    /// Of many streams at once, in the order asked for: what may be spent, what is leaving and pays until it is free, and
    /// the index by which reports name the stream, 0 for one that nobody has staked for.
    function storesOf(string[] calldata streamIds)
        external
        view
        returns (uint256[] memory balances, uint256[] memory leaving, uint256[] memory indices)
    {
        uint256 size = streamIds.length;
        balances = new uint256[](size);
        leaving = new uint256[](size);
        indices = new uint256[](size);
        for (uint256 i = 0; i < size; ++i) {
            indices[i] = indexOf(streamIds[i]);
            (balances[i], leaving[i]) = _balances(indices[i]);
        }
    }

    function exists(string calldata streamId) external view returns (bool) {
        return _stores[indexOf(streamId)].balance > 0;
    }

    function indexOf(string calldata streamId) public view returns (uint256) {
        return _index[keccak256(bytes(streamId))];
    }

    /// What all streams hold together.
    function totalSupply() external view returns (uint256) {
        unchecked {
            return uint96(_brought - nodeManager.streamsCaptured());
        }
    }

    /// What is left of one stakeholder's money, without what is leaving, rounded down.
    function storeBalanceOf(address stakeholder, string calldata streamId) external view returns (uint256) {
        uint256 index = indexOf(streamId);
        Store memory store = _stores[index];
        return _worth(store, _shares[index][store.generation][stakeholder]);
    }

    /// What is left of one stakeholder's money in all streams, as storeBalanceOf.
    function balanceOf(address stakeholder) external view returns (uint256 total) {
        uint256[] memory indices = _stakedFor[stakeholder];
        for (uint256 i = 0; i < indices.length; ++i) {
            Store memory store = _stores[indices[i]];
            total += _worth(store, _shares[indices[i]][store.generation][stakeholder]);
        }
    }

    /// What of one stakeholder is leaving, and when it is free: after the epoch, or at the time.
    function exitOf(address stakeholder, string calldata streamId)
        external
        view
        returns (uint256 amount, uint32 epoch, uint48 time)
    {
        uint256 index = indexOf(streamId);
        Store memory store = _stores[index];
        Exit memory leaving = _exits[index][stakeholder];
        if (leaving.generation == store.generation) amount = _worth(store, leaving.shares);
        return (amount, leaving.epoch, leaving.time);
    }

    /// Adds `amount` of the caller's tokens to the stream's balance.
    function stake(string calldata streamId, uint256 amount) external {
        if (bytes(streamId).length > MAX_STREAM_ID) revert BadStreamId();
        if (amount > 0 && !streamRegistry.exists(streamId)) revert NoSuchStream();
        _take(amount);

        bytes32 key = keccak256(bytes(streamId));
        uint256 index = _index[key];
        if (index == 0) {
            index = ++count;
            _index[key] = index;
            emit StoreIndexed(uint32(index), streamId);
        }
        Store memory store = _stores[index];
        bool isNew = store.balance == 0;
        uint256 minted;
        if (isNew || uint256(store.balance) << 32 < store.shares) {
            // Nothing, or less than a 2^32nd, is left of the old money: its shares would only lose precision.
            if (store.shares != 0) ++store.generation;
            minted = uint256(store.balance) + amount;
            store.shares = uint128(minted);
        } else {
            minted = (amount * store.shares) / store.balance;
            if (minted == 0) revert AmountTooSmall();
            store.shares += uint128(minted);
        }
        store.balance += uint96(amount);
        _stores[index] = store;
        _shares[index][store.generation][msg.sender] += minted;
        if (!_hasStaked[index][msg.sender]) {
            _hasStaked[index][msg.sender] = true;
            _stakedFor[msg.sender].push(index);
        }
        _brought += amount;
        emit StoreUpdated(streamId, isNew, amount);
    }

    /// Begins to take `amount` of the caller's money out of the stream's balance. Again renews the wait of all of it.
    function unstake(string calldata streamId, uint256 amount) external {
        if (amount == 0) revert ZeroAmount();
        uint256 index = indexOf(streamId);
        Store memory store = _stores[index];
        uint256 own = _shares[index][store.generation][msg.sender];
        uint256 available = _worth(store, own);
        if (available < amount) revert InsufficientBalance(available, amount);
        uint256 shares = amount == available ? own : (amount * store.shares + store.balance - 1) / store.balance;
        if (shares > own) shares = own;
        _shares[index][store.generation][msg.sender] = own - shares;
        _leaving[index][store.generation] += shares;
        Exit storage leaving = _exits[index][msg.sender];
        if (leaving.generation != store.generation) (leaving.shares, leaving.generation) = (0, store.generation);
        leaving.shares += uint128(shares);
        (leaving.epoch, leaving.time) = _exitTerms();
        emit Unstaked(msg.sender, uint32(index), amount, leaving.epoch, leaving.time);
    }

    /// Pays the caller what has waited for long enough, less what was captured meanwhile.
    function withdraw(string calldata streamId) external {
        uint256 index = indexOf(streamId);
        Exit memory leaving = _exits[index][msg.sender];
        _requireReady(leaving.epoch, leaving.time);
        delete _exits[index][msg.sender];
        Store memory store = _stores[index];
        if (leaving.shares == 0 || leaving.generation != store.generation) return;
        uint256 amount = _worth(store, leaving.shares);
        store.shares -= leaving.shares;
        store.balance -= uint96(amount);
        _stores[index] = store;
        _leaving[index][store.generation] -= leaving.shares;
        _brought -= amount;
        emit Withdrawn(msg.sender, uint32(index), amount);
        if (amount > 0) _pay(msg.sender, amount);
    }

    /// Captures what a report's lines ask for, each at most its stream's balance. Never reverts for an empty or unknown
    /// stream: the line is cut and CaptureShort says so.
    function capture(bytes calldata lines) external returns (uint256 wanted, uint256 captured) {
        if (msg.sender != reportManager) revert OnlyReportManager();
        bytes32 unsorted = LinesNotSorted.selector;
        bytes32 short = CaptureShort.selector;
        assembly ("memory-safe") {
            let last := 0
            let end := add(lines.offset, lines.length)
            for { let at := lines.offset } lt(at, end) { at := add(at, STREAM_LINE) } {
                let line := calldataload(at)
                let index := shr(224, line)
                if iszero(gt(index, last)) {
                    mstore(0, unsorted)
                    mstore(4, div(sub(at, lines.offset), STREAM_LINE))
                    revert(0, 36)
                }
                last := index
                let amount := and(shr(128, line), 0xffffffffffffffffffffffff)
                wanted := add(wanted, amount)
                let slot := add(_stores.slot, index)
                let store := sload(slot) // the balance is lowest
                let held := and(store, 0xffffffffffffffffffffffff)
                if gt(amount, held) {
                    mstore(0, amount)
                    mstore(32, held)
                    log2(0, 64, short, index)
                    amount := held
                }
                if amount {
                    captured := add(captured, amount)
                    sstore(slot, sub(store, amount))
                }
            }
        }
    }

    function _balances(uint256 index) private view returns (uint256 balance, uint256 leaving) {
        Store memory store = _stores[index];
        leaving = _worth(store, _leaving[index][store.generation]);
        balance = store.balance - leaving;
    }

    function _worth(Store memory store, uint256 shares) private pure returns (uint256) {
        return store.shares == 0 ? 0 : (shares * store.balance) / store.shares;
    }
}
