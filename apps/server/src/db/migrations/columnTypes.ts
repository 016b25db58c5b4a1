import type { Engine } from '../engine.ts';

/**
 * How columns and tables are declared. SQLite: STRICT tables; wide keys go WITHOUT ROWID, which stores each row once.
 * PostgreSQL: text in the "C" collation, so that both databases order and compare alike.
 */
export function columnTypes(engine: Engine): { text: string; int: string; strict: string; keyed: string } {
  return engine === 'postgres'
    ? { text: 'text collate "C"', int: 'bigint', strict: '', keyed: '' }
    : { text: 'text', int: 'integer', strict: 'strict', keyed: 'strict, without rowid' };
}
