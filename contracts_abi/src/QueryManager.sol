// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {CONSUMER_LINE, INodeManager, IReportManager, IToken} from "./Types.sol";
import {Payers} from "./Payers.sol";

/// Balances of consumers, who pay for what they read. What is unstaked pays like the rest until it is free: receipts that
/// were signed before are charged by then.
contract QueryManager is Payers {
    /// One slot, all that a report writes.
    struct Account {
        uint96 balance;
        uint96 leaving;
        uint32 epoch;
        uint32 time;
    }

    /// Consumers that ever had a balance; their indices are 1 to count.
    uint32 public count;
    uint256 private _brought; // less what was withdrawn
    mapping(address consumer => uint256) public indexOf;
    Account[1 << 32] private _accounts; // by index: a slot each, found without hashing

    event ConsumerIndexed(uint32 indexed index, address indexed consumer);
    event Stake(address indexed consumer, uint256 amount);
    event Unstaked(address indexed consumer, uint256 amount, uint32 epoch, uint48 time);
    event Withdrawn(address indexed consumer, uint256 amount);
    event CaptureShort(uint32 indexed index, uint256 wanted, uint256 captured);

    constructor(IToken token, INodeManager nodeManager_, address reportManager_)
        Payers(token, nodeManager_, reportManager_)
    {}

    /// What a consumer may spend, in base units: without what is leaving.
    function balanceOf(address consumer) external view returns (uint256) {
        return _accounts[indexOf[consumer]].balance;
    }

    /// What all consumers hold together.
    function totalSupply() external view returns (uint256) {
        unchecked {
            return uint96(_brought - IReportManager(reportManager).consumersCaptured());
        }
    }

    /// Of many consumers at once, in the order asked for: what reports may capture, what is leaving included, and the
    /// index by which reports name them, 0 for one that never had a balance.
    function balancesOf(address[] calldata consumers)
        external
        view
        returns (uint256[] memory balances, uint256[] memory indices)
    {
        balances = new uint256[](consumers.length);
        indices = new uint256[](consumers.length);
        for (uint256 i = 0; i < consumers.length; ++i) {
            indices[i] = indexOf[consumers[i]];
            Account memory account = _accounts[indices[i]];
            balances[i] = uint256(account.balance) + account.leaving;
        }
    }

    /// What of a consumer is leaving, and when it is free: after the epoch, or at the time.
    function exitOf(address consumer) external view returns (uint256 amount, uint32 epoch, uint48 time) {
        Account memory account = _accounts[indexOf[consumer]];
        return (account.leaving, account.epoch, account.time);
    }

    /// Adds `amount` of the caller's tokens to its own balance.
    function stake(uint256 amount) external {
        stakeFor(msg.sender, amount);
    }

    /// Adds `amount` of the caller's tokens to a consumer's balance: the consumer's key needs neither tokens nor gas.
    function stakeFor(address consumer, uint256 amount) public {
        _take(amount);
        _brought += amount;
        uint256 index = indexOf[consumer];
        if (index == 0) {
            index = ++count;
            indexOf[consumer] = index;
            emit ConsumerIndexed(uint32(index), consumer);
        }
        _accounts[index].balance += uint96(amount);
        emit Stake(consumer, amount);
    }

    /// Begins to take `amount` out of the caller's balance. Again renews the wait of all of it.
    function unstake(uint256 amount) external {
        if (amount == 0) revert ZeroAmount();
        Account storage account = _accounts[indexOf[msg.sender]];
        if (account.balance < amount) revert InsufficientBalance(account.balance, amount);
        account.balance -= uint96(amount);
        account.leaving += uint96(amount);
        (uint32 epoch, uint48 time) = _exitTerms();
        (account.epoch, account.time) = (epoch, uint32(time));
        emit Unstaked(msg.sender, amount, epoch, time);
    }

    /// Pays the caller what has waited for long enough, less what was captured meanwhile.
    function withdraw() external {
        Account storage account = _accounts[indexOf[msg.sender]];
        _requireReady(account.epoch, account.time);
        uint256 amount = account.leaving;
        account.leaving = 0;
        _brought -= amount;
        emit Withdrawn(msg.sender, amount);
        if (amount > 0) _pay(msg.sender, amount);
    }

    /// As StoreManager.capture, for consumers; what is leaving pays last.
    function capture(bytes calldata lines) external returns (uint256 wanted, uint256 captured) {
        if (msg.sender != reportManager) revert OnlyReportManager();
        bytes32 unsorted = LinesNotSorted.selector;
        bytes32 short = CaptureShort.selector;
        assembly ("memory-safe") {
            let last := 0
            let end := add(lines.offset, lines.length)
            for { let at := lines.offset } lt(at, end) { at := add(at, CONSUMER_LINE) } {
                let line := calldataload(at)
                let index := shr(224, line)
                if iszero(gt(index, last)) {
                    mstore(0, unsorted)
                    mstore(4, div(sub(at, lines.offset), CONSUMER_LINE))
                    revert(0, 36)
                }
                last := index
                let amount := and(shr(128, line), 0xffffffffffffffffffffffff)
                wanted := add(wanted, amount)
                let slot := add(_accounts.slot, index)
                let account := sload(slot) // the balance is lowest, then what is leaving
                let held := and(account, 0xffffffffffffffffffffffff)
                if gt(amount, held) {
                    let all := add(held, and(shr(96, account), 0xffffffffffffffffffffffff))
                    if gt(amount, all) {
                        mstore(0, amount)
                        mstore(32, all)
                        log2(0, 64, short, index)
                        amount := all
                    }
                    account := sub(account, shl(96, sub(amount, held)))
                    captured := add(captured, sub(amount, held))
                    amount := held
                    if iszero(amount) { sstore(slot, account) }
                }
                if amount {
                    captured := add(captured, amount)
                    sstore(slot, sub(account, amount))
                }
            }
        }
    }
}
