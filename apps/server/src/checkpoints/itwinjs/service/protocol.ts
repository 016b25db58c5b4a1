/**
 * What a server and the iTwin.js service say to each other. `POST /work` carries the length of a head (4 bytes,
 * big-endian), the head as JSON, the model file and the changeset files, one after the other. The answer is lines of
 * JSON as things happen; after the last one, if it is a result, come the bytes of the finished file. `GET /health`
 * tells version and isolation.
 */
import type { Readable } from 'node:stream';
import { Type, type Static } from 'typebox';
import { isolationLevels } from '../../../domain.ts';

export const workPath = '/work';
export const healthPath = '/health';
/** Changesets of one piece of work. */
const maxChangesets = 500;
/** Longest head: 500 changesets of about 200 bytes. */
export const maxHeadBytes = 2 ** 20;
/** Longest line of an answer: reasons have at most 2,000 characters, details are cut. */
export const maxLineBytes = 64 * 1024;
/** The service shows that it lives this often, milliseconds. */
export const heartbeatMs = 2000;
/** Either side gives up when nothing has passed for this long, milliseconds. */
export const silenceTimeoutMs = 60_000;

const Bytes = Type.Integer({ minimum: 0, maximum: 2 ** 43 });
const ChangesetId = Type.String({ pattern: '^[0-9a-f]{40}$' });

/** A piece of work; sizes in bytes, in the order of the files. */
export const WorkHead = Type.Object(
  {
    purpose: Type.Enum(['checkpoint', 'baseline']),
    countMissingGuids: Type.Boolean(),
    size: Bytes,
    changesets: Type.Array(
      Type.Object(
        {
          id: ChangesetId,
          parentId: Type.Union([ChangesetId, Type.Literal('')]),
          index: Type.Integer({ minimum: 1, maximum: 2 ** 31 }),
          schema: Type.Boolean(),
          size: Bytes,
        },
        { additionalProperties: false },
      ),
      { maxItems: maxChangesets },
    ),
  },
  { additionalProperties: false },
);
export type WorkHead = Static<typeof WorkHead>;

const Text = Type.String({ maxLength: maxLineBytes });
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const Briefcase = Type.Integer({ minimum: 0, maximum: 2 ** 24 });

/** A line of the answer. An empty one only shows that the service lives. */
export const WorkEvent = Type.Union([
  Type.Object({}, { additionalProperties: false }),
  Type.Object({ applied: Type.Integer({ minimum: 0, maximum: 2 ** 31 }) }, { additionalProperties: false }),
  Type.Object(
    {
      result: Type.Object(
        { iModelIdOffset: Count, iTwinIdOffset: Count, missingGuids: Count, highestBriefcaseId: Briefcase },
        { additionalProperties: false },
      ),
      size: Bytes,
    },
    { additionalProperties: false },
  ),
  // The files are at fault.
  Type.Object(
    {
      fault: Text,
      kind: Type.Enum(['notAnIModel', 'briefcase', 'unreadable']),
      detail: Text,
      highestBriefcaseId: Briefcase,
    },
    { additionalProperties: false },
  ),
  // The process is; `final` where another attempt would meet the same.
  Type.Object({ failed: Text, final: Type.Boolean() }, { additionalProperties: false }),
]);
export type WorkEvent = Static<typeof WorkEvent>;

export const ServiceHealth = Type.Object({
  status: Type.Literal('ok'),
  iTwinJs: Type.String({ maxLength: 100 }),
  isolation: Type.Enum([...isolationLevels]),
});

/** The stream ended before what was announced, or a line in it is too long. */
export class IncompleteStreamError extends Error {
  constructor(what: string) {
    super(`the stream ${what}`);
    this.name = 'IncompleteStreamError';
  }
}

/** Reads a stream by counted bytes and by lines. */
export class CountedReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  /** @param onChunk hears whenever bytes arrive */
  constructor(stream: Readable, onChunk: () => void = () => undefined) {
    this.#chunks = (async function* () {
      for await (const chunk of stream) {
        onChunk();
        yield chunk as Buffer;
      }
    })();
  }

  /** @throws IncompleteStreamError */
  async take(bytes: number): Promise<Buffer> {
    const taken: Buffer[] = [];
    for await (const piece of this.pieces(bytes)) taken.push(piece);
    return Buffer.concat(taken);
  }

  /** So many bytes, as they come. @throws IncompleteStreamError */
  async *pieces(bytes: number): AsyncGenerator<Buffer, void, void> {
    for (let left = bytes; left > 0;) {
      if (this.#rest.length === 0) this.#rest = await this.#next();
      const piece = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(piece.length);
      left -= piece.length;
      yield piece;
    }
  }

  /** The next line, without its end. @throws IncompleteStreamError */
  async line(): Promise<string> {
    for (let searched = 0; ;) {
      const end = this.#rest.indexOf(0x0a, searched);
      if (end >= 0) {
        const line = this.#rest.toString('utf8', 0, end);
        this.#rest = this.#rest.subarray(end + 1);
        return line;
      }
      searched = this.#rest.length;
      if (searched > maxLineBytes) throw new IncompleteStreamError('has a line that is too long');
      this.#rest = Buffer.concat([this.#rest, await this.#next()]);
    }
  }

  async #next(): Promise<Buffer> {
    const next = await this.#chunks.next();
    if (next.done === true) throw new IncompleteStreamError('ended early');
    return next.value;
  }
}
