import { administeredITwins, visibleIModels } from '../access/manyIModels.ts';
import type { IModelAccess, Permissions } from '../access/permissions.ts';
import type { Database } from '../db/database.ts';
import type { DerivationKind } from '../db/schema.ts';
import { ancestorIds, derivedFrom, familyOf, membersById, type FamilyMember } from '../db/statements/lineage.ts';
import type { Caller } from '../domain.ts';

/** Members of a family that are read and returned at most. */
export const maxFamily = 1000;

/** Generations below one iModel that are looked for in a family that is larger than that. */
const maxGenerations = 20;

/** A member of a family as one caller may see it. */
export interface LineageNode {
  /** Not the id of the iModel unless it is visible. */
  id: string;
  visible: boolean;
  displayName: string | null;
  iTwinId: string | null;
  parentId: string | null;
  /** Null if it is not visible. */
  relation: 'source' | DerivationKind | null;
  /** The last changeset that it inherited from its parent, whether or not the parent is shown. */
  changesetIndex: number | null;
  changesetId: string | null;
  createdAt: number | null;
  headIndex: number | null;
  deleted: boolean;
}

export interface Family {
  rootId: string;
  nodes: LineageNode[];
  /** There are further members, which were not looked at. */
  truncated: boolean;
}

/** From which iModels others were derived. */
export class Lineage {
  readonly #database: Database;
  readonly #permissions: Permissions;

  constructor(database: Database, permissions: Permissions) {
    this.#database = database;
    this.#permissions = permissions;
  }

  /** The family of an iModel: its ancestors, and everything that was derived from any of them, as far as the caller may see it. */
  async of(caller: Caller, { imodel }: IModelAccess): Promise<Family> {
    const { scans } = this.#database;
    const rootId = imodel.lineage_id ?? imodel.id;
    const all = await familyOf(scans, rootId, maxFamily);
    const truncated = all.length >= maxFamily;
    const members = truncated
      ? await nearest(this.#database, rootId, imodel.id)
      : [...(await membersById(scans, [...new Set([rootId, imodel.id])])), ...all];
    // The iModel itself was read with the access to it; it may have been deleted since.
    const byId = new Map(members.map((member) => [member.id, member]));
    const tree = treeWith(byId, imodel.id);
    const shown = await this.#shownTo(caller, tree, imodel.id);
    const nodes = nodesOf(connecting(tree, shown), shown);
    return { rootId: nodes[0]?.id ?? imodel.id, nodes, truncated };
  }

  /** The ids of what the caller may see: visible iModels, and deleted ones of iTwins that the caller administers. */
  async #shownTo(caller: Caller, members: readonly FamilyMember[], own: string): Promise<ReadonlySet<string>> {
    const { db } = this.#database;
    const withITwin = members.filter(hasITwin);
    const present = withITwin.filter((member) => member.deleted === 0);
    const deleted = withITwin.filter((member) => member.deleted !== 0);
    const visible = await visibleIModels(db, this.#permissions, caller, present);
    const administered = await administeredITwins(db, caller, [...new Set(deleted.map((member) => member.itwin_id))]);
    return new Set([
      own,
      ...visible,
      ...deleted.filter((member) => administered.has(member.itwin_id)).map(({ id }) => id),
    ]);
  }
}

type OfITwin = FamilyMember & { itwin_id: string };

function hasITwin(member: FamilyMember): member is OfITwin {
  return member.itwin_id !== null;
}

/**
 * The members of a large family that are nearest to an iModel: its ancestors, then what was derived from it, then the other iModels from
 * the first ancestor downwards. Each of them is connected to the iModel by others.
 */
async function nearest({ scans }: Database, rootId: string, iModelId: string): Promise<FamilyMember[]> {
  const found = new Map<string, FamilyMember>();
  for (const member of await membersById(scans, await ancestorIds(scans, iModelId, maxFamily)))
    found.set(member.id, member);
  for (const start of [iModelId, rootId]) {
    let generation = found.has(start) ? [start] : [];
    for (let depth = 0; depth < maxGenerations && generation.length > 0 && found.size < maxFamily; depth++) {
      const below = await derivedFrom(scans, rootId, generation, maxFamily);
      generation = below.map(({ id }) => id);
      for (const member of below) if (found.size < maxFamily) found.set(member.id, member);
      generation = generation.filter((id) => found.has(id));
    }
  }
  return [...found.values()];
}

/** The tree that contains an iModel: parents before children, and the children of one parent in the order of their creation. */
function treeWith(byId: ReadonlyMap<string, FamilyMember>, iModelId: string): FamilyMember[] {
  let top = byId.get(iModelId);
  for (let above = top; above !== undefined; above = byId.get(above.source_id ?? '')) top = above;
  if (top === undefined) return [];
  const children = childrenOf([...byId.values()]);
  for (const siblings of children.values())
    siblings.sort((a, b) => (a.created_at ?? 0) - (b.created_at ?? 0) || (a.id < b.id ? -1 : 1));
  const tree: FamilyMember[] = [];
  const next = [top];
  for (let member = next.pop(); member !== undefined; member = next.pop()) {
    tree.push(member);
    next.push(...[...(children.get(member.id) ?? [])].reverse());
  }
  return tree;
}

function childrenOf(members: readonly FamilyMember[]): Map<string, FamilyMember[]> {
  const children = new Map<string, FamilyMember[]>();
  for (const member of members) {
    const siblings = children.get(member.source_id ?? '');
    if (siblings === undefined) children.set(member.source_id ?? '', [member]);
    else siblings.push(member);
  }
  return children;
}

/**
 * The part of a tree that connects what is shown: without deleted and hidden iModels from which nothing shown was derived, and without
 * hidden ones above everything that is shown.
 */
function connecting(tree: readonly FamilyMember[], shown: ReadonlySet<string>): FamilyMember[] {
  const branches = new Map<string, number>();
  const wanted = new Set<string>();
  for (const member of [...tree].reverse()) {
    if ((member.deleted !== 0 || !shown.has(member.id)) && !branches.has(member.id)) continue;
    wanted.add(member.id);
    if (member.source_id !== null) branches.set(member.source_id, (branches.get(member.source_id) ?? 0) + 1);
  }
  const kept = tree.filter(({ id }) => wanted.has(id));
  const first = kept.findIndex(({ id }) => shown.has(id) || (branches.get(id) ?? 0) > 1);
  return kept.slice(Math.max(first, 0));
}

/** A hidden iModel gets a number instead of its id, and nothing else is said of it. */
function nodesOf(members: readonly FamilyMember[], shown: ReadonlySet<string>): LineageNode[] {
  const names = new Map(
    members.map(({ id }, position) => [id, shown.has(id) ? id : `hidden-${position + 1}`] as const),
  );
  return members.map((member) => {
    const visible = shown.has(member.id);
    return {
      id: names.get(member.id) ?? member.id,
      visible,
      displayName: visible ? member.name : null,
      iTwinId: visible ? member.itwin_id : null,
      parentId: names.get(member.source_id ?? '') ?? null,
      relation: visible ? (member.source_kind ?? 'source') : null,
      changesetIndex: visible ? numberOrNull(member.source_index) : null,
      changesetId: visible ? member.source_changeset_id : null,
      createdAt: visible ? numberOrNull(member.created_at) : null,
      headIndex: visible ? numberOrNull(member.head_index) : null,
      deleted: visible && member.deleted !== 0,
    };
  });
}

/** PostgreSQL returns some integers as text. */
function numberOrNull(value: number | null): number | null {
  return value === null ? null : Number(value);
}
