import { connect, type Socket } from 'node:net';

/** The answer so far, over one connection. */
export interface Received {
  /** 0 before the answer. */
  status: number;
  text: string;
  closed: boolean;
}

/** One request on its own connection that is sent in pieces, which no client library supports. */
export class RawRequest {
  readonly #socket: Socket;
  #text = '';
  #closed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (data) => (this.#text += data.toString('latin1')));
    socket.on('close', () => (this.#closed = true));
    // A connection that the server closes counts as closed, with or without an error.
    socket.on('error', () => undefined);
  }

  /** @param head request line and headers, each without its line ending */
  static async open(origin: string, head: readonly string[]): Promise<RawRequest> {
    const { port } = new URL(origin);
    const socket = connect(Number(port), '127.0.0.1');
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    const request = new RawRequest(socket);
    request.send(head.map((line) => `${line}\r\n`).join(''));
    return request;
  }

  send(bytes: string): void {
    if (this.#socket.writable) this.#socket.write(bytes);
  }

  get received(): Received {
    return { status: Number(/^HTTP\/1\.1 (\d{3})/.exec(this.#text)?.[1] ?? 0), text: this.#text, closed: this.#closed };
  }

  end(): void {
    this.#socket.destroy();
  }
}
