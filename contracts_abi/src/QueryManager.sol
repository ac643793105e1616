// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ConsumerLine, IToken} from "./Types.sol";

/// Balances of consumers, who pay for what they read. There is no unstake, for the reason given in StoreManager.
contract QueryManager {
    IToken public immutable stakeToken;
    address public immutable nodeManager;
    address public immutable reportManager;

    uint256 public totalSupply;
    mapping(address consumer => uint256) public balanceOf;

    event Stake(address indexed consumer, uint256 amount);
    event CaptureShort(address indexed consumer, uint256 wanted, uint256 captured);

    error OnlyReportManager();
    error ZeroAmount();
    error TransferFailed();

    constructor(IToken token, address nodeManager_, address reportManager_) {
        stakeToken = token;
        nodeManager = nodeManager_;
        reportManager = reportManager_;
    }

    /// Adds `amount` of the caller's tokens to its own balance.
    function stake(uint256 amount) external {
        stakeFor(msg.sender, amount);
    }

    /// Adds `amount` of the caller's tokens to a consumer's balance: the consumer's key needs neither tokens nor gas.
    function stakeFor(address consumer, uint256 amount) public {
        if (amount == 0) revert ZeroAmount();
        if (!stakeToken.transferFrom(msg.sender, address(this), amount)) revert TransferFailed();
        balanceOf[consumer] += amount;
        totalSupply += amount;
        emit Stake(consumer, amount);
    }

    /// Balances of many consumers at once, in the order asked for.
    function balancesOf(address[] calldata consumers) external view returns (uint256[] memory balances) {
        balances = new uint256[](consumers.length);
        for (uint256 i = 0; i < consumers.length; ++i) {
            balances[i] = balanceOf[consumers[i]];
        }
    }

    /// As StoreManager.capture, for consumers.
    function capture(ConsumerLine[] calldata lines) external returns (uint256 captured) {
        if (msg.sender != reportManager) revert OnlyReportManager();
        for (uint256 i = 0; i < lines.length; ++i) {
            address consumer = lines[i].consumer;
            uint256 wanted = lines[i].capture;
            uint256 balance = balanceOf[consumer];
            if (wanted > balance) {
                emit CaptureShort(consumer, wanted, balance);
                wanted = balance;
            }
            if (wanted == 0) continue;
            unchecked {
                balanceOf[consumer] = balance - wanted;
                captured += wanted;
            }
        }
        if (captured == 0) return 0;
        totalSupply -= captured;
        if (!stakeToken.transfer(nodeManager, captured)) revert TransferFailed();
    }
}
