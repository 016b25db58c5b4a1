/** One database of a container, with the names of its blocks in order. */
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
 * Writes the manifest of a Cloud Backed SQLite container, which lists its databases and their blocks. All numbers are
 * big-endian with 4 bytes. The header contains version, block size, number of databases, number of blocks to delete,
 * bytes of a block name, highest database id. An entry for each database contains id, parent, version, offset of its
 * block names, number of blocks, 0, and its name, padded with zeros to 128 bytes. The block names follow. Tests compare
 * the result byte by byte with manifests written by iTwin.js 5.1.9.
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
