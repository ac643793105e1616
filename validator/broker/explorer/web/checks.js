// What a message's proof shows, checked from the bytes alone: signature, leaf, entry, window, certificate, bundle root.
// Nothing here touches the page. The same rules in Python: validator/protocol (payload, leaves, merkle, proof,
// certificate); a test gives both the same messages.

import { p256 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { keccak_256 } from "@noble/hashes/sha3.js";

import { decode, decodeObject } from "./cbor.js";

// What cannot be so; `step` is the first that fails.
export class Refusal extends Error {
  constructor(step, reason) {
    super(reason);
    this.step = step;
  }
}

const utf8 = new TextEncoder();
const FIELDS = 15;
const LEGACY = 0n;
const EVM = 1n;
const ERC_1271 = 2n;
const ML_DSA = 3n;
const P256 = 4n;
const ARRAY_LEGACY = 31n;
const ARRAY = 32n;
const RECOVERED = [LEGACY, EVM, ERC_1271, ARRAY_LEGACY, ARRAY];
const PRECOMMIT = 4n;
const HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;

export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function fromBase64url(text) {
  const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(plain, (char) => char.charCodeAt(0));
}

export function join(...parts) {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

// An unsigned integer, big-endian.
export function packed(value, size) {
  if (value < 0n || value >> BigInt(8 * size)) throw new Error(`${value} does not fit ${size} bytes`);
  const bytes = new Uint8Array(size);
  for (let at = size - 1, left = value; at >= 0; at -= 1, left >>= 8n) bytes[at] = Number(left & 255n);
  return bytes;
}

function equal(a, b) {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

function require(condition, step, reason) {
  if (!condition) throw new Refusal(step, reason);
}

// --- the message

export function readMessage(canonical) {
  const f = decodeObject(canonical, "message/1", FIELDS);
  const names = [
    "streamId", "partition", "timestamp", "sequenceNumber", "publisherId", "msgChainId", "prev", "messageType",
    "contentType", "encryptionType", "groupKeyId", "newGroupKey", "content", "signatureType", "signature",
  ];
  return Object.fromEntries(names.map((name, at) => [name, f[at]]));
}

// The bytes that the publisher signed, or null where they lie inside a key exchange, which is not read here.
export function signaturePayload(m) {
  const publisher = `0x${hex(m.publisherId)}`;
  if (m.signatureType === ARRAY_LEGACY) return join(utf8.encode(`${m.streamId}${m.timestamp}${publisher}`), m.content);
  let header = `${m.streamId}${m.partition}${m.timestamp}${m.sequenceNumber}${publisher}${m.msgChainId}`;
  if (m.prev !== null) header += `${m.prev[0]}${m.prev[1]}`;
  const key = m.newGroupKey;
  if (m.signatureType === LEGACY) {
    const content = m.encryptionType === 0n ? m.content : utf8.encode(hex(m.content));
    const tail = key === null ? "" : JSON.stringify([key[0], hex(key[1])]);
    return join(utf8.encode(header), content, utf8.encode(tail));
  }
  if (m.messageType !== 0n && m.signatureType !== ARRAY) return null;
  const tail = key === null ? new Uint8Array() : join(utf8.encode(key[0]), key[1]);
  return join(utf8.encode(header), m.content, tail);
}

// The address whose key made a signature of 65 bytes over a digest, or null.
export function recover(digest, signature) {
  const v = signature[64];
  if (signature.length !== 65 || (v !== 27 && v !== 28)) return null;
  try {
    const point = secp256k1.Signature.fromBytes(signature.slice(0, 64), "compact").addRecoveryBit(v - 27)
      .recoverPublicKey(digest);
    return keccak_256(point.toBytes(false).slice(1)).slice(12);
  } catch {
    return null;
  }
}

// Whether the publisher signed it: says what was found, or what is left open.
export function checkSignature(m) {
  const step = "signature";
  require(m.signature.length > 0, step, "there is none");
  const payload = signaturePayload(m);
  if (payload === null) return { open: "a key exchange: its parts are signed one by one, which this page does not read" };
  if (m.signatureType === ML_DSA) return { open: "ML-DSA-87, which this page has no program for" };
  if (m.signatureType === P256) {
    require(isP256(m, sha256(payload)), step, "not made by the publisher's P-256 key");
    return { text: `made by the publisher's P-256 key, 0x${hex(m.publisherId)}` };
  }
  require(RECOVERED.includes(m.signatureType), step, `of a type that is unknown (${m.signatureType})`);
  const head = utf8.encode(`\x19Ethereum Signed Message:\n${payload.length}`);
  const signer = recover(keccak_256(join(head, payload)), m.signature);
  require(signer !== null, step, "no key can have made it");
  if (m.signatureType === ERC_1271) return { open: `a contract's (ERC-1271), signed by 0x${hex(signer)}: the contract was not asked` };
  require(equal(signer, m.publisherId), step, `made by 0x${hex(signer)}, who is not the publisher`);
  return { text: `recovers to the publisher, 0x${hex(signer)}` };
}

function isP256(m, digest) {
  const key = m.publisherId;
  const form = { 33: [2, 3], 65: [4] }[key.length] ?? [];
  if (m.signature.length !== 64 || !form.includes(key[0])) return false;
  try {
    return p256.verify(m.signature, digest, key, { prehash: false, lowS: false });
  } catch {
    return false;
  }
}

// --- leaves and trees (format 2)

function leaf(label, ...fields) {
  const name = new Uint8Array(16);
  name.set(utf8.encode(label));
  return sha256(join(Uint8Array.of(0), name, ...fields));
}

export function messageLeaf(m, canonical) {
  return leaf(
    "logstore2message", sha256(utf8.encode(m.streamId)), packed(m.partition, 4), packed(m.timestamp, 8),
    packed(m.sequenceNumber, 4), sha256(m.publisherId), sha256(m.content), sha256(canonical),
  );
}

// The root that a leaf, its place and its path lead to (RFC 9162, section 2.1.3.2); null where they do not fit.
export function rootAbove(hash, index, size, path) {
  if (index >= size || path.length % 32) return null;
  let computed = hash;
  let used = 0;
  for (let place = index, last = size - 1n; last; place >>= 1n, last >>= 1n) {
    const isRight = (place & 1n) === 1n;
    if (!isRight && place >= last) continue;
    if (used === path.length) return null;
    const sibling = path.subarray(used, used + 32);
    used += 32;
    computed = sha256(isRight ? join(Uint8Array.of(1), sibling, computed) : join(Uint8Array.of(1), computed, sibling));
  }
  return used === path.length ? computed : null;
}

// --- the proof

// ["stored-message/1", chain id, ReportManager, bundle number, bundle root, message, proof]
export function readStored(data) {
  const [chainId, reportManager, number, root, canonical, proof] = decodeObject(data, "stored-message/1", 6);
  const [entry, window, bundle] = decodeObject(proof, "message-proof/1", 3);
  if (bundle === null) throw new Error("the proof does not go up to a bundle root");
  return { chainId, reportManager, number, root, canonical, entry, window, bundle };
}

export function entryLeaf(m, [index, count, signedBytes, canonicalBytes, flags, path], hash) {
  const root = rootAbove(hash, index, count, path);
  require(root !== null, "entry", `the path does not fit message ${index} of ${count}`);
  return leaf(
    "logstore2entry", sha256(utf8.encode(m.streamId)), packed(m.partition, 4), root, packed(count, 8),
    packed(signedBytes, 8), packed(canonicalBytes, 8), packed(flags, 1),
  );
}

export function windowLeaf([kind, number, restHash, index, entries, path], hash) {
  const root = rootAbove(hash, index, entries, path);
  require(root !== null, "window", `the path does not fit entry ${index} of ${entries}`);
  return leaf("logstore2window", packed(kind, 1), packed(number, 8), root, packed(entries, 8), restHash);
}

export function bundleRoot([index, leaves, path], hash) {
  require(index > 0n, "bundle", "the first leaf is the header's");
  const root = rootAbove(hash, index, leaves, path);
  require(root !== null, "bundle", `the path does not fit leaf ${index} of ${leaves}`);
  return leaf("logstore2bundle", packed(leaves, 8), root);
}

// --- the certificate

function word(bytes) {
  return join(new Uint8Array(32 - bytes.length), bytes);
}

function precommitDigest(vote, chainId, reportManager) {
  const name = (text) => keccak_256(utf8.encode(text));
  const domain = keccak_256(
    join(
      name("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
      name("LogStorePrecommit"), name("1"), word(packed(chainId, 8)), word(reportManager),
    ),
  );
  const [kind, number, round] = [vote.instance[0], vote.instance[1], vote.round].map((n) => word(packed(n, 8)));
  const type = name("Precommit(bytes32 configDigest,uint8 kind,uint64 number,uint32 round,bytes32 value)");
  const struct = keccak_256(join(type, vote.configDigest, kind, number, round, vote.value));
  return keccak_256(join(Uint8Array.of(0x19, 0x01), domain, struct));
}

export function readCertificate(data) {
  const [kind, configDigest, instance, number, round, value, signatures] = decodeObject(data, "quorum/1", 7);
  return { kind, configDigest, instance: [instance, number], round, value, signatures };
}

// Chain id, ReportManager and committee that a config digest stands for.
export function readConfig(preimage) {
  const fields = new Map(decode(preimage).slice(1));
  const contracts = new Map(fields.get("contracts"));
  return {
    digest: sha256(preimage),
    chainId: fields.get("chain_id"),
    reportManager: contracts.get("report_manager"),
    committee: fields.get("committee"),
  };
}

export function checkCertificate(certificate, config, stored, outcomeDigest) {
  const step = "certificate";
  const { committee } = config;
  require(certificate.kind === PRECOMMIT, step, "not of precommits");
  require(equal(config.digest, certificate.configDigest), step, "of another config digest");
  const isSameNetwork = config.chainId === stored.chainId && equal(config.reportManager, stored.reportManager);
  require(isSameNetwork, step, "its config is of another network");
  const [kind, number] = stored.window;
  require(certificate.instance[0] === kind && certificate.instance[1] === number, step, "of another window");
  require(equal(certificate.value, outcomeDigest), step, "decides another outcome than the path leads to");
  const digest = precommitDigest(certificate, config.chainId, config.reportManager);
  let before = "";
  for (const [signer, signature] of certificate.signatures) {
    const name = hex(signer);
    require(before < name, step, "signers not distinct and ascending");
    before = name;
    require(committee.some((member) => equal(member, signer)), step, `0x${name} is not in the committee`);
    const isLow = BigInt(`0x${hex(signature.slice(32, 64))}`) <= HALF_ORDER;
    const recovered = recover(digest, signature);
    require(isLow && recovered !== null && equal(recovered, signer), step, `not signed by 0x${name}`);
  }
  const needed = Math.max(1, committee.length - Math.max(0, Math.floor((committee.length - 1) / 3)));
  const signed = certificate.signatures.length;
  require(signed >= needed, step, `${signed} signers where ${needed} are needed`);
  return { signed, needed, members: committee.length };
}

// --- the contract, where the page has somebody to ask

function selector(signature) {
  return hex(keccak_256(utf8.encode(signature)).slice(0, 4));
}

// What ReportManager holds: `call` sends eth_call and gives the answer's bytes.
export async function askContract(call, stored, config) {
  const step = "contract";
  const report = await call(selector("reportOf(uint64)") + hex(word(packed(stored.number, 8))));
  require(report.length >= 32, step, `holds no report ${stored.number}`);
  const root = report.slice(0, 32);
  require(equal(root, stored.root), step, `holds 0x${hex(root)} as the root of bundle ${stored.number}`);
  const digest = await call(selector("configDigest()"));
  if (!equal(digest.slice(0, 32), config.digest)) return { committee: false };
  const members = await call(selector("committee()"));
  const said = [];
  for (let at = 64; at + 32 <= members.length; at += 32) said.push(hex(members.slice(at + 12, at + 32)));
  const same = said.length === config.committee.length && config.committee.every((member) => said.includes(hex(member)));
  require(same, step, "names another committee for the certificate's config");
  return { committee: true };
}
