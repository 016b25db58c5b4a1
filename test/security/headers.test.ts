import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { securityHeaders } from '../../apps/server/src/http/securityHeaders.ts';
import { chromium, chromiumFlags } from '../support/chromium.ts';
import { makeIModel, official, workFolder } from '../support/clients.ts';
import { downloadLink } from '../support/push.ts';
import { bootServer, endServer, type TestServer } from '../support/server.ts';

describe('The headers of every answer', () => {
  let server: TestServer;
  before(async () => {
    server = await bootServer('sqlite', { metrics: true });
  });
  after(() => endServer(server));

  /** Sends bytes unchanged. @returns the answer as text */
  function raw(text: string): Promise<string> {
    const { port } = new URL(server.origin);
    return new Promise((resolve, reject) => {
      const socket = connect(Number(port), '127.0.0.1');
      let received = '';
      socket.on('data', (data) => (received += data.toString()));
      socket.once('end', () => resolve(received));
      socket.once('error', reject);
      socket.write(text);
    });
  }

  test('forbid content sniffing, script execution and framing', async () => {
    const api = await server.as('olivia');
    const iTwinId = await server.iTwin();
    const { id } = await makeIModel(await official(server), iTwinId, { changesets: 1 });
    const link = await downloadLink(api, id);
    const answers: [what: string, status: number, answer: { status: number; headers: Headers }][] = [
      ['a list', 200, await api.get('/itwins')],
      ['a refusal without a token', 401, await fetch(`${server.origin}/itwins`)],
      ['nothing', 404, await api.get('/nothing')],
      ['a body that is no JSON', 422, await api.post('/itwins', '{', { 'content-type': 'application/json' })],
      ['a picture', 200, await api.get(`/imodels/${id}/thumbnail`)],
      ['a file', 200, await fetch(link)],
      ['a link that was changed', 403, await fetch(`${link}x`)],
      [
        'a preflight',
        204,
        await fetch(`${server.origin}/itwins`, {
          method: 'OPTIONS',
          headers: { origin: 'http://app.example', 'access-control-request-method': 'GET' },
        }),
      ],
      ['health', 200, await fetch(`${server.origin}/health`)],
      ['the document', 200, await fetch(`${server.origin}/openapi.json`)],
      ['a script of the page', 200, await fetch(`${server.origin}/docs/js/scalar.js`)],
      ['the way to the page', 302, await fetch(`${server.origin}/`, { redirect: 'manual' })],
      ['an address that cannot be decoded', 400, await fetch(`${server.origin}/imodels/%ff`)],
    ];
    for (const [what, status, { status: answered, headers }] of answers) {
      assert.equal(answered, status, what);
      for (const [name, value] of Object.entries(securityHeaders))
        assert.equal(headers.get(name), value, `${what}: ${name}`);
    }
  });

  test('forbid the same when the request could not be parsed, or none was expected', async () => {
    for (const text of [
      'no request\r\n\r\n',
      `GET / HTTP/1.1\r\nhost: x\r\nexpect: miracles\r\nconnection: close\r\n\r\n`,
      `GET / HTTP/1.1\r\nhost: x\r\nlong: ${'a'.repeat(20_000)}\r\n\r\n`,
    ]) {
      const answer = await raw(text);
      assert.match(answer, /^HTTP\/1\.1 4/);
      for (const [name, value] of Object.entries(securityHeaders))
        assert.ok(answer.toLowerCase().includes(`\r\n${name}: ${value}\r\n`.toLowerCase()), `${name} in ${answer}`);
    }
  });

  test('let the page of the API document load only from its own origin and run only its own scripts', async () => {
    const page = await fetch(`${server.origin}/docs/`);
    const policy = new Map(
      (page.headers.get('content-security-policy') ?? '')
        .split('; ')
        .map((part) => [part.split(' ')[0], part.split(' ').slice(1)]),
    );
    assert.deepEqual(policy.get('default-src'), ["'none'"]);
    assert.deepEqual(policy.get('frame-ancestors'), ["'none'"]);
    assert.match((policy.get('script-src') ?? []).join(' '), /^'self' 'sha256-[A-Za-z0-9+/]{43}='$/);
    assert.deepEqual(policy.get('connect-src'), ["'self'"]);
    assert.equal(page.headers.get('x-frame-options'), 'DENY');
    assert.equal(page.headers.get('x-content-type-options'), 'nosniff');
  });

  test(
    'leave the page of the API document working in a browser',
    { skip: chromium === undefined && 'there is no Chromium' },
    async () => {
      const folder = workFolder();
      // Virtual time in the page advances only while nothing loads, so slow and fast machines get equally far.
      const flags = [
        ...chromiumFlags,
        '--enable-logging=stderr',
        '--virtual-time-budget=15000',
        `--user-data-dir=${folder.path}`,
        '--dump-dom',
        `${server.origin}/docs/`,
      ];
      const browser = spawn(chromium as string, flags, { stdio: ['ignore', 'pipe', 'pipe'] });
      try {
        let [page, log] = ['', ''];
        browser.stdout.setEncoding('utf8').on('data', (text: string) => (page += text));
        browser.stderr.setEncoding('utf8').on('data', (text: string) => (log += text));
        await new Promise((resolve) => browser.once('close', resolve));
        assert.doesNotMatch(log, /Content Security Policy/);
        assert.ok(page.includes('Changesets'), log);
      } finally {
        browser.kill('SIGKILL');
        folder.remove();
      }
    },
  );
});
