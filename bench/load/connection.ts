import { connect, type Socket } from 'node:net';

/** One request. `{uuid}` in the body is replaced by a new id each time. */
export interface LoadRequest {
  origin: string;
  method: string;
  path: string;
  headers?: Record<string, string>;
  body?: string;
  /** Sends this many bytes of arbitrary content instead of `body`. */
  bodyBytes?: number;
  status: number;
}

const answerWithinMs = 120_000;
const headEnd = Buffer.from('\r\n\r\n');
const lastChunk = '0\r\n\r\n';
const filling = Buffer.alloc(1024 * 1024, 'offshoot bench ');

interface Exchange {
  resolve: (answer: { status: number; body: Buffer }) => void;
  reject: (error: Error) => void;
  keepBody: boolean;
}

/**
 * A kept-alive HTTP/1.1 connection with one request at a time. It reads only the status and the length of an answer,
 * because `node:http` takes as much CPU time for a request as the servers under test.
 */
export class Connection {
  readonly #socket: Socket;
  #exchange: Exchange | undefined;
  #drained: () => void = () => undefined;
  #head: Buffer = Buffer.alloc(0);
  #status = 0;
  /** Bytes of the body still to come; undefined while the head is read, -1 for a chunked body. */
  #left: number | undefined;
  #body: Buffer[] = [];
  #bytes = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setTimeout(answerWithinMs, () => socket.destroy(new Error(`no answer within ${answerWithinMs} ms`)));
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', (error) => this.#fail(error));
    socket.on('drain', () => this.#drained());
    socket.on('close', () => this.#fail(new Error('the server closed the connection')));
  }

  static async open(origin: string): Promise<Connection> {
    const { hostname, port } = new URL(origin);
    const socket = connect({ host: hostname, port: Number(port) });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new Connection(socket);
  }

  /** Bytes received in bodies since the connection was opened. */
  get bytes(): number {
    return this.#bytes;
  }

  /** @param keepBody whether the caller needs the body of the answer */
  async send(head: string, body: Buffer | undefined, keepBody = false): Promise<{ status: number; body: Buffer }> {
    const answer = new Promise<{ status: number; body: Buffer }>((resolve, reject) => {
      this.#exchange = { resolve, reject, keepBody };
    });
    this.#socket.write(body === undefined ? head : Buffer.concat([Buffer.from(head, 'latin1'), body]));
    return answer;
  }

  /** Sends a request whose body consists of arbitrary bytes. */
  async sendBytes(head: string, size: number): Promise<{ status: number; body: Buffer }> {
    const answer = this.send(head, undefined);
    let failed = false;
    answer.catch(() => (failed = true));
    for (let sent = 0; sent < size && !failed;) {
      const piece = filling.subarray(0, Math.min(filling.length, size - sent));
      sent += piece.length;
      if (!this.#socket.write(piece)) await new Promise<void>((resolve) => (this.#drained = resolve));
    }
    return answer;
  }

  close(): void {
    this.#socket.destroy();
  }

  #fail(error: Error): void {
    this.#exchange?.reject(error);
    this.#exchange = undefined;
    this.#drained();
  }

  #read(chunk: Buffer): void {
    if (this.#left === undefined) {
      const head = this.#head.length === 0 ? chunk : Buffer.concat([this.#head, chunk]);
      const end = head.indexOf(headEnd);
      if (end < 0) {
        this.#head = head;
        return;
      }
      this.#head = Buffer.alloc(0);
      this.#begin(head.toString('latin1', 0, end));
      this.#take(head.subarray(end + headEnd.length));
    } else this.#take(chunk);
  }

  #begin(head: string): void {
    this.#status = Number(head.slice(9, 12));
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    const chunked = length === undefined && /\r\ntransfer-encoding: *chunked/i.test(head);
    this.#left = chunked ? -1 : Number(length ?? 0);
  }

  #take(chunk: Buffer): void {
    this.#bytes += chunk.length;
    const chunked = this.#left === -1;
    if (!chunked) this.#left = (this.#left ?? 0) - chunk.length;
    if (this.#exchange?.keepBody === true) this.#body.push(chunk);
    // One request at a time: nothing follows the last chunk.
    if (
      chunked ? chunk.toString('latin1', Math.max(0, chunk.length - lastChunk.length)) === lastChunk : this.#left === 0
    ) {
      const { resolve } = this.#exchange ?? {};
      const body = Buffer.concat(this.#body);
      this.#exchange = undefined;
      this.#left = undefined;
      this.#body = [];
      resolve?.({ status: this.#status, body });
    }
  }
}

/** The head of a request, ready to be written. */
export function headOf({ origin, method, path, headers = {} }: LoadRequest, length: number | undefined): string {
  const lines = Object.entries({
    host: new URL(origin).host,
    ...headers,
    ...(length !== undefined && { 'content-length': String(length) }),
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`;
}
