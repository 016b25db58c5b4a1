/** Operations of SQLite's changeset format. */
const insert = 18;
const remove = 9;
const update = 23;
/** The mark of a table header in that format. */
const table = 0x54;
/** The table whose rows are elements; its first column is their id. */
const elementTable = 'bis_Element';
/** Longest record, bytes: SQLite's own limit for a row. */
const maxRecordBytes = 2 ** 30;

/** The record continues in bytes that have not arrived yet. */
class Incomplete extends Error {}
/** The bytes are not of the format. */
class Unreadable extends Error {}

/**
 * Finds the briefcases of the elements that a changeset inserts: iTwin.js builds element ids as `briefcaseId << 40 | n`. Reads
 * SQLite's changeset format piece by piece. If it finds something else, it stops and `readable` is false.
 */
export class InsertedElements {
  readonly #briefcases = new Set<number>();
  #pending: Buffer = Buffer.alloc(0);
  #at = 0;
  #columns = 0;
  #isElementTable = false;
  #readable = true;

  /** Whether everything up to now was understood. */
  get readable(): boolean {
    return this.#readable;
  }

  /** Briefcase parts of the ids of inserted elements. */
  get briefcases(): ReadonlySet<number> {
    return this.#briefcases;
  }

  push(piece: Uint8Array): void {
    if (!this.#readable) return;
    this.#pending = Buffer.concat([this.#pending, piece]);
    this.#at = 0;
    let whole = 0;
    try {
      while (this.#at < this.#pending.length) {
        this.#record();
        whole = this.#at;
      }
    } catch (error) {
      if (error instanceof Unreadable) this.#readable = false;
      else if (!(error instanceof Incomplete)) throw error;
    }
    this.#pending = this.#readable ? this.#pending.subarray(whole) : Buffer.alloc(0);
    if (this.#pending.length > maxRecordBytes) this.#readable = false;
  }

  #record(): void {
    const kind = this.#byte();
    if (kind === table) return this.#header();
    if (this.#columns === 0 || (kind !== insert && kind !== remove && kind !== update)) throw new Unreadable();
    this.#byte();
    const first = this.#row();
    if (kind === update) this.#row();
    else if (kind === insert && this.#isElementTable && first !== undefined) this.#briefcases.add(first);
  }

  /** Reads the number of columns, a byte for each column (whether it belongs to the primary key), and the zero-terminated name. */
  #header(): void {
    const columns = this.#varint();
    if (columns < 1 || columns > 32_767) throw new Unreadable();
    this.#skip(columns);
    const end = this.#pending.indexOf(0, this.#at);
    if (end < 0) throw new Incomplete();
    const name = this.#pending.toString('utf8', this.#at, end);
    this.#at = end + 1;
    this.#columns = columns;
    this.#isElementTable = name === elementTable;
  }

  /** Skips the values of a row. @returns the upper 24 bits of the first one, if it is an integer */
  #row(): number | undefined {
    let first: number | undefined;
    for (let column = 0; column < this.#columns; column++) {
      const type = this.#byte();
      // 0 absent, 1 integer, 2 real, 3 text, 4 blob, 5 null.
      if (type === 1 || type === 2) {
        const value = this.#at;
        this.#skip(8);
        if (type === 1 && column === 0) first = this.#pending.readUIntBE(value, 3);
      } else if (type === 3 || type === 4) this.#skip(this.#varint());
      else if (type !== 0 && type !== 5) throw new Unreadable();
    }
    return first;
  }

  #byte(): number {
    const byte = this.#pending[this.#at++];
    if (byte === undefined) throw new Incomplete();
    return byte;
  }

  #skip(bytes: number): void {
    this.#at += bytes;
    if (this.#at > this.#pending.length) throw new Incomplete();
  }

  /** Reads a varint: seven bits per byte, most significant first. Lengths have at most five bytes. */
  #varint(): number {
    let value = 0;
    for (let n = 0; n < 5; n++) {
      const byte = this.#byte();
      value = value * 128 + (byte & 0x7f);
      if (byte < 0x80) return value;
    }
    throw new Unreadable();
  }
}
