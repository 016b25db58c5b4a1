/** Kinds of changes, by the bit flag of the API. */
const flags = {
  schema: 1,
  definition: 2,
  spatialData: 4,
  sheetsAndDrawings: 8,
  viewsAndModels: 16,
  globalProperties: 32,
  schemaSync: 64,
} as const;
type ChangeKind = keyof typeof flags;

export function kindsOf(containingChanges: number): ChangeKind[] {
  return (Object.keys(flags) as ChangeKind[]).filter((kind) => (containingChanges & flags[kind]) !== 0);
}
