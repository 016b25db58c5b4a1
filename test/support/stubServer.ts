import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A stub of a foreign server, whose answers a test chooses; it records its requests. */
export class StubServer {
  /** Answers each request; by default 404. */
  answer: (request: IncomingMessage, response: ServerResponse) => void = (_request, response) =>
    void response.writeHead(404).end();
  readonly requests: { url: string; authorization: string | undefined }[] = [];
  readonly #server: Server;
  readonly #host: string;

  private constructor(host: string) {
    this.#host = host;
    this.#server = createServer((request, response) => {
      this.requests.push({ url: request.url ?? '', authorization: request.headers.authorization });
      response.on('error', () => undefined);
      this.answer(request, response);
    });
  }

  /** @param host local address to listen on */
  static async start(host = '127.0.0.1'): Promise<StubServer> {
    const server = new StubServer(host);
    server.#server.listen(0, host);
    await once(server.#server, 'listening');
    return server;
  }

  get origin(): string {
    return `http://${this.#host}:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
