// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Owned} from "./Owned.sol";

/// What keeps a stolen or mistaken key from doing harm at once. The owner's raise of the config count is announced, and
/// possible only after a delay, so that whoever does not like it can see it and leave. A guardian can pause submissions
/// and withdrawals, each alone; no pause lasts longer than PAUSE_TIME, and after its end there is none for PAUSE_REST, so
/// that it stops nothing for ever. Neither can do the other's.
abstract contract Guarded is Owned {
    uint256 public constant PAUSE_TIME = 7 days;
    uint256 public constant PAUSE_REST = 14 days;

    uint256 public immutable raiseDelay;
    address public guardian;
    address public pendingGuardian;
    bytes32 public announced;
    uint256 public possibleFrom;

    uint48 public withdrawalsPausedUntil;

    event ConfigCountAnnounced(bytes32 indexed configDigest, address[] members, uint256 from);
    event AnnouncementWithdrawn();
    event SubmissionsPausedUntil(uint256 time);
    event WithdrawalsPausedUntil(uint256 time);
    event GuardianChanged(address indexed previousGuardian, address indexed newGuardian);

    error NotGuardian();
    error NotPendingGuardian();
    error NotAnnounced();
    error TooEarly(uint256 from);
    error SubmissionsPaused();

    modifier onlyGuardian() {
        if (msg.sender != guardian) revert NotGuardian();
        _;
    }

    constructor(address guardian_, uint256 raiseDelay_) {
        guardian = guardian_;
        raiseDelay = raiseDelay_;
        emit GuardianChanged(address(0), guardian_);
    }

    function transferGuardian(address newGuardian) external onlyGuardian {
        pendingGuardian = newGuardian;
    }

    function acceptGuardian() external {
        if (msg.sender != pendingGuardian) revert NotPendingGuardian();
        emit GuardianChanged(guardian, msg.sender);
        guardian = msg.sender;
        pendingGuardian = address(0);
    }

    function pauseSubmissions() external onlyGuardian {
        _pauseSubmissionsUntil(_pausedFrom(submissionsPausedUntil()));
    }

    function pauseWithdrawals() external onlyGuardian {
        withdrawalsPausedUntil = uint48(_pausedFrom(withdrawalsPausedUntil));
        emit WithdrawalsPausedUntil(withdrawalsPausedUntil);
    }

    /// Ends a pause before its time; the rest after it counts from now.
    function resumeSubmissions() external onlyGuardian {
        if (block.timestamp < submissionsPausedUntil()) _pauseSubmissionsUntil(block.timestamp);
    }

    function resumeWithdrawals() external onlyGuardian {
        if (block.timestamp < withdrawalsPausedUntil) withdrawalsPausedUntil = uint48(block.timestamp);
        emit WithdrawalsPausedUntil(withdrawalsPausedUntil);
    }

    /// Takes back what was announced.
    function withdrawAnnouncement() external onlyOwner {
        announced = 0;
        emit AnnouncementWithdrawn();
    }

    function _announce(bytes32 what, bytes32 digest, address[] calldata members) internal {
        announced = what;
        possibleFrom = block.timestamp + raiseDelay;
        emit ConfigCountAnnounced(digest, members, possibleFrom);
    }

    function _execute(bytes32 what) internal {
        if (announced != what) revert NotAnnounced();
        if (block.timestamp < possibleFrom) revert TooEarly(possibleFrom);
        announced = 0;
    }

    function submissionsPausedUntil() public view virtual returns (uint256);

    function _pauseSubmissionsUntil(uint256 time) internal virtual;

    function _pausedFrom(uint256 last) private view returns (uint256) {
        if (last != 0 && block.timestamp < last + PAUSE_REST) revert TooEarly(last + PAUSE_REST);
        return block.timestamp + PAUSE_TIME;
    }
}
