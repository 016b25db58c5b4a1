/**
 * The protocol between a server and the iTwin.js service. The body of `POST /work` contains the length of the head (4
 * bytes, big-endian), the head as JSON, the model file and the changeset files. The answer is a stream of events, one
 * JSON line each. If the last event is a result, the bytes of the finished file follow it. `GET /health` returns
 * version and isolation level.
 */
import type { Readable } from 'node:stream';
import { Type, type Static } from '../../../jsonSchema.ts';
import { isolationLevels } from '../../../domain.ts';

export const workPath = '/work';
export const healthPath = '/health';
/** Maximum number of changesets in one request. */
const maxChangesets = 500;
/** Maximum size of the head: 500 changesets take about 200 bytes each. */
export const maxHeadBytes = 2 ** 20;
/** Maximum length of an event line. Reasons have at most 2,000 characters; details are truncated. */
export const maxLineBytes = 64 * 1024;
/** Interval of the service's heartbeats, milliseconds. */
export const heartbeatMs = 2000;
/** Each side closes the connection if no byte was transferred for this long, milliseconds. */
export const silenceTimeoutMs = 60_000;

const Bytes = Type.Integer({ minimum: 0, maximum: 2 ** 43 });
const ChangesetId = Type.String({ pattern: '^[0-9a-f]{40}$' });

/** The head of a request. Sizes are in bytes; changesets are in the order of their files. */
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

/** A line of the answer. An empty event is a heartbeat. */
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
  // The files cannot be processed.
  Type.Object(
    {
      fault: Text,
      kind: Type.Enum(['notAnIModel', 'briefcase', 'unreadable']),
      detail: Text,
      highestBriefcaseId: Briefcase,
    },
    { additionalProperties: false },
  ),
  // The process failed; `final` if another attempt would fail the same way.
  Type.Object({ failed: Text, final: Type.Boolean() }, { additionalProperties: false }),
]);
export type WorkEvent = Static<typeof WorkEvent>;

export const ServiceHealth = Type.Object({
  status: Type.Literal('ok'),
  iTwinJs: Type.String({ maxLength: 100 }),
  isolation: Type.Enum([...isolationLevels]),
});

/** The stream ended early, or a line in it is too long. */
export class IncompleteStreamError extends Error {
  constructor(what: string) {
    super(`the stream ${what}`);
    this.name = 'IncompleteStreamError';
  }
}

/** Reads a given number of bytes, or a line, from a stream. */
export class CountedReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  /** @param onChunk called whenever bytes arrive */
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

  /** Yields the next `bytes` bytes in chunks as they arrive. @throws IncompleteStreamError */
  async *pieces(bytes: number): AsyncGenerator<Buffer, void, void> {
    for (let left = bytes; left > 0;) {
      if (this.#rest.length === 0) this.#rest = await this.#next();
      const piece = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(piece.length);
      left -= piece.length;
      yield piece;
    }
  }

  /** The next line without its line break. @throws IncompleteStreamError */
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
