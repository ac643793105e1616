// hyparquet over one bundle: `node hyparquet.mjs FILE` from a folder that has it; answers one line of JSON.
// Rows as objects: times as milliseconds, bytes as hex, JSON columns as the reader gives them.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const { resolve } = createRequire(join(process.cwd(), 'package.json'));
const load = (name) => import(pathToFileURL(resolve(name)).href);
const { asyncBufferFromFile, parquetReadObjects } = await load('hyparquet');
const { compressors } = await load('hyparquet-compressors');

function plain(value) {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (value instanceof Date) return value.getTime();
  if (typeof value === 'bigint') return Number(value);
  return value ?? null;
}

const file = await asyncBufferFromFile(process.argv[2]);
const rows = await parquetReadObjects({ file, compressors, utf8: false });
const shown = rows.map((row) =>
  Object.fromEntries(Object.entries(row).map(([name, value]) => [name, name === 'content' ? value : plain(value)])),
);
console.log(JSON.stringify(shown));
