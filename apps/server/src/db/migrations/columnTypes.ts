import type { Engine } from '../engine.ts';

/**
 * Column types and table options. SQLite: STRICT tables; tables with wide keys are WITHOUT ROWID, which stores each row once.
 * PostgreSQL: text in the "C" collation, so that both databases sort and compare it in the same way.
 */
export function columnTypes(engine: Engine): { text: string; int: string; strict: string; keyed: string } {
  return engine === 'postgres'
    ? { text: 'text collate "C"', int: 'bigint', strict: '', keyed: '' }
    : { text: 'text', int: 'integer', strict: 'strict', keyed: 'strict, without rowid' };
}
