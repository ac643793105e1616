// arweave-js against one gateway: `node arweave_js.mjs read URL ID` or `send URL JWK DATA`; answers one line of JSON.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const Arweave = createRequire(join(process.cwd(), 'package.json'))('arweave');
const [word, url, ...rest] = process.argv.slice(2);
const { hostname, port } = new URL(url);
const arweave = Arweave.init({ host: hostname, port, protocol: 'http' });

async function read(id) {
  const tx = await arweave.transactions.get(id);
  const data = Buffer.from(await arweave.chunks.downloadChunkedData(id));
  const whole = Buffer.from(await arweave.transactions.getData(id, { decode: true }));
  return {
    verified: await arweave.transactions.verify(tx),
    owner: await arweave.wallets.ownerToAddress(tx.owner),
    tags: tx.tags.map((tag) => [tag.get('name', { decode: true, string: true }), tag.get('value', { decode: true, string: true })]),
    size: data.length,
    sha256: createHash('sha256').update(data).digest('hex'),
    same: data.equals(whole),
    status: await arweave.transactions.getStatus(id),
  };
}

async function send(keyFile, dataFile) {
  const key = JSON.parse(readFileSync(keyFile));
  const tx = await arweave.createTransaction({ data: readFileSync(dataFile) }, key);
  tx.addTag('App-Name', 'arweave-js');
  await arweave.transactions.sign(tx, key);
  const uploader = await arweave.transactions.getUploader(tx);
  while (!uploader.isComplete) await uploader.uploadChunk();
  return { id: tx.id, reward: tx.reward, chunks: uploader.totalChunks };
}

console.log(JSON.stringify(await { read, send }[word](...rest)));
