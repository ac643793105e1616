// Canonical objects as they travel: deterministic CBOR of integers, byte strings, texts, arrays, booleans and null.
// Integers come as BigInt. Whatever is cut short, longer than it need be, or of another kind throws.

export function decode(data) {
  const reader = new Reader(data);
  const value = reader.item(0);
  if (reader.at !== data.length) throw new Error(`${data.length - reader.at} trailing bytes`);
  return value;
}

// The fields of an object of a kind, without the kind.
export function decodeObject(data, kind, fields) {
  const value = decode(data);
  if (!Array.isArray(value) || value[0] !== kind) throw new Error(`not an object of kind ${kind}`);
  if (value.length !== fields + 1) throw new Error(`${value.length - 1} fields where ${fields} belong`);
  return value.slice(1);
}

const DEPTH = 8;

class Reader {
  constructor(data) {
    this.data = data;
    this.at = 0;
  }

  take(size) {
    const end = this.at + Number(size);
    if (end > this.data.length) throw new Error("cut short");
    const taken = this.data.subarray(this.at, end);
    this.at = end;
    return taken;
  }

  number(info) {
    if (info < 24) return BigInt(info);
    if (info > 27) throw new Error("of no length that is known");
    const size = 1 << (info - 24);
    let value = 0n;
    for (const byte of this.take(size)) value = (value << 8n) | BigInt(byte);
    if (value < (size === 1 ? 24n : 1n << BigInt(size * 4))) throw new Error("longer than it need be");
    return value;
  }

  item(depth) {
    if (depth > DEPTH) throw new Error("nested too deeply");
    const [head] = this.take(1);
    const kind = head >> 5;
    const info = head & 31;
    if (kind === 0) return this.number(info);
    if (kind === 1) return -1n - this.number(info);
    if (kind === 2) return this.take(this.number(info)).slice();
    if (kind === 3) return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.take(this.number(info)));
    if (kind === 4) {
      const items = [];
      for (let left = this.number(info); left > 0n; left -= 1n) items.push(this.item(depth + 1));
      return items;
    }
    if (head === 0xf6) return null;
    if (head === 0xf4 || head === 0xf5) return head === 0xf5;
    throw new Error(`a head of ${head}, which no canonical object has here`);
  }
}
