import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { makeIModel, official, workFolder, type MadeIModel } from './support/clients.ts';
import { offshoot as run, type CommandResult } from './support/commands.ts';
import { bootServer, endServer, people, type TestServer } from './support/server.ts';

/** A command that is refused without asking any server: nothing listens at this address. */
const nowhere = ['--url', 'http://127.0.0.1:9', '--token', 'none'];

describe('The commands of resources', () => {
  let server: TestServer;
  let iTwinId: string;
  let made: MadeIModel;
  let connection: string[];
  const work = workFolder();

  before(async () => {
    server = await bootServer('sqlite', { checkpoints: { generate: 'elsewhere' } });
    iTwinId = await server.iTwin('olivia', 'Harbour');
    made = await makeIModel(await official(server), iTwinId, { changesets: 3, name: 'Plant' });
    connection = ['--url', server.origin, '--token', await server.token('olivia')];
  });
  after(async () => {
    work.remove();
    await endServer(server);
  });

  const call = (...args: string[]) => run([...args, ...connection], {}, { cwd: work.path });
  const succeeded = ({ code, stdout, stderr }: CommandResult) => {
    assert.equal(code, 0, stderr);
    return stdout;
  };
  const json = async <T>(...args: string[]) => JSON.parse(succeeded(await call(...args, '--json'))) as T;
  const table = async (...args: string[]) => succeeded(await call(...args));

  test('itwins: create, list, show and delete, by name', async () => {
    const created = await json<{ id: string; displayName: string; class: string }>(
      'itwins',
      'create',
      'Bridge',
      '--kind',
      'Asset',
    );
    assert.deepEqual([created.displayName, created.class], ['Bridge', 'Thing']);
    const [listed, shown, empty] = await Promise.all([
      json<{ id: string }[]>('itwins', '--search', 'Bri'),
      table('itwins', 'show', 'Bridge'),
      json<unknown[]>('itwins', 'list', '--search', 'nothing of that name'),
    ]);
    assert.deepEqual([listed.map(({ id }) => id), empty], [[created.id], []]);
    assert.match(shown, new RegExp(`^ID +${created.id}\nNAME +Bridge\nKIND +Asset\nSTATUS +Active\n`));
    const admin = ['--url', server.origin, '--token', await server.token('admin')];
    const unconfirmed = await run(['itwins', 'delete', created.id, ...admin]);
    assert.deepEqual([unconfirmed.code, unconfirmed.stderr.includes('give --yes')], [2, true]);
    const deleted = await run(['itwins', 'delete', 'Bridge', '--yes', '--json', ...admin]);
    assert.deepEqual(JSON.parse(succeeded(deleted)), { id: created.id, deleted: true });
  });

  test('imodels: create, show, download and delete, by name', async () => {
    const created = await json<{ id: string; name: string; state: string }>(
      'imodels',
      'create',
      'Pump',
      '--itwin',
      'Harbour',
    );
    assert.deepEqual([created.name, created.state], ['Pump', 'initialized']);
    assert.match(await table('imodels', 'show', 'Pump'), /^ID .*\nNAME +Pump\nDESCRIPTION +-\nSTATE +initialized\n/);
    const file = path.join(work.path, 'Pump.bim');
    const downloaded = await json<object>('imodels', 'download', 'Pump');
    const bytes = readFileSync(file);
    assert.deepEqual(downloaded, {
      iModelId: created.id,
      changesetIndex: 0,
      changesetId: null,
      file,
      size: bytes.length,
    });
    assert.equal(bytes.toString('latin1', 0, 15), 'SQLite format 3');
    const [again, without] = await Promise.all([
      call('imodels', 'download', 'Pump', '--output', file),
      call('imodels', 'download', 'Plant', '--changeset', '2'),
    ]);
    assert.deepEqual([again.code, again.stderr.includes('exists; give --force')], [2, true]);
    assert.deepEqual([without.code, without.stderr.includes('changeset 2 has no checkpoint yet')], [1, true]);
    assert.equal(existsSync(path.join(work.path, 'Plant.bim')), false);
    assert.deepEqual(await json('imodels', 'delete', 'Pump', '--yes'), { id: created.id, deleted: true });
  });

  test('changesets: list, show and download into a folder that import reads', async () => {
    const [listed, limited, shown] = await Promise.all([
      json<{ index: number; id: string }[]>('changesets', 'list', 'Plant'),
      call('changesets', 'Plant', '--limit', '1'),
      json<{ index: number; _links: object }>(
        'changesets',
        'show',
        'Plant',
        '--changeset',
        made.changesets[1]?.id ?? '',
      ),
    ]);
    assert.deepEqual(
      listed.map(({ index, id }) => [index, id]),
      made.changesets.map(({ index, id }) => [index, id]).reverse(),
    );
    assert.match(limited.stdout, /^INDEX {2}ID .*\n {4}3 {2}[0-9a-f]{40} /);
    assert.match(limited.stderr, /only the newest 1 are listed/);
    assert.equal(shown.index, 2);
    const folder = path.join(work.path, 'changesets');
    assert.deepEqual(await json('changesets', 'download', 'Plant', '--output', folder, '--after', '1'), {
      iModelId: made.id,
      folder,
      changesets: 2,
    });
    const entries = JSON.parse(readFileSync(path.join(folder, 'changesets.json'), 'utf8')) as {
      id: string;
      parentId: string;
      fileName: string;
    }[];
    assert.deepEqual(
      entries.map(({ id, parentId, fileName }) => [
        id,
        parentId,
        readFileSync(path.join(folder, fileName)).toString('hex'),
      ]),
      made.changesets.slice(1).map(({ id, parentId, bytes }) => [id, parentId, bytes.toString('hex')]),
    );
  });

  test('versions: create and list; a clone can end at a version, or at a time', async () => {
    const version = await json<{ id: string; changesetIndex: number }>(
      'versions',
      'create',
      'Plant',
      'Issued for review',
      '--changeset',
      '2',
    );
    assert.equal(version.changesetIndex, 2);
    assert.match(await table('versions', 'Plant'), /^CHANGESET {2}NAME .*\n {8}2 {2}Issued for review {2}/);
    const pushed = await json<{ index: number; pushDateTime: string }[]>('changesets', 'Plant');
    const first = pushed.find(({ index }) => index === 1)?.pushDateTime ?? '';
    const cloneAt = (name: string, ...args: string[]) =>
      json<{ clonedFrom: { changesetId: string } }>('clone', 'Plant', '--itwin', 'Harbour', '--name', name, ...args);
    const [toVersion, at] = await Promise.all([
      cloneAt('to a version', '--to-version', 'Issued for review'),
      cloneAt('at a time', '--at', first),
    ]);
    assert.deepEqual(
      [toVersion.clonedFrom.changesetId, at.clonedFrom.changesetId],
      [made.changesets[1]?.id, made.changesets[0]?.id],
    );
    const [early, unknown] = await Promise.all([
      call('clone', 'Plant', '--itwin', 'Harbour', '--name', 'too early', '--at', '2001-01-01'),
      call('clone', 'Plant', '--itwin', 'Harbour', '--name', 'unknown', '--to-version', 'Issued'),
    ]);
    assert.deepEqual([early.code, early.stderr.includes('no changeset was pushed at or before 2001-01-01')], [3, true]);
    assert.equal(unknown.code, 3);
    assert.match(
      unknown.stderr,
      /no named version that you can access is named 'Issued'. There are:\n .* Issued for review/,
    );
  });

  test('a new iModel without --itwin goes into the only iTwin, a clone into that of its source', async () => {
    const eve = ['--url', server.origin, '--token', await server.token('eve')];
    const none = await run(['imodels', 'create', 'first', ...eve]);
    assert.deepEqual([none.code, none.stderr.includes('you have no iTwin yet')], [3, true]);

    const only = await server.iTwin('eve', 'Only one');
    const created = succeeded(await run(['imodels', 'create', 'first', '--json', ...eve]));
    assert.equal((JSON.parse(created) as { iTwinId: string }).iTwinId, only);
    const sameName = await run(['clone', 'first', ...eve]);
    assert.deepEqual([sameName.code, sameName.stderr.includes('needs another name')], [2, true]);
    const cloned = succeeded(await run(['clone', 'first', '--name', 'second', '--json', ...eve]));
    const clone = JSON.parse(cloned) as { id: string };
    const shown = succeeded(await run(['imodels', 'show', clone.id, '--json', ...eve]));
    assert.equal((JSON.parse(shown) as { iTwinId: string }).iTwinId, only);

    const other = await server.iTwin('eve', 'Another one');
    const unclear = await run(['imodels', 'create', 'third', ...eve]);
    assert.equal(unclear.code, 2);
    for (const text of ['which iTwin is meant?', `Only one (${only})`, `Another one (${other})`])
      assert.ok(unclear.stderr.includes(text), unclear.stderr);
  });

  test('checkpoints: make and list, without access to their files', async () => {
    const scheduled = await json<{ state: string; changesetIndex: number }>(
      'checkpoints',
      'make',
      'Plant',
      '--changeset',
      '3',
      '--no-wait',
    );
    assert.deepEqual([scheduled.state, scheduled.changesetIndex], ['scheduled', 3]);
    await server.services.database.db
      .updateTable('checkpoint')
      .set({ state: 'failed', failure_reason: 'the file cannot be opened' })
      .where('changeset_index', '=', 3)
      .execute();
    const [listed, baseline, late] = await Promise.all([
      json<{ changesetIndex: number; state: string; failureReason: string | null; _links: unknown }[]>(
        'checkpoints',
        'Plant',
      ),
      table('checkpoints', 'make', 'Plant', '--changeset', '0'),
      call('checkpoints', 'make', 'Plant', '--changeset', '1', '--timeout', '0.3'),
    ]);
    const ofNewest = listed.find(({ changesetIndex }) => changesetIndex === 3);
    assert.deepEqual([ofNewest?.state, ofNewest?.failureReason], ['failed', 'the file cannot be opened']);
    assert.deepEqual(listed[0]?._links, { download: null });
    assert.match(baseline, /^CHANGESET +0\nSTATE +successful\nSIZE +1\.3 MiB\n/);
    assert.deepEqual([late.code, late.stderr.includes('is still being made')], [4, true]);
  });

  test('roles, members and users: who may do what, and who did', async () => {
    const early = await call('members', 'add', people.max.email, '--itwin', 'Harbour', '--role', 'Reviewers');
    assert.deepEqual([early.code, early.stderr.includes('has no roles yet')], [3, true], early.stderr);
    const role = await json<{ id: string; permissions: string[] }>(
      'roles',
      'create',
      'Reviewers',
      '--itwin',
      'Harbour',
      '--permission',
      'imodels_read,imodels_webview',
    );
    assert.deepEqual(role.permissions, ['imodels_read', 'imodels_webview']);
    const max = people.max.email;
    const added = await json<{ id: string; email: string }[]>(
      'members',
      'add',
      max,
      '--itwin',
      'Harbour',
      '--role',
      'Reviewers',
    );
    assert.deepEqual(
      added.map(({ email }) => email),
      [max],
    );
    const [roles, members, users, user] = await Promise.all([
      table('roles', '--itwin', 'Harbour'),
      table('members', '--itwin', 'Harbour'),
      json<{ email: string; statistics: { pushedChangesetsCount: number } }[]>('users', '--imodel', 'Plant'),
      table('users', 'show', people.olivia.email, '--imodel', 'Plant'),
    ]);
    assert.match(roles, new RegExp(`^ID +NAME +PERMISSIONS\n${role.id} +Reviewers +imodels_read, imodels_webview\n`));
    assert.match(members, new RegExp(`${added[0]?.id} +${max} +max Tester +Reviewers`));
    assert.deepEqual(
      users.map(({ email, statistics }) => [email, statistics.pushedChangesetsCount]),
      [[people.olivia.email, 3]],
    );
    assert.match(user, new RegExp(`E-MAIL +${people.olivia.email}\nNAME +olivia Tester\nPUSHED +3\n`));
    const [byEmail, byId, own] = await Promise.all([
      json<{ id: string }>('users', 'show', max.toUpperCase(), '--itwin', 'Harbour'),
      json<{ email: string; organizationName: string }>('users', 'show', added[0]?.id ?? ''),
      table('users', 'show', people.olivia.email),
    ]);
    assert.deepEqual([byEmail.id, byId.email, byId.organizationName], [added[0]?.id, max, 'Home']);
    assert.match(own, new RegExp(`^ID +${people.olivia.id}\nE-MAIL +${people.olivia.email}\nNAME +olivia Tester\n`));
    await json('roles', 'update', 'Reviewers', '--itwin', 'Harbour', '--name', 'Readers');
    await json('members', 'update', max, '--itwin', 'Harbour', '--role', 'Readers');
    assert.deepEqual(await json('members', 'remove', max, '--itwin', 'Harbour', '--yes'), {
      id: added[0]?.id,
      deleted: true,
    });
    assert.deepEqual(await json('roles', 'delete', 'Readers', '--itwin', 'Harbour', '--yes'), {
      id: role.id,
      deleted: true,
    });
  });

  test('shares, webhooks and usage: made, listed and removed', async () => {
    const share = await json<{ id: string; shareKey: string }>(
      'shares',
      'create',
      'Plant',
      '--name',
      'visitors',
      '--expires',
      '30d',
      '--permission',
      'imodels_webview',
    );
    assert.ok(share.shareKey.length > 20);
    assert.match(await table('shares', 'Plant'), new RegExp(`${share.id} +visitors +imodels_webview +20`));
    assert.deepEqual(await json('shares', 'revoke', 'Plant', 'visitors'), { id: share.id, deleted: true });

    const address = 'https://hooks.example.test/in';
    const webhook = await json<{ id: string; isActive: boolean; secret: string }>(
      'webhooks',
      'create',
      address,
      '--itwin',
      'Harbour',
      '--event',
      'iModels.iModelCreated.v1',
    );
    assert.deepEqual([webhook.isActive, webhook.secret.length >= 16], [true, true]);
    assert.equal(
      (await json<{ isActive: boolean }>('webhooks', 'disable', address, '--itwin', 'Harbour')).isActive,
      false,
    );
    assert.match(await table('webhooks', '--itwin', 'Harbour'), new RegExp(`${webhook.id} +${address} +no +iModels`));
    assert.deepEqual(await json('webhooks', 'missed', webhook.id, '--itwin', 'Harbour'), []);
    assert.deepEqual(await json('webhooks', 'delete', webhook.id, '--itwin', 'Harbour', '--yes'), {
      id: webhook.id,
      deleted: true,
    });

    const usage = await json<{ iTwin: { iModels: { used: number } } }>('usage', 'Harbour');
    assert.ok(usage.iTwin.iModels.used >= 1);
    assert.match(
      await table('usage', iTwinId),
      /^OF +WHAT +USED +LIMIT\niTwin +bytes +[\d.]+ (?:B|[KM]iB) +16\.0 TiB\n/,
    );
  });

  test('an ambiguous name is refused with the candidates, and --itwin decides', async () => {
    const other = await server.iTwin('olivia', 'Airport');
    const olivia = await official(server);
    const [one, two] = [
      await makeIModel(olivia, other, { name: 'Terminal' }),
      await makeIModel(olivia, iTwinId, { name: 'Terminal' }),
    ];
    const refused = await call('imodels', 'show', 'Terminal');
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /2 iModels are named 'Terminal'\. Give the id of one, or --itwin:/);
    for (const { id, iTwin } of [
      { id: one.id, iTwin: `'Airport' (${other})` },
      { id: two.id, iTwin: `'Harbour' (${iTwinId})` },
    ])
      assert.ok(refused.stderr.includes(`\n  ${id}  in iTwin ${iTwin}`), refused.stderr);
    const shown = await json<{ id: string }>('imodels', 'show', 'Terminal', '--itwin', 'Airport');
    assert.equal(shown.id, one.id);
    const unknown = await call('imodels', 'show', 'Plan');
    assert.deepEqual([unknown.code, unknown.stderr.includes(`${made.id}  Plant`)], [3, true]);
  });

  test('arguments are checked before any server is asked', async () => {
    const wrong = [
      ['clone', 'Plant', '--itwin', 'x', '--changeset', 'latest'],
      ['clone', 'Plant', '--itwin', 'x', '--changeset', '1', '--at', '2026-01-01'],
      ['clone', 'Plant', '--itwin', 'x', '--at', 'yesterday'],
      ['imodels', 'create', ' ', '--itwin', 'x'],
      ['imodels', 'create', 'name', '--itwin', 'x', '--at', '1d'],
      ['imodels', 'unknown'],
      ['itwins', 'create', 'x', '--kind', 'Boat'],
      ['changesets', 'Plant', '--limit', '-1'],
      ['checkpoints', 'make', 'Plant', '--timeout', 'long'],
      ['roles', 'create', 'x', '--itwin', 'x', '--permission', 'everything'],
      ['shares', 'create', 'Plant', '--name', 'x', '--expires', '2001-01-01'],
      ['webhooks', 'create', 'ftp://x', '--itwin', 'x', '--event', 'x'],
      ['members', 'add', 'max', '--itwin', 'x'],
    ];
    for (const args of wrong) {
      const { code, stdout, stderr } = await run([...args, ...nowhere]);
      assert.deepEqual([code, stdout], [2, ''], `${args.join(' ')}: ${stderr}`);
      assert.notEqual(stderr, '');
    }
  });

  test('the server is found by variables, or by the data folder, and --verbose says which and why', async () => {
    const { port } = new URL(server.origin);
    const token = { OFFSHOOT_TOKEN: await server.token('olivia') };
    const data = server.installation.dataDir;
    const said = async (env: NodeJS.ProcessEnv, ...args: string[]) => {
      const { code, stderr } = await run(['itwins', '--verbose', ...args], env);
      assert.equal(code, 0, stderr);
      return stderr;
    };
    assert.match(
      await said({ OFFSHOOT_URL: server.origin, ...token }),
      /server http:.*, from OFFSHOOT_URL\n.*OFFSHOOT_TOKEN/,
    );
    assert.match(
      await said({ OFFSHOOT_PORT: port, ...token }),
      new RegExp(`server http://localhost:${port}, from OFFSHOOT_PORT`),
    );
    for (const [env, args] of [
      [{}, ['--data', data]],
      [{ OFFSHOOT_DATA: data }, []],
    ] as const)
      assert.ok((await said(env, ...args)).includes(`the server that was last started on the data folder ${data}`));
    const typo = path.join(work.path, 'typo');
    const file = path.join(work.path, 'a file');
    const other = path.join(work.path, 'other');
    writeFileSync(file, '');
    mkdirSync(other);
    for (const [folder, reason] of [
      [typo, /the data folder .*typo does not exist/],
      [file, /the data folder .*a file is a file/],
      [other, /other is not the data folder of a server/],
    ] as const) {
      const { code, stderr } = await run(['itwins', '--data', folder]);
      assert.equal(code, 2);
      assert.match(stderr, reason);
    }
    assert.match((await run(['itwins'], { OFFSHOOT_PORT: 'http' })).stderr, /OFFSHOOT_PORT must be a port/);
  });
});

