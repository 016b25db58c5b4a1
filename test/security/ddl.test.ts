/** The schema statements of changesets: statements of iTwin.js are accepted, all others are refused before they are executed. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { checkDdl, ForbiddenDdlError } from '../../apps/server/src/checkpoints/itwinjs/ddl.ts';

/** From changesets that iTwin.js 5.1.9 pushed: imports of domain schemas, upgrades of older files. */
const real = JSON.parse(readFileSync(new URL('../fixtures/ddl/itwinjs-5.1.9.json', import.meta.url), 'utf8')) as Record<
  string,
  string
>;

/** Triggers and tables that the BIS and be_Db profiles create, as real files contain them. */
const profile = [
  'CREATE TRIGGER delete_embeddedFiles AFTER DELETE ON be_EmbedFile BEGIN DELETE FROM be_Prop WHERE Namespace="be_Db" AND NAME="EmbdBlob" AND Id=OLD.Id; END',
  "CREATE TRIGGER [bis_Element_CurrentTimeStamp] AFTER UPDATE ON [bis_Element] WHEN old.[LastMod]=new.[LastMod] AND old.[LastMod]!=julianday('now') BEGIN UPDATE [bis_Element] SET [LastMod]=julianday('now') WHERE [Id]=new.[Id]; END",
  'CREATE TRIGGER dgn_prjrange_del AFTER DELETE ON bis_GeometricElement3d BEGIN DELETE FROM dgn_SpatialIndex WHERE ElementId=old.ElementId;END',
  'CREATE TRIGGER dgn_rtree_upd AFTER UPDATE OF Origin_X,Yaw ON bis_GeometricElement3d WHEN new.Origin_X IS NOT NULL AND 1 = new.InSpatialIndex BEGIN INSERT OR REPLACE INTO dgn_SpatialIndex(ElementId,minx,maxx) SELECT new.ElementId,DGN_bbox_value(bb,0),DGN_bbox_value(bb,3) FROM (SELECT DGN_placement_aabb(DGN_placement(DGN_point(NEW.Origin_X,0,0),DGN_angles(NEW.Yaw,0,0),DGN_bbox(0,0,0,1,1,1))) AS bb);END',
  "CREATE TRIGGER dgn_fts_au AFTER UPDATE ON dgn_fts_content BEGIN INSERT INTO dgn_fts_idx(dgn_fts_idx,rowid,Text) VALUES('delete',old.rowid,old.Text); INSERT INTO dgn_fts_idx(rowid,Text) VALUES(new.rowid,new.Text); END;",
  "CREATE TABLE IF NOT EXISTS [main].[t]([Id] INTEGER PRIMARY KEY, [Name] VARCHAR(255) NOT NULL COLLATE NOCASE DEFAULT 'it''s', n REAL DEFAULT -1.5e3 CHECK (abs(n) < 10 OR n IN (1, 2)), FOREIGN KEY([Id]) REFERENCES [o]([Id]) ON DELETE CASCADE, UNIQUE([Id], \"Name\")) WITHOUT ROWID, STRICT",
  'ALTER TABLE [t] RENAME COLUMN a TO b; ALTER TABLE t DROP COLUMN [c]; ALTER TABLE t RENAME TO u;;DROP TRIGGER IF EXISTS [main].[x]; DROP TABLE [t] -- last\n',
  "CREATE INDEX i /* with a comment; and a quote ' in it */ ON t(lower(a) COLLATE NOCASE DESC) WHERE (a IS NOT NULL) AND (b=3)",
];

