// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// A wallet that signs by the key of its one owner (ERC-1271). The development network's publishers need one.
contract SignerWallet {
    bytes4 private constant VALID = 0x1626ba7e;
    bytes4 private constant INVALID = 0xffffffff;

    address public immutable signer;

    constructor(address signer_) {
        signer = signer_;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        if (signature.length != 65) {
            return INVALID;
        }
        bytes32 r = bytes32(signature[0:32]);
        bytes32 s = bytes32(signature[32:64]);
        address recovered = ecrecover(hash, uint8(signature[64]), r, s);
        return recovered != address(0) && recovered == signer ? VALID : INVALID;
    }
}
