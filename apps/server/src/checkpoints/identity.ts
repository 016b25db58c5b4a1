import { closeSync, openSync, readSync, writeSync } from 'node:fs';

/** The ids that are written over a model file when it is served. */
export interface Identity {
  iModelId: string;
  iTwinId: string;
}

/** Byte offsets of the two ids in a model file. Each id has 16 bytes. */
export interface IdentityOffsets {
  iModelIdOffset: number;
  iTwinIdOffset: number;
}

/** A GUID in the format of iModel files: its 32 hex digits in order, as 16 bytes. */
export function guidBytes(guid: string): Buffer {
  return Buffer.from(guid.replaceAll('-', ''), 'hex');
}

/**
 * Writes the ids over a range of a model file, in place.
 * @param start offset of the range in the file; it may contain an id completely, partly or not at all
 */
export function writeIdentity(piece: Buffer, start: number, offsets: IdentityOffsets, identity: Identity): void {
  overlay(piece, start, offsets.iModelIdOffset, guidBytes(identity.iModelId));
  overlay(piece, start, offsets.iTwinIdOffset, guidBytes(identity.iTwinId));
}

function overlay(piece: Buffer, start: number, offset: number, bytes: Buffer): void {
  const from = Math.max(start, offset);
  const to = Math.min(start + piece.length, offset + bytes.length);
  if (from < to) bytes.copy(piece, from - start, from - offset, to - offset);
}

/** Bytes that are searched at a time. */
const window = 8 * 1024 * 1024;

/**
 * Finds up to `most` offsets of a byte sequence in a file. Reads the file once and synchronously, for the worker
 * process.
 */
export function findInFile(file: string, wanted: Buffer, most = Infinity): number[] {
  const found: number[] = [];
  const fd = openSync(file, 'r');
  try {
    const buffer = Buffer.alloc(window + wanted.length - 1);
    for (let start = 0; ; start += window) {
      const length = readSync(fd, buffer, 0, buffer.length, start);
      const piece = buffer.subarray(0, length);
      for (let at = piece.indexOf(wanted); at >= 0 && at < window; at = piece.indexOf(wanted, at + 1)) {
        found.push(start + at);
        if (found.length >= most) return found;
      }
      if (length < buffer.length) return found;
    }
  } finally {
    closeSync(fd);
  }
}

export function writeAt(file: string, offset: number, bytes: Buffer): void {
  const fd = openSync(file, 'r+');
  try {
    writeSync(fd, bytes, 0, bytes.length, offset);
  } finally {
    closeSync(fd);
  }
}
