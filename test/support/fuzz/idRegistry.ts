import { randomUUID } from 'node:crypto';
import type { Operation } from './document.ts';
import type { Known } from './values.ts';

type Params = Record<string, string>;
interface Found {
  params: Params;
  /** Tenant whose users can probably access it. */
  tenant: string;
}

/** Number of latest ids of each kind that are kept. */
const mostKept = 100;

/**
 * The ids that a server has returned, each with the ids of its parents, as far as the document describes them: what a list or a
 * creation at `/imodels/{iModelId}/shares` returns fills in `/imodels/{iModelId}/shares/{shareId}`.
 */
export class IdRegistry {
  readonly #found = new Map<string, Found[]>();
  readonly #emails: readonly string[];

  constructor(emails: readonly string[]) {
    this.#emails = emails;
  }

  /** Extracts the ids from an answer. @param tenant of the caller @param templates all paths of the document */
  learn(tenant: string, operation: Operation, params: Params, body: unknown, templates: readonly string[]): void {
    const child = templates.find(
      (template) =>
        template.startsWith(`${operation.path}/{`) && !template.slice(operation.path.length + 1).includes('/'),
    );
    if (child === undefined || typeof body !== 'object' || body === null) return;
    const name = child.slice(operation.path.length + 2, -1);
    for (const value of Object.values(body))
      for (const item of Array.isArray(value) ? value : [value])
        this.#add(tenant, child, { ...params, [name]: (item as { id?: unknown } | null)?.id });
  }

  /** Removes what was deleted. */
  forget(template: string, params: Params): void {
    const text = JSON.stringify(params);
    this.#found.set(
      template,
      (this.#found.get(template) ?? []).filter((each) => JSON.stringify(each.params) !== text),
    );
  }

  #add(tenant: string, template: string, params: Record<string, unknown>): void {
    if (Object.values(params).some((value) => typeof value !== 'string' || value === '')) return;
    const text = JSON.stringify(params);
    const found = (this.#found.get(template) ?? []).filter(
      (each) => each.tenant !== tenant || JSON.stringify(each.params) !== text,
    );
    found.push({ params: params as Params, tenant });
    this.#found.set(template, found.slice(-mostKept));
  }

  /** Values for the parameters of a path that belong together, mostly of this tenant; for an unknown kind, a random id. */
  params(tenant: string, path: string, picks: readonly number[]): Params {
    const params: Params = {};
    for (const match of path.matchAll(/\/\{(\w+)\}/g)) {
      const name = match[1] as string;
      const templates = [path.slice(0, match.index + match[0].length), ...(aliases[name] ?? [])];
      params[name] =
        this.#choose(
          tenant,
          templates.flatMap((template) => this.#found.get(template) ?? []),
          params,
          picks[Object.keys(params).length] ?? 0,
        )?.[name] ?? randomUUID();
    }
    return params;
  }

  /** The id for a placeholder; mostly of the same iModel or iTwin as the path of the request. */
  value(tenant: string, { name, pick }: Known, params: Params): string | number {
    if (name === 'email') return this.#emails[pick % this.#emails.length] as string;
    const id =
      this.#choose(
        tenant,
        [...this.#found].flatMap(([template, found]) => (template.endsWith(`{${name}}`) ? found : [])),
        params,
        pick,
      )?.[name] ?? randomUUID();
    return name === 'briefcaseId' ? Number(id) || 2 : id;
  }

  #choose(tenant: string, all: readonly Found[], params: Params, pick: number): Params | undefined {
    const ids = Object.entries(params);
    const near = all.filter(
      (each) =>
        each.tenant === tenant &&
        ids.every(([key, value]) => each.params[key] === undefined || each.params[key] === value) &&
        (ids.length === 0 || ids.some(([key]) => key in each.params)),
    );
    const candidates = near.length > 0 && pick % 16 !== 0 ? near : all;
    return candidates[pick % (candidates.length || 1)]?.params;
  }
}

/** Other kinds under which ids of this kind are known. */
const aliases: Record<string, readonly string[]> = {
  iTwinId: ['/itwins/{iTwinId}'],
  iModelId: ['/imodels/{iModelId}'],
  roleId: ['/accesscontrol/itwins/{iTwinId}/roles/{roleId}'],
  userId: ['/accesscontrol/itwins/{iTwinId}/members/users/{userId}'],
  ownerId: ['/accesscontrol/itwins/{iTwinId}/members/users/{userId}'],
};
