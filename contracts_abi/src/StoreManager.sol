// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {MAX_STREAM_ID, IStreamRegistry, IToken} from "./Types.sol";

/// Balances of stored streams. Whoever stakes for a stream owns shares of its balance, so a capture charges every
/// stakeholder in proportion without touching any of them. There is no unstake: what is at a stream's balance at one
/// block is still there, less captures, when a report settles.
contract StoreManager {
    /// One slot. A generation's shares are void once its balance is used up.
    struct Store {
        uint96 balance;
        uint128 shares;
        uint32 generation;
    }

    IToken public immutable stakeToken;
    IStreamRegistry public immutable streamRegistry;
    address public immutable nodeManager;
    address public immutable reportManager;

    uint256 public totalSupply;
    mapping(bytes32 key => Store) private _stores; // key: keccak-256 of the stream id
    mapping(bytes32 key => mapping(uint256 generation => mapping(address stakeholder => uint256))) private _shares;

    event StoreUpdated(string store, bool isNew, uint256 amount);
    event CaptureShort(bytes32 indexed key, uint256 wanted, uint256 captured);

    error OnlyReportManager();
    error NoSuchStream();
    error BadStreamId();
    error ZeroAmount();
    error AmountTooSmall();
    error TransferFailed();

    constructor(IToken token, IStreamRegistry registry, address nodeManager_, address reportManager_) {
        stakeToken = token;
        streamRegistry = registry;
        nodeManager = nodeManager_;
        reportManager = reportManager_;
    }

    /// Balance of a stream in base units.
    function stores(string calldata streamId) external view returns (uint256) {
        return _stores[_key(streamId)].balance;
    }

    /// Balances of many streams at once, in the order asked for.
    function storesOf(string[] calldata streamIds) external view returns (uint256[] memory balances) {
        balances = new uint256[](streamIds.length);
        for (uint256 i = 0; i < streamIds.length; ++i) {
            balances[i] = _stores[_key(streamIds[i])].balance;
        }
    }

    function exists(string calldata streamId) external view returns (bool) {
        return _stores[_key(streamId)].balance > 0;
    }

    /// What is left of one stakeholder's money, rounded down.
    function storeBalanceOf(address stakeholder, string calldata streamId) external view returns (uint256) {
        bytes32 key = _key(streamId);
        Store memory store = _stores[key];
        if (store.shares == 0) return 0;
        return (_shares[key][store.generation][stakeholder] * store.balance) / store.shares;
    }

    /// Adds `amount` of the caller's tokens to the stream's balance.
    function stake(string calldata streamId, uint256 amount) external {
        if (amount == 0) revert ZeroAmount();
        if (bytes(streamId).length > MAX_STREAM_ID) revert BadStreamId();
        if (!streamRegistry.exists(streamId)) revert NoSuchStream();
        if (!stakeToken.transferFrom(msg.sender, address(this), amount)) revert TransferFailed();

        bytes32 key = _key(streamId);
        Store memory store = _stores[key];
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
        _stores[key] = store;
        _shares[key][store.generation][msg.sender] += minted;
        totalSupply += amount;
        emit StoreUpdated(streamId, isNew, amount);
    }

    /// Moves what a report's lines ask for, each at most its stream's balance, to the NodeManager. `keys` are the hashes
    /// of stream ids. Never reverts for an empty or unknown stream: the line is cut and CaptureShort says so.
    function capture(bytes32[] calldata keys, uint256[] calldata amounts) external returns (uint256 captured) {
        if (msg.sender != reportManager) revert OnlyReportManager();
        for (uint256 i = 0; i < keys.length; ++i) {
            Store storage store = _stores[keys[i]];
            uint256 wanted = amounts[i];
            uint256 balance = store.balance;
            if (wanted > balance) {
                emit CaptureShort(keys[i], wanted, balance);
                wanted = balance;
            }
            if (wanted == 0) continue;
            unchecked {
                store.balance = uint96(balance - wanted);
                captured += wanted;
            }
        }
        if (captured == 0) return 0;
        totalSupply -= captured;
        if (!stakeToken.transfer(nodeManager, captured)) revert TransferFailed();
    }

    function _key(string calldata streamId) private pure returns (bytes32) {
        return keccak256(bytes(streamId));
    }
}
