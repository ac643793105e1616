// The page of one message: runs the checks, draws what each has found, and writes the message's fields anew from the
// bytes that were checked. Green is said by this program alone, and only after all of them.

import * as checks from "./checks.js";

const OPEN = "open";
const GOOD = "good";
const BAD = "bad";
const WORD = "word";
const MAX_TEXT = 20000;
const CALL_MS = 10000;

const evidence = JSON.parse(document.getElementById("evidence").textContent);
const verdict = document.getElementById("verdict");

function mark(step, state, text) {
  const node = document.querySelector(`[data-step="${step}"]`);
  if (node === null) return;
  node.dataset.state = state;
  say(node, text);
}

// Text, its hashes as such.
function say(node, text) {
  const pieces = text.split(/(0x[0-9a-f]{16,})/).map((piece, at) => {
    if (at % 2 === 0) return piece;
    const code = document.createElement("code");
    code.textContent = piece;
    return code;
  });
  node.querySelector("[data-said]").replaceChildren(...pieces);
}

function conclude(state, title, text) {
  verdict.dataset.state = state;
  verdict.querySelector("[data-title]").textContent = title;
  say(verdict, text);
  document.body.dataset.checked = state;
}

// --- what is shown

function spell(text) {
  const cut = Array.from(text.slice(0, MAX_TEXT)).map((char) => {
    if (char === "\n" || !/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/u.test(char)) return char;
    const code = char.codePointAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
  return cut.join("") + (text.length > MAX_TEXT ? "…" : "");
}

function contentText(content) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
    return spell(indented(text));
  } catch {
    return spell(checks.hex(content.subarray(0, MAX_TEXT)));
  }
}

// JSON with line breaks, where that changes nothing but white space.
function indented(text) {
  try {
    const value = JSON.parse(text);
    return JSON.stringify(value) === text ? JSON.stringify(value, null, 2) : text;
  } catch {
    return text;
  }
}

function rewrite(message) {
  const isAddress = message.publisherId.length === 20;
  const texts = {
    stream: message.streamId,
    partition: String(message.partition),
    timestamp: String(message.timestamp),
    sequence: String(message.sequenceNumber),
    publisher: `${isAddress ? "0x" : "key:"}${checks.hex(message.publisherId)}`,
    chain: message.msgChainId,
    signature: `0x${checks.hex(message.signature)}`,
  };
  for (const [name, text] of Object.entries(texts)) {
    for (const node of document.querySelectorAll(`[data-field="${name}"]`)) node.textContent = spell(text);
  }
  const time = document.querySelector("time[data-of=message]");
  const iso = new Date(Number(message.timestamp)).toISOString();
  time.dateTime = iso;
  time.textContent = `${iso.replace("T", " ").replace("Z", "")} UTC`;
  const content = document.querySelector('[data-field="content"]');
  content.textContent = message.encryptionType === 0n ? contentText(message.content) : checks.hex(message.content).slice(0, MAX_TEXT);
}

// --- the checks

