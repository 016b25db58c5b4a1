import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs, { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { mock, test } from 'node:test';
import { downloadFile } from '../apps/server/src/commands/download.ts';
import { anywhere } from '../apps/server/src/http/outbound.ts';
import { until } from './support/until.ts';

test('a resumed download is isolated from writes that the previous attempt still makes to the file', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-download-'));
  const content = randomBytes(1000);
  let requests = 0;
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-length': content.length, etag: '"1"' });
    if (requests++ > 0) response.end(content);
    else response.write(content.subarray(0, 500), () => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  // The disk takes long to open the file of the first attempt; opening truncates it.
  const { open } = fs;
  let opened = 0;
  let openedLate = 0;
  const slow = mock.method(fs, 'open', ((...args: Parameters<typeof open>) => {
    if (opened++ > 0) return open(...args);
    setTimeout(() => {
      const done = args.pop() as (error: Error | null, fd: number) => void;
      (open as (...all: unknown[]) => void)(...args, (error: Error | null, fd: number) => {
        done(error, fd);
        openedLate++;
      });
    }, 500);
  }) as typeof open);
  try {
    const target = path.join(folder, 'file');
    await downloadFile(
      { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, size: content.length, what: 'the file' },
      target,
      { silenceMs: 10_000, outlet: anywhere },
    );
    await until('the late opening', () => (openedLate > 0 ? true : undefined));
    assert.ok(readFileSync(target).equals(content));
    assert.equal(requests, 2);
  } finally {
    slow.mock.restore();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
