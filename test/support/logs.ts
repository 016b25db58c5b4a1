import type { TestContext } from 'node:test';
import { pino, type Logger } from 'pino';
import type { TestServer } from './server.ts';

/** Records what a server logs at level error from now until the end of a test. */
export function errorsLogged(t: TestContext, { running }: TestServer): { msg: string }[] {
  const lines: { msg: string }[] = [];
  const log = running.app.log as Logger;
  const { level } = log;
  log.level = 'error';
  t.after(() => (log.level = level));
  const stream = (log as unknown as Record<symbol, { write(line: string): void }>)[pino.symbols.streamSym] as {
    write(line: string): void;
  };
  t.mock.method(stream, 'write', (line: string) => void lines.push(JSON.parse(line) as { msg: string }));
  return lines;
}
