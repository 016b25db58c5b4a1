import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Directory, type DirectoryData, type DirectoryUser } from '../apps/server/src/access/directory.ts';

/** A slice of the contents has 65,536 characters, and an entry here more than 80. */
const [userCount, fewestTurns] = [8000, 9];

const user = (n: number): DirectoryUser => ({
  id: `user-${n}`,
  email: `user${n}@example.com`,
  givenName: 'Given',
  surname: `${n}`,
});
const contents: DirectoryData = {
  organizations: [{ id: 'one', name: 'One' }],
  users: Array.from({ length: userCount }, (_, n) => user(n)),
  applications: [{ id: 'tool', name: 'Tool', tier: 'Trial' }],
};

describe('A users file that is too large to be read at once', () => {
  let folder: string;
  let file: string;
  let directory: Directory;
  const faults: string[] = [];
  let changes = 0;

  const write = (text: string): void => {
    writeFileSync(file, text);
    // The file system may give changes that follow each other closely the same time.
    utimesSync(file, new Date(), new Date(Date.now() + 1000 * ++changes));
  };
  const inFile = (): DirectoryData => JSON.parse(readFileSync(file, 'utf8')) as DirectoryData;

  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'offshoot-test-'));
    file = path.join(folder, 'users.json');
    write(JSON.stringify(contents));
    directory = Directory.open(folder, (message) => faults.push(message));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  test('is used whole from the start', () => {
    assert.ok(statSync(file).size > 65_536 * fewestTurns);
    assert.deepEqual(directory.data, contents);
    for (const n of [0, userCount - 1]) {
      assert.deepEqual(directory.findUserById(`user-${n}`), user(n));
      assert.deepEqual(directory.findUserByEmail(`USER${n}@example.com`), user(n));
    }
    assert.equal(directory.organizationName('one'), 'One');
    assert.equal(directory.findApplication('tool')?.name, 'Tool');
  });

  test('leaves turns of the event loop to others while it is read, in which all of the previous contents apply', async () => {
    write(
      JSON.stringify({ ...contents, organizations: [{ id: 'one', name: 'Renamed' }], users: contents.users.slice(1) }),
    );
    let isRead = false;
    const reading = directory.refresh().then(() => (isRead = true));
    let turns = 0;
    const count = (): void => {
      if (isRead) return;
      turns++;
      const isPrevious = directory.findUserById('user-0') !== undefined;
      assert.equal(directory.organizationName('one'), isPrevious ? 'One' : 'Renamed');
      assert.equal(directory.data.users.length, isPrevious ? userCount : userCount - 1);
      setImmediate(count);
    };
    count();
    await reading;
    assert.ok(turns >= fewestTurns, `${turns} turns`);
    assert.equal(directory.findUserById('user-0'), undefined);
    assert.equal(directory.organizationName('one'), 'Renamed');
  });

  test('stays in force if it is replaced by one that cannot be used, which is reported once with the reason', async () => {
    for (const [text, reason] of [
      [
        JSON.stringify({ ...contents, users: [...contents.users, { ...user(1), id: 'other' }] }),
        /users\.json cannot be used: more than one user has the e-mail/,
      ],
      [
        JSON.stringify({ ...contents, users: [...contents.users, {}] }),
        /users\.json cannot be used: .*must have required property/,
      ],
      [JSON.stringify(contents).slice(0, -1), /JSON/],
    ] as const) {
      const inForce = directory.data;
      faults.length = 0;
      write(text);
      await directory.refresh();
      await directory.refresh();
      assert.equal(directory.data, inForce);
      assert.equal(faults.length, 1);
      assert.match(faults.join(), reason);
    }
    write(JSON.stringify(contents));
    await directory.refresh();
    assert.deepEqual(directory.data, contents);
  });

  test('loses none of several changes that are made at once, and refuses one that would make it invalid', async () => {
    const changed = { ...user(1), surname: 'Changed' };
    const outcomes = await Promise.allSettled([
      directory.saveUser(user(userCount)),
      directory.saveUser(changed),
      directory.saveUser({ ...user(2), email: user(3).email }),
      directory.removeUser('user-0'),
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['fulfilled', 'fulfilled', 'rejected', 'fulfilled'],
    );
    const users = [changed, ...contents.users.slice(2), user(userCount)];
    assert.deepEqual(inFile(), { ...contents, users });
    assert.deepEqual(directory.data, { ...contents, users });
  });
});
