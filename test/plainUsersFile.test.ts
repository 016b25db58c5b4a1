import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Directory } from '../apps/server/src/access/directory.ts';
import { plainUserOf } from '../apps/server/src/access/plainUsersFile.ts';

describe('The users file, read without a schema validator', () => {
  let folder: string;
  before(() => (folder = mkdtempSync(path.join(tmpdir(), 'offshoot-test-'))));
  after(() => rmSync(folder, { recursive: true, force: true }));

  const write = (data: unknown): void => writeFileSync(path.join(folder, 'users.json'), JSON.stringify(data));
  const fail = (message: string): void => {
    throw new Error(message);
  };
  const plain = (id: string, email: string) => ({ id, email, givenName: 'A', surname: 'B' });

  test('finds the first user, or one by id or e-mail, as the server does', () => {
    const users = [
      plain('1', 'One@example.com'),
      { ...plain('2', 'two@example.com'), organizationAdministrator: true },
    ];
    write({ organizations: [{ id: 'o', name: 'O' }], users, applications: [] });
    const directory = Directory.open(folder, fail);
    assert.deepEqual(plainUserOf(folder), users[0]);
    for (const wanted of ['1', '2', 'ONE@example.com', 'two@example.com', 'nobody'])
      assert.deepEqual(plainUserOf(folder, wanted), directory.findUser(wanted), wanted);
  });

  test('finds no user in a file that the server rejects', () => {
    const values = ['', 'x'.repeat(256), 1, null, true, 'yes', [], [1], undefined];
    const changed = {
      organizations: ['id', 'name'],
      users: ['id', 'surname', 'organizationId', 'organizationAdministrator', 'issuer'],
      applications: ['tier'],
    } as const;
    const rejected = new Set<string>();
    for (const list of ['organizations', 'users', 'applications'] as const)
      for (const property of changed[list])
        for (const value of values) {
          const data = {
            organizations: [{ id: 'o', name: 'O' }],
            users: [plain('1', 'a'), plain('2', 'b')],
            applications: [{ id: 'a', name: 'A', tier: 'T' }],
          };
          Object.assign(data[list][0] as object, { [property]: value });
          write(data);
          try {
            Directory.open(folder, fail);
          } catch {
            rejected.add(`${list} ${property}`);
            assert.equal(plainUserOf(folder), undefined, `${list} ${property} ${JSON.stringify(value)}`);
          }
        }
    assert.ok(rejected.has('organizations name') && rejected.has('users surname') && rejected.has('applications tier'));
    for (const users of [
      [plain('1', 'a'), plain('1', 'b')],
      [plain('1', 'a'), plain('2', 'A')],
    ]) {
      write({ organizations: [], users, applications: [] });
      assert.equal(plainUserOf(folder), undefined);
      assert.throws(() => Directory.open(folder, fail), /more than one/);
    }
  });
});
