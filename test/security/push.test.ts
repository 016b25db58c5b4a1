/** Attacks with a pushed changeset that is refused before it becomes part of a history. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ChangesetFileError, ChangesetIdComputer } from '../../apps/server/src/changesets/changesetId.ts';
import type { WireError } from '../support/api.ts';
import { changesetFile, pushFile, realIdOf } from '../support/changesetFile.ts';
import { makeIModel } from '../support/clients.ts';
import { onEachStore } from '../support/suite.ts';

onEachStore('A push of a changeset', {}, (context) => {
  /** Pushes a changeset with a prefix and no changes to a new iModel. @returns the answer to its completion */
  async function push(prefix: string) {
    const { olivia, iTwinId, api } = context;
    const { id: iModelId } = await makeIModel(olivia, iTwinId);
    const { briefcaseId } = await olivia.client.briefcases.acquire({ authorization: olivia.authorization, iModelId });
    const [changes, start] = [Buffer.alloc(0), Buffer.from(`${prefix}\0`)];
    const completed = await pushFile(api, iModelId, briefcaseId, {
      id: realIdOf('', changes, start),
      parentId: '',
      bytes: changesetFile(changes, start),
    });
    const { body } = await api.get(`/imodels/${iModelId}/changesets`);
    return { ...completed, pushed: (body as { changesets: unknown[] }).changesets.length };
  }
  const withDdl = (ddl: string): string => JSON.stringify({ ContainsSchemaChanges: true, DDL: ddl });

  test('with the statements of a schema change is accepted', async () => {
    const { status, pushed } = await push(
      withDdl('CREATE TABLE [t]([Id] INTEGER PRIMARY KEY);CREATE INDEX [i] ON [t]([Id])'),
    );
    assert.deepEqual([status, pushed], [200, 1]);
  });

  test('with any other SQL is refused, and none of it is kept', async () => {
    for (const ddl of [
      "ATTACH DATABASE '../../offshoot.db' AS server",
      'CREATE TABLE copied AS SELECT * FROM be_Local',
      "CREATE TABLE a(x); VACUUM INTO 'copy.db'",
      'PRAGMA writable_schema = 1',
    ]) {
      const { status, body, pushed } = await push(withDdl(ddl));
      const { error } = body as WireError;
      assert.deepEqual([status, error.code, pushed], [409, 'DataConflict', 0], ddl);
      assert.match(error.message, /it holds .*, which no schema of an iModel needs/, ddl);
    }
  });

  test('with a prefix that is no description of schema changes is left to the check before it is applied', async () => {
    for (const prefix of ['no JSON', '[]', 'null', '{"DDL":1}', '{}'])
      assert.equal((await push(prefix)).status, 200, prefix);
  });
});

describe('The parser of changesets', () => {
  test('stops at a prefix longer than any schema needs, before allocating its memory', () => {
    const computer = new ChangesetIdComputer('');
    const file = changesetFile(Buffer.alloc(0));
    // The length of the prefix: its four bytes follow the header, the size of the dictionary and the head of the first chunk.
    file.writeUInt32BE(33 * 2 ** 20, 26);
    assert.throws(
      () => computer.update(file),
      (error) => error instanceof ChangesetFileError && error.message.includes('too long'),
    );
  });

  test('accepts a prefix in any chunks', () => {
    const prefix = Buffer.from(`{"ContainsSchemaChanges":true,"DDL":"${'CREATE TABLE t(a);'.repeat(20_000)}"}\0`);
    const file = changesetFile(Buffer.from('changes'), prefix);
    for (const pieceBytes of [999, 70_000, file.length]) {
      let read = '';
      const computer = new ChangesetIdComputer('', { onPrefix: (bytes) => void (read += bytes.toString()) });
      for (let start = 0; start < file.length; start += pieceBytes)
        computer.update(file.subarray(start, start + pieceBytes));
      assert.equal(computer.digest(), realIdOf('', Buffer.from('changes'), prefix));
      assert.equal(`${read}\0`, prefix.toString());
    }
  });
});
