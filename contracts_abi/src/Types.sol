// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

// Amounts are base units of the token: below 2^96, the most the token can ever have in supply.
uint256 constant MAX_AMOUNT = type(uint96).max;

// Bytes in a stream id, and lines in any one list of a report.
uint256 constant MAX_STREAM_ID = 256;
uint256 constant MAX_LINES = 1024;

/// What a report takes from one stored stream.
struct StreamLine {
    string id;
    uint256 capture;
    uint64 byteCount;
}

/// What a report takes from one consumer.
struct ConsumerLine {
    address consumer;
    uint256 capture;
    uint64 byteCount;
}

/// What a report gives to (or, where negative, takes from) one node's stake.
struct NodeLine {
    address node;
    int256 amount;
}

/// One bundle's settlement. Lists are strictly ascending: ids by bytes, addresses by number.
/// Sum of captures = sum of node amounts + treasury.
struct Report {
    bytes32 configDigest;
    uint64 number;
    uint64 height;
    bytes32 blockHash;
    uint64 firstMs;
    uint64 lastMs;
    bytes32 previousRoot;
    bytes32 bundleRoot;
    bytes32 storageId;
    address uploader;
    bytes32 ledgerRoot;
    StreamLine[] streams;
    ConsumerLine[] consumers;
    NodeLine[] nodes;
    uint256 treasury;
    address[] nextCommittee;
    bytes32 nextConfigDigest;
}

interface IToken {
    function transfer(address to, uint256 amount) external returns (bool);
    function transferFrom(address from, address to, uint256 amount) external returns (bool);
    function balanceOf(address account) external view returns (uint256);
}

interface IStreamRegistry {
    function exists(string calldata streamId) external view returns (bool);
}

interface IReportManager {
    function isMember(address node) external view returns (bool);
    function rotations() external view returns (uint64);
}

interface INodeManager {
    function reportManager() external view returns (address);
    function settle(NodeLine[] calldata lines, uint256 captured) external returns (uint256 treasury);
}

interface IStoreManager {
    function reportManager() external view returns (address);
    function capture(bytes32[] calldata keys, uint256[] calldata amounts) external returns (uint256 captured);
}

interface IQueryManager {
    function reportManager() external view returns (address);
    function capture(ConsumerLine[] calldata lines) external returns (uint256 captured);
}
