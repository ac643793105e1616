"""What kinds of messages there are, as the codec compares them: members by short names, and by their numbers.

Every message of a window is compared with several of them, so each is looked up in its class once, here.
"""

from __future__ import annotations

from validator.protocol.model import ContentType, EncryptionType, MessageType, SignatureType

LEGACY = SignatureType.ECDSA_SECP256K1_LEGACY
EVM = SignatureType.ECDSA_SECP256K1_EVM
ERC_1271 = SignatureType.ERC_1271
ML_DSA = SignatureType.ML_DSA_87
P256 = SignatureType.ECDSA_SECP256R1
ARRAY = SignatureType.ARRAY_ETH
ARRAY_LEGACY = SignatureType.ARRAY_ETH_LEGACY
STORED = MessageType.MESSAGE
NONE = EncryptionType.NONE
AES = EncryptionType.AES

ARRAY_TYPES = frozenset({ARRAY, ARRAY_LEGACY})
SECP256K1_TYPES = frozenset({LEGACY, EVM, ERC_1271, ARRAY_LEGACY, ARRAY})

MESSAGE_TYPES: dict[int, MessageType] = {int(item): item for item in MessageType}
CONTENT_TYPES: dict[int, ContentType] = {int(item): item for item in ContentType}
ENCRYPTION_TYPES: dict[int, EncryptionType] = {int(item): item for item in EncryptionType}
SIGNATURE_TYPES: dict[int, SignatureType] = {int(item): item for item in SignatureType}
