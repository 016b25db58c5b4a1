import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { brotliDecompressSync } from 'node:zlib';
import { ConsoleServer } from '../support/console.ts';
import { bootServer, endServer, people } from '../support/server.ts';

/**
 * Largest sizes after compression, bytes. Measured on 2026-11-28: 273,000 for the first page, of which 28,000 are the largest
 * styles and 115,000 the largest script; 134,000 for the 3D view with three.js; 451,000 for all files of the console.
 */
const budgets = { firstPage: 330_000, styles: 45_000, chunk: 160_000, view: 180_000, total: 600_000 };

describe('The files of the console', () => {
  let console_: ConsoleServer;
  let origin: string;
  const get = (place: string, headers: Record<string, string> = {}): Promise<Response> =>
    fetch(`${origin}${place}`, { headers, redirect: 'manual' });
  const asBrowser = { accept: 'text/html,application/xhtml+xml' };

  before(async () => {
    console_ = await ConsoleServer.start();
    ({ origin } = console_.server);
  });
  after(() => console_.close());

  test('the address of the server leads browsers to the console, and programs to the document of the API', async () => {
    const locations = [
      (await get('/', asBrowser)).headers.get('location'),
      (await get('/')).headers.get('location'),
      (await get('/console')).headers.get('location'),
    ];
    assert.deepEqual(locations, ['console/', 'docs/', 'console/']);
  });

  test('every path of the console is the page, whose links lead to its files from any depth', async () => {
    for (const place of [
      '/console/',
      '/console/signin-callback?code=x',
      '/console/itwins/x',
      '/console/imodels/x/timeline',
    ]) {
      const answer = await get(place, asBrowser);
      assert.equal(answer.status, 200, place);
      assert.equal(answer.headers.get('cache-control'), 'no-cache');
      const html = await answer.text();
      const links = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, link]) => link ?? '');
      assert.ok(links.some((link) => link.endsWith('.js')));
      for (const link of links) {
        // Below the path of a proxy, as well.
        assert.match(new URL(link, `https://example.com/hub${place}`).pathname, /^\/hub\/console\//, link);
        assert.equal((await fetch(new URL(link, `${origin}${place}`))).status, 200, link);
      }
    }
  });

  test('its policy allows no inline script, no evaluation and no other host', async () => {
    const answer = await get('/console/', asBrowser);
    const policy = answer.headers.get('content-security-policy') ?? '';
    assert.match(policy, /default-src 'none'; script-src 'self'; style-src 'self';/);
    assert.match(policy, /connect-src 'self';/);
    assert.doesNotMatch(policy, /unsafe|https?:|\*/);
    assert.doesNotMatch(await answer.text(), /<style|<script(?! type="module" crossorigin src=)| style=| on\w+=/);
  });

  test('its files are compressed, and cached for good because their names change with them', async () => {
    const html = await (await get('/console/', asBrowser)).text();
    const script = /src="(\.\/assets\/[^"]+\.js)"/.exec(html)?.[1] ?? assert.fail('there is no script');
    const plain = await fetch(new URL(script, `${origin}/console/`), { headers: { 'accept-encoding': 'identity' } });
    const compressed = await fetch(new URL(script, `${origin}/console/`), {
      headers: { 'accept-encoding': 'gzip, br' },
    });
    assert.match(plain.headers.get('cache-control') ?? '', /max-age=31536000, immutable/);
    assert.match(plain.headers.get('content-type') ?? '', /^text\/javascript/);
    assert.equal(compressed.headers.get('content-encoding'), 'br');
    assert.equal(plain.headers.get('content-encoding'), null);
    assert.equal(await compressed.text(), await plain.text());
    const etag = plain.headers.get('etag') ?? '';
    assert.equal(
      (
        await fetch(new URL(script, `${origin}/console/`), {
          headers: { 'accept-encoding': 'identity', 'if-none-match': etag },
        })
      ).status,
      304,
    );
  });

  test('programs get an error for what is not there, and no path leads out of the folder', async () => {
    for (const place of ['/console/nothing', '/console/assets/nothing.js', '/console/assets/..%2f..%2findex.js'])
      assert.equal((await get(place)).status, 404, place);
    assert.equal((await get('/console/assets/nothing.js', asBrowser)).status, 404);
  });

  test('says where users sign in, that nobody has a password yet, and how often the console may clone', async () => {
    const settings = async () => (await (await get('/console.json')).json()) as Record<string, unknown>;
    const before_ = await settings();
    assert.equal(before_['needsFirstAccount'], true);
    await console_.server.services.accounts.setPassword(people.olivia.id, 'correct horse battery');
    const { authority, clientId, needsFirstAccount, address, limits } = await settings();
    assert.deepEqual(
      [authority, clientId, needsFirstAccount, address],
      [`${origin}/auth`, 'offshoot-console', false, origin],
    );
    assert.deepEqual((limits as Record<string, unknown>)['clone-imodel'], { requests: 20, seconds: 60 });
  });

  test('stay within their budget of bytes', async () => {
    const folder = console_.built;
    const size = (file: string): number => {
      const compressed = path.join(folder, `${file}.br`);
      return statSync(compressed, { throwIfNoEntry: false })?.size ?? statSync(path.join(folder, file)).size;
    };
    const html = readFileSync(path.join(folder, 'index.html'), 'utf8');
    const first = [...html.matchAll(/(?:src|href)="\.\/(assets\/[^"]+)"/g)].map(([, file]) => file ?? '');
    const sum = first.reduce((bytes, file) => bytes + size(file), 0);
    assert.ok(sum < budgets.firstPage, `the first page takes ${sum} bytes`);
    const names = readdirSync(path.join(folder, 'assets')).filter((name) => !/\.(?:br|gz)$/.test(name));
    const source = (name: string): string => readFileSync(path.join(folder, 'assets', name), 'utf8');
    const scripts = names.filter((name) => name.endsWith('.js'));
    // The library of the 3D view is in one file, which only the view loads, and only when it is opened.
    const library = scripts.filter((name) => source(name).includes('WebGLRenderer'));
    assert.equal(library.length, 1, library.join(', '));
    const [view = ''] = library;
    assert.ok(!first.includes(`assets/${view}`));
    const users = scripts.filter((name) => name !== view && source(name).includes(view));
    assert.deepEqual(
      users.map((name) => name.replace(/-.{8}\.js$/, '')),
      ['ViewPage'],
    );
    const loads = source(users[0] ?? '');
    assert.ok(['`', '"', "'"].some((quote) => loads.includes(`import(${quote}./${view}${quote})`)));
    for (const name of names) {
      const bytes = size(`assets/${name}`);
      const limit = name === view ? budgets.view : name.endsWith('.css') ? budgets.styles : budgets.chunk;
      assert.ok(bytes < limit, `${name} takes ${bytes} bytes`);
    }
    const total = names.reduce((bytes, name) => bytes + size(`assets/${name}`), 0);
    assert.ok(total < budgets.total, `all files take ${total} bytes`);
    assert.ok(brotliDecompressSync(readFileSync(path.join(folder, 'licences.md.br'))).includes('react'));
  });
});

