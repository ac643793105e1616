// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {EXIT_EPOCHS, EXIT_TIME, INodeManager, IPayers, IReportManager, IToken} from "./Types.sol";

/// What StoreManager and QueryManager share. A report captures in the books only; the tokens stay here until NodeManager
/// draws them, so a token that refuses a transfer keeps nobody's report from being settled.
abstract contract Payers is IPayers {
    IToken public immutable stakeToken;
    INodeManager public immutable nodeManager;
    address public immutable reportManager;

    error OnlyReportManager();
    error OnlyNodeManager();
    error ZeroAmount();
    error TransferFailed();
    error InsufficientBalance(uint256 available, uint256 wanted);
    error WithdrawalsPaused();
    error NotReady(uint64 epoch, uint64 time);
    error LinesNotSorted(uint256 line);

    constructor(IToken token, INodeManager nodeManager_, address reportManager_) {
        stakeToken = token;
        nodeManager = nodeManager_;
        reportManager = reportManager_;
    }

    function stakeTokenAddress() external view returns (address) {
        return address(stakeToken);
    }

    /// Sends captured tokens to NodeManager, which knows how many they are.
    function hand(uint256 amount) external {
        if (msg.sender != address(nodeManager)) revert OnlyNodeManager();
        if (!stakeToken.transfer(msg.sender, amount)) revert TransferFailed();
    }

    function _take(uint256 amount) internal {
        if (amount == 0) revert ZeroAmount();
        if (!stakeToken.transferFrom(msg.sender, address(this), amount)) revert TransferFailed();
    }

    function _pay(address to, uint256 amount) internal {
        if (!stakeToken.transfer(to, amount)) revert TransferFailed();
    }

    /// Epoch and time at which what begins to leave now is free.
    function _exitTerms() internal view returns (uint32 epoch, uint48 time) {
        epoch = IReportManager(reportManager).endedEpochs() + uint32(EXIT_EPOCHS);
        time = uint48(block.timestamp + EXIT_TIME);
    }

    function _requireReady(uint256 epoch, uint256 time) internal view {
        if (IReportManager(reportManager).withdrawalsPaused()) revert WithdrawalsPaused();
        uint256 epochs = IReportManager(reportManager).endedEpochs();
        if (epochs < epoch && block.timestamp < time) revert NotReady(uint64(epoch), uint64(time));
    }
}
