/** Attacks on the terminal of a user who runs a command or watches the log, by names and errors that contain control sequences. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { EmbeddedIssuer } from '../../apps/server/src/access/embeddedIssuer.ts';
import { printable, printableLog } from '../../apps/server/src/terminal.ts';
import { Installation } from '../support/server.ts';

const cli = fileURLToPath(new URL('../../apps/server/src/cli.ts', import.meta.url));
/** Clear screen, set title, bell, backspace, one-byte control sequence introducer, change of text direction, conceal. */
const hostile = 'a\u001b[2J\u001b]0;owned\u0007\b\r\u009b31m\u202egnp.exe\u200b\u2028\u{e0041}z';
const unprintable = /[^\P{Cc}\n\t]|[\p{Cf}\p{Zl}\p{Zp}]/u;

function offshoot(...args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [cli, ...args], { timeout: 60_000 }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

test('command output contains no control characters of a foreign server, neither names nor errors, and JSON stays unchanged', async () => {
  let status = 200;
  const itwin = { id: randomUUID(), displayName: hostile, class: 'Endeavor', subClass: 'Project' };
  const imodel = {
    id: randomUUID(),
    name: hostile,
    displayName: hostile,
    state: 'initialized',
    lastChangesetPushDateTime: null,
    isSecured: false,
  };
  const server = createServer((_request, response) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    const lists = { iTwins: [itwin], iModels: [imodel], _links: { next: null } };
    response.end(
      JSON.stringify(
        status === 200
          ? lists
          : { error: { code: hostile, message: hostile, details: [{ message: hostile, target: hostile }] } },
      ),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    const listed = await offshoot('imodels', '--url', url, '--token', 'x');
    assert.equal(listed.code, 0, listed.stderr);
    assert.match(listed.stdout, /a\\u001b\[2J/);
    assert.doesNotMatch(listed.stdout, unprintable);
    const json = await offshoot('imodels', '--url', url, '--token', 'x', '--json');
    assert.doesNotMatch(json.stdout, unprintable);
    assert.ok(JSON.stringify(JSON.parse(json.stdout)).includes(JSON.stringify(hostile)));
    status = 403;
    const refused = await offshoot('imodels', '--url', url, '--token', 'x');
    assert.equal(refused.code, 3);
    assert.match(refused.stderr, /owned/);
    assert.doesNotMatch(refused.stderr, unprintable);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test('command output contains no control characters of its arguments and of a users file', async () => {
  const installation = await Installation.create('sqlite');
  await EmbeddedIssuer.open(installation.dataDir);
  try {
    for (const args of [
      ['token', '--data', installation.dataDir, '--user', hostile],
      ['imodels', '--url', hostile, '--token', 'x'],
      [hostile],
      ['audit', '--data', path.join(installation.dataDir, hostile)],
    ]) {
      const { code, stdout, stderr } = await offshoot(...args);
      assert.notEqual(code, 0);
      assert.match(stderr, /\\u001b/);
      assert.doesNotMatch(stdout + stderr, unprintable);
    }
  } finally {
    installation.remove();
  }
});

test('a log line contains only printable text, also after its JSON is parsed for display', () => {
  for (const text of [
    hostile,
    `\\${hostile}`,
    `\\\\${hostile}`,
    'C:\\bin\\name\\folder\\u001b',
    'two\nlines\tof "text"',
    'plain é 日本 😀',
  ]) {
    const line = `${JSON.stringify({ msg: text })}\n`;
    const clean = printableLog(line);
    assert.doesNotMatch(clean, unprintable);
    const { msg } = JSON.parse(clean) as { msg: string };
    assert.doesNotMatch(msg, unprintable);
    if (!unprintable.test(text)) assert.equal(msg, text);
  }
  assert.equal(printable('plain é 日本 😀\n\t'), 'plain é 日本 😀\n\t');
});
