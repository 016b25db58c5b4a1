/** One database of a container, by the names of its blocks in order. */
export interface ContainerDatabase {
  name: string;
  blockIds: readonly string[];
}

const version = 4;
const headerBytes = 24;
const entryBytes = 152;
const nameAt = 24;
const nameBytes = 128;
/** Bytes of a block's name, which is 32 hex digits. */
const blockNameBytes = 16;

/**
 * The manifest of a container of Cloud Backed SQLite: which databases it holds and which blocks they are made of. Numbers
 * are big-endian, 4 bytes. A header: version, block size, databases, blocks to delete, bytes of a block name, highest
 * database id. For each database: id, parent, version, where its block names begin, how many, 0, and its name, padded with
 * zeros to 128 bytes. Then the block names. Compared byte by byte with manifests that iTwin.js 5.1.9 writes.
 */
export function writeManifest(databases: readonly ContainerDatabase[], blockSize: number): Buffer {
  const blocks = databases.reduce((sum, { blockIds }) => sum + blockIds.length, 0);
  const manifest = Buffer.alloc(headerBytes + databases.length * entryBytes + blocks * blockNameBytes);
  const numbers = (at: number, ...values: number[]): void =>
    values.forEach((value, n) => manifest.writeUInt32BE(value, at + 4 * n));
  numbers(0, version, blockSize, databases.length, 0, blockNameBytes, databases.length);
  let namesAt = headerBytes + databases.length * entryBytes;
  databases.forEach(({ name, blockIds }, n) => {
    if (Buffer.byteLength(name) >= nameBytes) throw new Error(`'${name}' is too long for a manifest`);
    const entry = headerBytes + n * entryBytes;
    numbers(entry, n + 1, 0, 1, namesAt, blockIds.length, 0);
    manifest.write(name, entry + nameAt, 'utf8');
    for (const id of blockIds) {
      manifest.write(id, namesAt, 'hex');
      namesAt += blockNameBytes;
    }
  });
  return manifest;
}
