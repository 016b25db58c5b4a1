import type { TestContext } from 'node:test';
import { pino, type Logger } from 'pino';
import type { TestServer } from './server.ts';

/** A line of the log. */
export interface LogLine {
  msg: string;
  level: number;
  [field: string]: unknown;
}

/** Records what a server logs at level error from now until the end of a test. */
export function errorsLogged(t: TestContext, server: TestServer): LogLine[] {
  return linesLogged(t, server, 'error');
}

/** Records what a server logs at this level and above from now until the end of a test. */
export function linesLogged(t: TestContext, { running }: TestServer, from: 'info' | 'error'): LogLine[] {
  const lines: LogLine[] = [];
  const log = running.app.log as Logger;
  const { level } = log;
  log.level = from;
  t.after(() => (log.level = level));
  const stream = (log as unknown as Record<symbol, { write(line: string): void }>)[pino.symbols.streamSym] as {
    write(line: string): void;
  };
  t.mock.method(stream, 'write', (line: string) => void lines.push(JSON.parse(line) as LogLine));
  return lines;
}