test('a console that is not built says how to build it', async () => {
  const server = await bootServer('sqlite', {}, { consoleFolder: '/nothing' });
  try {
    const answer = await fetch(`${server.origin}/console/`, { headers: { accept: 'text/html' } });
    assert.equal(answer.status, 404);
    assert.match(await answer.text(), /npm run console/);
  } finally {
    await endServer(server);
  }
});

/** Settings of an issuer that have defaults, which types of a complete configuration do not know. */
const usual = {
  algorithms: ['RS256' as const],
  organizationClaim: 'org',
  administratorClaim: 'org_admin',
};

test('with an outside issuer, the console signs in there, and may reach it', async () => {
  const server = await bootServer('sqlite', {
    publicUrl: 'https://imodels.example.com/hub',
    issuers: [
      {
        ...usual,
        issuer: 'https://login.example.com/realms/plant',
        audience: 'offshoot',
        console: { clientId: 'offshoot-console', name: 'Plant works' },
      },
      { ...usual, issuer: 'https://other.example.com', audience: 'offshoot' },
    ],
  });
  try {
    const { issuers } = (await (await fetch(`${server.origin}/console.json`)).json()) as {
      issuers: { name: string; authority: string }[];
    };
    assert.deepEqual(
      issuers.map(({ name, authority }) => [name, authority]),
      [
        ['imodels.example.com', 'https://imodels.example.com/hub/auth'],
        ['Plant works', 'https://login.example.com/realms/plant'],
      ],
    );
    const page = await fetch(`${server.origin}/console/`, { headers: { accept: 'text/html' } });
    assert.match(
      page.headers.get('content-security-policy') ?? '',
      /connect-src 'self' https:\/\/login\.example\.com;/,
    );
  } finally {
    await endServer(server);
  }
});
