import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

/** A transaction on the wire: what the client sent in each round trip, as text. */
export type WireTransaction = readonly string[];

export interface RoundTripProxy {
  port: number;
  /** The transactions since the last call, in the order in which they ended. */
  take(): WireTransaction[];
  /** Everything since the last call that the client sent in one round trip, of all connections, in or outside of transactions. */
  takeRounds(): string[];
  stop(): Promise<void>;
}

/**
 * Starts a proxy before PostgreSQL that records transactions by round trip: one begins with what the client sends after an
 * answer. The texts of statements are visible only if they are not prepared (`databasePrepares: false`).
 */
export async function startRoundTripProxy(targetPort: number): Promise<RoundTripProxy> {
  const sockets = new Set<Socket>();
  const ended: WireTransaction[] = [];
  const all: { text: string }[] = [];
  const server = createServer((client) => {
    const upstream = connect(targetPort, '127.0.0.1');
    let rounds: string[] = [];
    let answered = true;
    let round = { text: '' };
    client.on('data', (chunk) => {
      const text = chunk.toString('latin1');
      if (text.includes('begin\0')) rounds = [''];
      else if (answered) rounds.push('');
      if (answered) all.push((round = { text: '' }));
      round.text += text;
      answered = false;
      rounds.push(`${rounds.pop() ?? ''}${text}`);
      if (text.includes('commit\0')) {
        ended.push(rounds);
        rounds = [];
      }
      upstream.write(chunk);
    });
    upstream.on('data', (chunk) => {
      answered = true;
      client.write(chunk);
    });
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    take: () => ended.splice(0),
    takeRounds: () => all.splice(0).map(({ text }) => text),
    async stop() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
