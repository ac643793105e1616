// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStoredMessages, MessageFields, MessageProof} from "./Leaves.sol";

/// An example of a contract that acts on what the network has stored: it keeps the newest message of one stream and one
/// publisher, whoever brings it. That a message is stored says nothing about who wrote it where: a reader names both.
contract MessageReader {
    IStoredMessages public immutable reports;
    bytes32 public immutable streamKey;
    address public immutable publisher;

    uint64 public newestMs;
    bytes32 public newestContentHash;

    event MessageRead(uint64 indexed number, uint64 timestampMs, bytes content);

    error NotStored();
    error WrongStream();
    error WrongPublisher();
    error NotNewer();

    constructor(IStoredMessages reports_, string memory streamId, address publisher_) {
        reports = reports_;
        streamKey = keccak256(bytes(streamId));
        publisher = publisher_;
    }

    /// Reads a message that the bundle of report `number` holds.
    function read(uint64 number, MessageFields calldata message, MessageProof calldata proof) external {
        if (keccak256(bytes(message.streamId)) != streamKey) revert WrongStream();
        if (message.publisher.length != 20 || address(bytes20(message.publisher)) != publisher) revert WrongPublisher();
        if (message.timestampMs <= newestMs) revert NotNewer();
        if (!reports.verifyMessage(number, message, proof)) revert NotStored();
        newestMs = message.timestampMs;
        newestContentHash = keccak256(message.content);
        emit MessageRead(number, message.timestampMs, message.content);
    }
}