const hostile: Record<string, string> = {
  'another database': "ATTACH DATABASE 'offshoot.db' AS a",
  'another database behind harmless statements':
    "CREATE TABLE a(x); ATTACH 'offshoot.db' AS a; CREATE TABLE copied AS SELECT * FROM a.secret",
  'another database behind a comment': "/* CREATE TABLE */ ATTACH 'f' AS a",
  'another database in other case': "aTtAcH dAtAbAsE 'f' aS a",
  'a pragma': 'PRAGMA writable_schema = 1',
  'a table of a query': 'CREATE TABLE t AS SELECT * FROM be_Local',
  'a table of a query after columns': 'CREATE TABLE t(a) AS SELECT 1',
  'a temporary table': 'CREATE TEMP TABLE t(a)',
  'a table of another database': 'CREATE TABLE temp.t(a)',
  'a virtual table': 'CREATE VIRTUAL TABLE t USING fts5(a)',
  'a view': 'CREATE VIEW v AS SELECT 1',
  data: "INSERT INTO be_Prop VALUES ('a')",
  'an update': 'UPDATE be_Prop SET a = 1',
  'a deletion': 'DELETE FROM be_Prop',
  'a query': 'SELECT writefile(1, 2)',
  'an endless query': 'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT * FROM c',
  'a vacuum into a file': "VACUUM INTO 'f'",
  'a transaction': 'COMMIT',
  'a savepoint': 'RELEASE x',
  "a table of SQLite's own": 'DROP TABLE sqlite_master',
  "a quoted table of SQLite's own": 'DROP TABLE "main"."sqlite_stat1"',
  'a default that takes memory': 'CREATE TABLE t(a DEFAULT (zeroblob(1000000000)))',
  'a quoted function': 'CREATE TABLE t(a DEFAULT ("zeroblob"(1000000000)))',
  'a bracketed function': 'CREATE INDEX i ON t([randomblob](10))',
  'a function in a check': "CREATE TABLE t(a CHECK (load_extension('x')))",
  'a function in a generated column': 'CREATE TABLE t(a, b GENERATED ALWAYS AS (hex(zeroblob(a))))',
  'a function in an added column': 'ALTER TABLE t ADD COLUMN a DEFAULT (zeroblob(1000))',
  'a function after a comment': 'CREATE TABLE t(a DEFAULT (zeroblob/**/(1000)))',
  'a query in an index': 'CREATE INDEX i ON t(a) WHERE a IN (SELECT b FROM c)',
  'a function where columns are named': 'CREATE TABLE t(a, UNIQUE(zeroblob(5)))',
  'an endless trigger':
    'CREATE TRIGGER x AFTER INSERT ON t BEGIN WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) INSERT INTO t SELECT x FROM c; END',
  'an endless query in a trigger':
    'CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO t SELECT * FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c); END',
  'an endless query behind a byte order mark':
    'CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO t SELECT * FROM (\ufeffWITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c); END',
  'a pragma function in a trigger':
    'CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO t SELECT file FROM pragma_database_list; END',
  'a quoted pragma function in a trigger':
    'CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO t SELECT * FROM "pragma_database_list"; END',
  'a table-valued function in a trigger':
    'CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO t SELECT value FROM generate_series(1, 1000000000); END',
  'a large value in a trigger': 'CREATE TRIGGER x AFTER INSERT ON t BEGIN UPDATE t SET a = zeroblob(1000000000); END',
  'a pragma in a trigger': 'CREATE TRIGGER x AFTER INSERT ON t BEGIN PRAGMA writable_schema = 1; END',
  'a statement after a trigger': "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; END ATTACH 'f' AS a",
  'a temporary trigger': 'CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; END',
  'an endless quote': "CREATE TABLE t(a DEFAULT 'x",
  'a NUL': 'CREATE TABLE t(a)\0; ATTACH 1 AS a',
  'a parameter': 'CREATE TABLE t(a DEFAULT (?1))',
  'deep nesting': `CREATE INDEX i ON t(${'('.repeat(1000)}a${')'.repeat(1000)})`,
  'a statement that breaks off': 'CREATE TABLE',
  'a trigger that breaks off': 'CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t',
  'a reindex': 'REINDEX',
  'an analysis': 'ANALYZE',
};

describe('Schema statements in changesets', () => {
  for (const [name, text] of Object.entries(real))
    test(`are accepted as iTwin.js writes them: ${name}`, () => checkDdl(text));
  for (const text of profile)
    test(`are accepted as profiles of real files contain them: ${text.slice(0, 60)}`, () => checkDdl(text));
  for (const [name, text] of Object.entries(hostile))
    test(`are refused: ${name}`, () =>
      assert.throws(
        () => checkDdl(text),
        (error) =>
          error instanceof ForbiddenDdlError &&
          /^it holds .*, which no schema of an iModel needs$/s.test(error.message),
      ));

  test('are parsed in linear time', () => {
    for (const text of [
      'CREATE TABLE t(a);'.repeat(40_000),
      `CREATE TABLE t(${'a,'.repeat(500_000)}b)`,
      `CREATE TABLE t(a DEFAULT '${"''".repeat(1_000_000)}')`,
    ])
      checkDdl(text);
    assert.throws(() => checkDdl('CREATE TABLE t(a);'.repeat(60_000)), ForbiddenDdlError);
    assert.throws(() => checkDdl(' '.repeat(9 * 2 ** 20)), ForbiddenDdlError);
  });
});
