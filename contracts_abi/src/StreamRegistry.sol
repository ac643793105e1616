// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// Stand-in for Streamr's StreamRegistry on networks that do not have one. The views that others read have Streamr's
/// names and meaning; ids are taken as given, first come, and only publishing is modelled.
contract StreamRegistry {
    enum PermissionType {
        Edit,
        Delete,
        Publish,
        Subscribe,
        Grant
    }

    struct Stream {
        address creator;
        bool publicPublish;
        string metadata;
    }

    mapping(string streamId => Stream) private _streams;
    mapping(string streamId => mapping(address publisher => bool)) private _publishers;

    event StreamCreated(string id, string metadata);
    event StreamUpdated(string id, string metadata);
    event PublisherUpdated(string streamId, address indexed publisher, bool mayPublish);
    event PublicPublishUpdated(string streamId, bool mayPublish);

    error StreamExists();
    error NoSuchStream();
    error NotCreator();
    error BadStreamId();

    modifier onlyCreator(string calldata streamId) {
        address creator = _streams[streamId].creator;
        if (creator == address(0)) revert NoSuchStream();
        if (creator != msg.sender) revert NotCreator();
        _;
    }

    /// `metadata` is a JSON object; its "partitions" (1 to 100, default 1) is what validators read.
    function createStream(string calldata streamId, string calldata metadata) external {
        if (bytes(streamId).length == 0 || bytes(streamId).length > 256) revert BadStreamId();
        Stream storage stream = _streams[streamId];
        if (stream.creator != address(0)) revert StreamExists();
        stream.creator = msg.sender;
        stream.metadata = metadata;
        emit StreamCreated(streamId, metadata);
    }

    function updateStreamMetadata(string calldata streamId, string calldata metadata) external onlyCreator(streamId) {
        _streams[streamId].metadata = metadata;
        emit StreamUpdated(streamId, metadata);
    }

    function setPublisher(string calldata streamId, address publisher, bool mayPublish) external onlyCreator(streamId) {
        _publishers[streamId][publisher] = mayPublish;
        emit PublisherUpdated(streamId, publisher, mayPublish);
    }

    function setPublicPublish(string calldata streamId, bool mayPublish) external onlyCreator(streamId) {
        _streams[streamId].publicPublish = mayPublish;
        emit PublicPublishUpdated(streamId, mayPublish);
    }

    function exists(string calldata streamId) external view returns (bool) {
        return _streams[streamId].creator != address(0);
    }

    /// Empty for a stream that does not exist (Streamr's registry reverts there).
    function getStreamMetadata(string calldata streamId) external view returns (string memory) {
        return _streams[streamId].metadata;
    }

    /// The creator, a publisher, or anybody where publishing is public. Other permissions: the creator's only.
    function hasPermission(string calldata streamId, address user, PermissionType permission)
        external
        view
        returns (bool)
    {
        Stream storage stream = _streams[streamId];
        if (stream.creator == address(0)) return false;
        if (stream.creator == user) return true;
        return permission == PermissionType.Publish && (stream.publicPublish || _publishers[streamId][user]);
    }

    function hasPublicPermission(string calldata streamId, PermissionType permission) external view returns (bool) {
        return permission == PermissionType.Publish && _streams[streamId].publicPublish;
    }
}
