import { sql, type Kysely, type Migration } from 'kysely';

/** The declared properties of a JSON column that earlier versions stored unchecked; a nested object lists the properties of an object. */
type Declared = Readonly<Record<string, true | Readonly<Record<string, true>>>>;
const point = { latitude: true, longitude: true } as const;
const kept = [
  { table: 'imodel', column: 'extent', declared: { southWest: point, northEast: point } },
  {
    table: 'repository',
    column: 'authentication',
    declared: { type: true, key: true, value: true, username: true, password: true },
  },
] as const satisfies readonly { table: string; column: string; declared: Declared }[];

/** Number of rows read at a time: low, because each may contain a megabyte. */
const batch = 50;

/** Removes undeclared properties from stored JSON; otherwise lists would still return them, and clones would copy them. */
export function declaredPropertiesMigration(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const { table, column, declared } of kept) {
        let after = '';
        for (;;) {
          const { rows } = await sql<{
            id: string;
            json: string;
          }>`select id, ${sql.ref(column)} as json from ${sql.table(table)} where id > ${after} and ${sql.ref(column)} is not null order by id limit ${sql.lit(batch)}`.execute(
            db,
          );
          const last = rows.at(-1);
          if (last === undefined) break;
          after = last.id;
          for (const { id, json } of rows) {
            const clean = JSON.stringify(pick(JSON.parse(json) as Record<string, unknown>, declared));
            if (clean !== json)
              await sql`update ${sql.table(table)} set ${sql.ref(column)} = ${clean} where id = ${id}`.execute(db);
          }
        }
      }
    },
  };
}

function pick(value: Record<string, unknown>, declared: Declared): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name]) => Object.hasOwn(declared, name))
      .map(([name, inner]) => {
        const below = declared[name];
        return [
          name,
          typeof below === 'object' && typeof inner === 'object' && inner !== null
            ? pick(inner as Record<string, unknown>, below)
            : inner,
        ];
      }),
  );
}