// Bytes that eth_call of ReportManager gives, from the node that the operator has named for this page.
async function call(data) {
  const params = [{ to: evidence.reportManager, data: `0x${data}` }, "latest"];
  const answer = await fetch(evidence.rpc, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "eth_call", params }),
    signal: AbortSignal.timeout(CALL_MS),
  });
  const said = await answer.json();
  if (said.error) throw new checks.Refusal("contract", `refuses: ${String(said.error.message).slice(0, 200)}`);
  return Uint8Array.from(String(said.result).slice(2).match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

function attempt(step, body) {
  try {
    return body();
  } catch (error) {
    throw error instanceof checks.Refusal ? error : new checks.Refusal(step, error.message);
  }
}

// Of a message that no bundle holds yet: its signature, and the leaf under which it will be held.
function checkTail() {
  const canonical = checks.fromBase64url(evidence.canonical);
  const message = attempt("message", () => checks.readMessage(canonical));
  const open = checkPublisher(message, canonical);
  rewrite(message);
  if (open) return conclude(OPEN, "Not checked to the end", open);
  return conclude(
    OPEN,
    "Signed, not certified yet",
    "Your browser has checked the publisher's signature. No certificate covers this message yet.",
  );
}

function checkPublisher(message, canonical) {
  const found = attempt("signature", () => checks.checkSignature(message));
  mark("signature", found.open ? OPEN : GOOD, found.open ?? found.text);
  const leaf = checks.hex(attempt("message", () => checks.messageLeaf(message, canonical)));
  if (leaf !== evidence.leaf) throw new checks.Refusal("message", `its leaf is 0x${leaf}, not the one that was asked for`);
  mark("message", GOOD, `0x${leaf}`);
  return found.open;
}

async function checkStored() {
  const stored = attempt("message", () => checks.readStored(checks.fromBase64url(evidence.stored)));
  if (`0x${checks.hex(stored.reportManager)}` !== evidence.reportManager) {
    throw new checks.Refusal("contract", "the proof is for another ReportManager");
  }
  const message = attempt("message", () => checks.readMessage(stored.canonical));
  const open = checkPublisher(message, stored.canonical);
  const leaf = checks.messageLeaf(message, stored.canonical);

  const entry = attempt("entry", () => checks.entryLeaf(message, stored.entry, leaf));
  mark("entry", GOOD, `message ${stored.entry[0] + 1n} of ${stored.entry[1]}`);
  const outcome = attempt("window", () => checks.windowLeaf(stored.window, entry));
  mark("window", GOOD, `entry ${stored.window[3] + 1n} of ${stored.window[4]}; outcome 0x${checks.hex(outcome)}`);

  const config = attempt("certificate", () => checks.readConfig(checks.fromBase64url(evidence.config)));
  const certificate = attempt("certificate", () => checks.readCertificate(checks.fromBase64url(evidence.certificate)));
  const quorum = attempt("certificate", () => checks.checkCertificate(certificate, config, stored, outcome));
  mark("certificate", GOOD, `${quorum.signed} of ${quorum.members} members signed this outcome; ${quorum.needed} decide`);

  const root = checks.hex(attempt("bundle", () => checks.bundleRoot(stored.bundle, outcome)));
  if (root !== checks.hex(stored.root)) {
    throw new checks.Refusal("bundle", `leads to 0x${root}, not to 0x${checks.hex(stored.root)}`);
  }
  mark("bundle", GOOD, `0x${root}`);
  const believed = await checkContract(stored, config);
  rewrite(message);
  if (open) return conclude(OPEN, "Not checked to the end", `Signature: ${open}.`);
  return conclude(GOOD, "Checked by your browser", `Signature, path, certificate and bundle root hold. ${believed}`);
}

// Asks the contract where there is a way; returns what is taken on somebody's word.
async function checkContract(stored, config) {
  const trust = "that this is the network's committee, and that the contract holds this root";
  if (!evidence.rpc) {
    mark("contract", WORD, "not asked by your browser: on this broker's word");
    return `On this broker's word: ${trust}.`;
  }
  let asked;
  try {
    asked = await checks.askContract(call, stored, config);
  } catch (error) {
    if (error instanceof checks.Refusal) throw error;
    mark("contract", WORD, `${new URL(evidence.rpc).host} gave no answer: on this broker's word`);
    return `On this broker's word: ${trust}.`;
  }
  const host = new URL(evidence.rpc).host;
  mark("contract", GOOD, `${host} says that it holds this root`);
  if (asked.committee) return `The contract's root and committee were asked of ${host}.`;
  return `The contract's root was asked of ${host}; on this broker's word: the committee of that earlier epoch.`;
}

async function main() {
  document.body.dataset.checked = "running";
  try {
    await (evidence.stored ? checkStored() : checkTail());
  } catch (error) {
    const step = error instanceof checks.Refusal ? error.step : "message";
    mark(step, BAD, error.message);
    conclude(BAD, `Does not hold: ${step}`, error.message);
  }
}

main();
