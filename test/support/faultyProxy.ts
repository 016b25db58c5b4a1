import { createServer, request as send, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';

/** An answer that passes through a proxy and can be changed in place. */
export interface PassingAnswer {
  /** Path and query of the request. */
  url: string;
  /** The `range` header of the request. */
  range: string | undefined;
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Buffer;
  /** Bytes of the body to send before the connection is broken; undefined to send all. */
  breakAfter?: number;
  /** Send nothing at all, and keep the connection open. */
  silent?: boolean;
}

/** A proxy in front of a server, whose answers a test changes as another server or the network might. */
export class FaultyProxy {
  /** Changes each answer. */
  change: (answer: PassingAnswer) => void = () => undefined;
  readonly #server: Server;

  private constructor(target: string) {
    this.#server = createServer(
      (request, response) => void this.#pass(target, request, response).catch(() => response.destroy()),
    );
  }

  /** @param target origin of the server */
  static async start(target: string): Promise<FaultyProxy> {
    const proxy = new FaultyProxy(target);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get origin(): string {
    return `http://localhost:${(this.#server.address() as AddressInfo).port}`;
  }

  async #pass(target: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    // The host header is passed on unchanged, so that the server's links point to the proxy.
    const forwarded = send(`${target}${request.url ?? '/'}`, {
      method: request.method,
      headers: { ...request.headers, connection: 'close' },
    });
    request.pipe(forwarded);
    const [answer] = (await once(forwarded, 'response')) as [IncomingMessage];
    const passing: PassingAnswer = {
      url: request.url ?? '/',
      range: request.headers.range,
      status: answer.statusCode ?? 0,
      headers: { ...answer.headers },
      body: await buffer(answer),
    };
    const { length } = passing.body;
    this.change(passing);
    if (passing.silent === true) return;
    if (passing.body.length !== length) passing.headers['content-length'] = String(passing.body.length);
    delete passing.headers['transfer-encoding'];
    delete passing.headers['connection'];
    response.writeHead(passing.status, passing.headers);
    if (passing.breakAfter === undefined) response.end(passing.body);
    else response.write(passing.body.subarray(0, passing.breakAfter), () => response.destroy());
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
