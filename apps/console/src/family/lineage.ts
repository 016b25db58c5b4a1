import { queryOptions } from '@tanstack/react-query';
import { api } from '../api/client.ts';

/** An iModel of a family, as `GET …/lineage` answers it: parents come before children. */
export interface FamilyMember {
  id: string;
  displayName: string | null;
  iTwinId: string | null;
  parentId: string | null;
  relation: 'source' | 'clone' | 'fork' | 'template' | null;
  /** Last changeset of the parent that went into it. */
  changesetIndex: number | null;
  createdDateTime: string | null;
  headIndex: number | null;
  deleted: boolean;
  visible: boolean;
}

export interface Lineage {
  root: string;
  iModels: FamilyMember[];
  truncated: boolean;
}

export const lineageQuery = (iModelId: string) =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'lineage'],
    queryFn: async ({ signal }) =>
      (await api<{ lineage: Lineage }>(`/imodels/${iModelId}/lineage`, { signal })).lineage,
  });

/** A row of the tree that is shown. */
export interface Row {
  member: FamilyMember;
  /** From 0 for the root. */
  depth: number;
  position: number;
  siblings: number;
  hasChildren: boolean;
  collapsed: boolean;
  /** Whether this row and each of its ancestors, from the second level on, has a sibling further down: a line goes on there. */
  goesOn: boolean[];
}

/** The rows of a tree in their order, without those below collapsed ones. */
export function rowsOf(members: readonly FamilyMember[], collapsed: ReadonlySet<string>): Row[] {
  const known = new Set(members.map(({ id }) => id));
  const children = new Map<string, FamilyMember[]>();
  const roots: FamilyMember[] = [];
  for (const member of members) {
    if (member.parentId === null || !known.has(member.parentId)) roots.push(member);
    else children.set(member.parentId, [...(children.get(member.parentId) ?? []), member]);
  }
  const rows: Row[] = [];
  const next: Row[] = [];
  const push = (siblings: readonly FamilyMember[], above: Row | undefined) => {
    // The first one is taken first, so it is put last.
    for (let n = siblings.length - 1; n >= 0; n--) {
      const member = siblings[n] as FamilyMember;
      next.push({
        member,
        depth: above === undefined ? 0 : above.depth + 1,
        position: n + 1,
        siblings: siblings.length,
        hasChildren: children.has(member.id),
        collapsed: collapsed.has(member.id),
        goesOn: above === undefined ? [] : [...above.goesOn, n < siblings.length - 1],
      });
    }
  };
  push(roots, undefined);
  for (let row = next.pop(); row !== undefined; row = next.pop()) {
    rows.push(row);
    if (!row.collapsed) push(children.get(row.member.id) ?? [], row);
  }
  return rows;
}
