import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { IModelsClient as NewestClient } from 'imodels-client-management-next';
import { clientsOf, type Official } from '../../scripts/clients.ts';
import type { PersonName, TestServer } from './server.ts';

export type { Official };

/** The published client packages, with nothing changed but the address of the test server. */
export async function official(
  server: TestServer,
  who: PersonName = 'olivia',
  applicationId = 'suite',
): Promise<Official> {
  const token = await server.token(who, applicationId);
  return clientsOf(server.origin, token);
}

/** The newest published management client, which has calls that the pair above lacks. */
export async function newest(server: TestServer, who: PersonName = 'olivia') {
  const token = await server.token(who);
  const client = new NewestClient({ api: { baseUrl: `${server.origin}/imodels` } });
  return { client, authorization: async () => ({ scheme: 'Bearer', token }) };
}

/** An iModel made for a test. */
export interface MadeIModel {
  id: string;
  iTwinId: string;
  name: string;
  /** In order of index; the pushed bytes. */
  changesets: MadeChangeset[];
  briefcaseId: number;
}
export interface MadeChangeset {
  id: string;
  parentId: string;
  index: number;
  bytes: Buffer;
}

/** A temporary folder for files that a client uploads or downloads. */
export function workFolder(): { path: string; remove(): void } {
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-work-'));
  return { path: folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** The id of a changeset of these bytes in these tests: like the real one, a SHA-1 over parent and contents. */
export function changesetIdOf(parentId: string, bytes: Buffer): string {
  return createHash('sha1').update(parentId).update(bytes).digest('hex');
}

/** An empty iModel with changesets pushed through the official client. */
export async function makeIModel(
  { client, authorization }: Official,
  iTwinId: string,
  options: { changesets?: number; name?: string; description?: string; containersEnabled?: number } = {},
): Promise<MadeIModel> {
  const name = options.name ?? `iModel ${randomUUID()}`;
  const iModel = await client.iModels.createEmpty({
    authorization,
    iModelProperties: { iTwinId, name, ...(options.description !== undefined && { description: options.description }) },
  });
  const made: MadeIModel = { id: iModel.id, iTwinId, name, changesets: [], briefcaseId: 0 };
  if ((options.changesets ?? 0) > 0) await pushMore({ client, authorization }, made, options.changesets ?? 0);
  return made;
}

/** Pushes changesets of random bytes. */
export async function pushMore({ client, authorization }: Official, made: MadeIModel, count: number): Promise<void> {
  if (made.briefcaseId === 0)
    made.briefcaseId = (await client.briefcases.acquire({ authorization, iModelId: made.id })).briefcaseId;
  const work = workFolder();
  try {
    for (let n = 0; n < count; n++) {
      const parentId = made.changesets.at(-1)?.id ?? '';
      const bytes = randomBytes(200 + (n % 7) * 31);
      const id = changesetIdOf(parentId, bytes);
      const filePath = path.join(work.path, `${id}.cs`);
      writeFileSync(filePath, bytes);
      const pushed = await client.changesets.create({
        authorization,
        iModelId: made.id,
        changesetProperties: { id, parentId, briefcaseId: made.briefcaseId, filePath },
      });
      made.changesets.push({ id, parentId, index: pushed.index, bytes });
    }
  } finally {
    work.remove();
  }
}

/** Collects everything that an async iterator yields. */
export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const taken: T[] = [];
  for await (const item of items) taken.push(item);
  return taken;
}