describe('The completion script', () => {
  const scripts = new Map<string, string>();
  const scriptOf = async (shell: string) => {
    const script = scripts.get(shell) ?? (await run(['completion', shell])).stdout;
    scripts.set(shell, script);
    return script;
  };
  const has = (shell: string) => spawnSync(shell, ['--version']).error === undefined;

  for (const shell of ['bash', 'zsh', 'fish'])
    test(`of ${shell} parses`, { skip: has(shell) ? false : `${shell} is not installed` }, async () => {
      const script = await scriptOf(shell);
      const work = workFolder();
      try {
        const file = path.join(work.path, 'script');
        writeFileSync(file, script);
        execFileSync(shell, ['-n', file]);
      } finally {
        work.remove();
      }
      for (const word of ['itwins', 'checkpoints', 'migrate-database']) assert.ok(script.includes(word));
    });

  test(
    'of bash offers commands, options and values',
    { skip: has('bash') ? false : 'bash is not installed' },
    async () => {
      const script = await scriptOf('bash');
      const offered = (...words: string[]) =>
        execFileSync(
          'bash',
          [
            '-c',
            `${script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _offshoot; printf '%s\\n' "\${COMPREPLY[@]}"`,
            'bash',
            ...words,
          ],
          { encoding: 'utf8' },
        )
          .trim()
          .split('\n');
      assert.deepEqual(offered('offshoot', 'imo'), ['imodels']);
      assert.deepEqual(offered('offshoot', 'imodels', ''), ['list', 'create', 'show', 'download', 'delete']);
      assert.deepEqual(offered('offshoot', 'imodels', 'create', 'x', '--tem'), ['--template']);
      assert.deepEqual(offered('offshoot', 'itwins', 'create', 'x', '--kind', 'A'), ['Asset']);
      assert.deepEqual(offered('offshoot', 'completion', ''), ['bash', 'zsh', 'fish']);
    },
  );
});
