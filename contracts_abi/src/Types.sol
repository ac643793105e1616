// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

// Bytes in a stream id, and lines of any one kind in a report.
uint256 constant MAX_STREAM_ID = 256;
uint256 constant MAX_LINES = 1024;

// What leaves waits until two epochs have ended by their last report, or for so long where none ends any more.
uint256 constant EXIT_EPOCHS = 2;
uint256 constant EXIT_TIME = 60 days;

// Lines of a report, big-endian, each kind strictly ascending by index; indices count from 1:
// stream or consumer: index (4 bytes), what is captured (12), signed or read bytes (8);
// node: index (4; the top bit says that the node loses), amount (12).
uint256 constant STREAM_LINE = 24;
uint256 constant CONSUMER_LINE = 24;
uint256 constant NODE_LINE = 16;

/// One bundle's settlement. `lines`: the numbers of stream, consumer and node lines (2 bytes each), then the lines.
/// What is captured from streams and consumers = what nodes get - what nodes lose + treasury.
struct Report {
    bytes32 configDigest;
    uint32 configCount;
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
    uint256 captured;
    uint256 treasury;
    bytes lines;
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
    function consumersCaptured() external view returns (uint96);
    function endedEpochs() external view returns (uint32);
    function withdrawalsPaused() external view returns (bool);
}

interface INodeManager {
    function stakeToken() external view returns (IToken);
    function reportManager() external view returns (address);
    function storeManager() external view returns (address);
    function queryManager() external view returns (address);
    function streamsCaptured() external view returns (uint96);
    function settle(bytes calldata lines, uint256 fromStreams, uint256 fromConsumers)
        external
        returns (int256 given, uint256 treasury);
}

/// StoreManager and QueryManager, which hold what streams and consumers have brought.
interface IPayers {
    function stakeToken() external view returns (IToken);
    function reportManager() external view returns (address);
    function nodeManager() external view returns (INodeManager);
    function capture(bytes calldata lines) external returns (uint256 wanted, uint256 captured);
    function hand(uint256 amount) external;
}
