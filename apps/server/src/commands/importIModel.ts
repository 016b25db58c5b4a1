import { openAsBlob } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { Connection } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
import { follow, type CreateOperation } from './follow.ts';
import { preparedAhead, type Prepared, type SourceChangeset } from './preparedAhead.ts';
import { progressBar } from './progress.ts';
import { countText } from '../terminal.ts';

/** Device name of the briefcases from which the importer pushes. */
const deviceName = 'offshoot import';

/** An iModel to import, in terms of the API. */
export interface Source {
  name: string;
  description: string | null;
  extent: object | null;
  /** Provides the baseline file and returns its path. */
  baseline(): Promise<string>;
  /** Ids of its changesets, in order. */
  ids: readonly string[];
  /** Lowest briefcase id that the new iModel may issue: above every briefcase id used in its contents. */
  minimumBriefcaseId: number;
  /** Changesets after an index, in order. */
  changesets(afterIndex: number): AsyncIterable<SourceChangeset>;
}

export interface Imported {
  id: string;
  created: boolean;
  pushed: number;
  changesets: number;
}

interface IModel {
  id: string;
  name: string;
  state: string;
  _links: { upload?: { href: string } | null; complete?: { href: string } | null };
}

/**
 * Imports an iModel through the API, like any application: creates it from its baseline, then pushes every changeset.
 * If the iTwin already has an iModel of that name whose changesets are the first ones of the source, the import resumes
 * after them.
 *
 * Each changeset keeps the briefcase that made it. The importer's own briefcase, and all that the new iModel issues
 * later, get higher ids, because iTwin.js builds element ids from briefcase ids.
 * @throws ExitError if the iModel of that name diverged from the source, if changesets are missing, or if the server
 * refuses a request
 */
export async function importIModel(
  connection: Connection,
  iTwinId: string,
  source: Source,
  show: boolean,
): Promise<Imported> {
  const found = await find(connection, iTwinId, source.name);
  if (found !== undefined && found.state !== 'initialized') await awaitBaseline(connection, found);
  const id = found?.id ?? (await create(connection, iTwinId, source));
  const bar = progressBar('pushing [{bar}] {value}/{total} changesets, {eta} s left', show);
  const there = found === undefined ? 0 : await countSame(connection, id, source);
  if (found !== undefined) await releaseLeftOvers(connection, id);
  let pushed = 0;
  let briefcaseId: number | undefined;
  bar?.start(source.ids.length, there);
  try {
    for await (const prepared of preparedAhead(source.changesets(there))) {
      briefcaseId ??= (
        (
          await connection.request('POST', `/imodels/${id}/briefcases`, {
            deviceName,
            minimumBriefcaseId: source.minimumBriefcaseId,
          })
        ).body as { briefcase: { briefcaseId: number } }
      ).briefcase.briefcaseId;
      await push(connection, id, briefcaseId, prepared);
      await prepared.changeset.pushed?.();
      pushed++;
      bar?.update(there + pushed);
    }
  } catch (error) {
    // Releasing the briefcase also abandons its unfinished push. The first error is the one to report.
    if (briefcaseId !== undefined)
      await connection.request('DELETE', `/imodels/${id}/briefcases/${briefcaseId}`).catch(() => undefined);
    throw error;
  } finally {
    bar?.stop();
  }
  if (briefcaseId !== undefined) await connection.request('DELETE', `/imodels/${id}/briefcases/${briefcaseId}`);
  if (there + pushed !== source.ids.length)
    throw new ExitError(
      exitCodes.failed,
      `only ${there + pushed} of ${countText(source.ids.length, 'changeset')} came; run the command again to go on`,
    );
  return { id, created: found === undefined, pushed, changesets: there + pushed };
}

/**
 * Releases the briefcases of interrupted runs: an unfinished push of theirs would block every other push until its
 * lease expires.
 */
async function releaseLeftOvers(connection: Connection, id: string): Promise<void> {
  const own = connection.list<{ briefcaseId: number; deviceName: string | null }>(
    `/imodels/${id}/briefcases?ownerId=me&$top=1000`,
    'briefcases',
  );
  for await (const briefcase of own)
    if (briefcase.deviceName === deviceName)
      await connection.request('DELETE', `/imodels/${id}/briefcases/${briefcase.briefcaseId}`);
}

async function find(connection: Connection, iTwinId: string, name: string): Promise<IModel | undefined> {
  const query = new URLSearchParams({ iTwinId, name });
  const { body } = await connection.request('GET', `/imodels?${query.toString()}`);
  return (body as { iModels: IModel[] }).iModels[0];
}

/** An earlier run was interrupted before the iModel was initialized: waits if its baseline was already uploaded. */
async function awaitBaseline(connection: Connection, { id, name }: IModel): Promise<void> {
  const operation = `/imodels/${id}/operations/create`;
  const { state } = ((await connection.request('GET', operation)).body as { createOperation: CreateOperation })
    .createOperation;
  if (state === 'scheduled' && (await follow(connection, operation, Infinity, false)).state === 'successful') return;
  throw new ExitError(
    exitCodes.failed,
    `an iModel '${name}' is there, but was never completed (${id}). Delete it, and begin again.`,
  );
}

async function create(connection: Connection, iTwinId: string, source: Source): Promise<string> {
  const file = await source.baseline();
  const { size } = await stat(file);
  const { name, description, extent } = source;
  const { body } = await connection.request('POST', '/imodels', {
    iTwinId,
    name,
    description,
    extent,
    creationMode: 'fromBaseline',
    baselineFile: { size },
  });
  const { iModel } = body as { iModel: IModel };
  await upload(iModel._links.upload?.href ?? '', file);
  await connection.request('POST', iModel._links.complete?.href ?? '', {});
  const operation = await follow(connection, `/imodels/${iModel.id}/operations/create`, Infinity, false);
  if (operation.state !== 'successful')
    throw new ExitError(exitCodes.failed, `the baseline was rejected: ${operation.failureReason ?? operation.state}`);
  return iModel.id;
}

/** The number of changesets of the iModel, each of which must be the one of the source. */
async function countSame(connection: Connection, id: string, source: Source): Promise<number> {
  let same = 0;
  for await (const changeset of connection.list<{ id: string }>(`/imodels/${id}/changesets?$top=1000`, 'changesets')) {
    if (source.ids[same] !== changeset.id)
      throw new ExitError(
        exitCodes.failed,
        `the iModel '${source.name}' (${id}) has changesets that the source has not: it went on by itself. Give the new one another --name.`,
      );
    same++;
  }
  return same;
}

async function push(
  connection: Connection,
  id: string,
  briefcaseId: number,
  { changeset, file, bytes }: Prepared,
): Promise<void> {
  const { parentId, description, containingChanges, synchronizationInfo, briefcaseId: recorded } = changeset;
  const { body } = await connection.request('POST', `/imodels/${id}/changesets`, {
    id: changeset.id,
    parentId,
    briefcaseId,
    ...(recorded !== null && { recordedBriefcaseId: recorded }),
    fileSize: changeset.fileSize,
    containingChanges,
    ...(description !== null && { description }),
    ...(synchronizationInfo !== null && { synchronizationInfo }),
  });
  const { _links, briefcaseId: kept } = (
    body as { changeset: { briefcaseId: number; _links: { upload: { href: string }; complete: { href: string } } } }
  ).changeset;
  if (recorded !== null && kept !== recorded)
    throw new ExitError(
      exitCodes.failed,
      'the server cannot keep the briefcases that made the changesets: it is older than this command',
    );
  await upload(_links.upload.href, file, bytes);
  await connection.request('PATCH', _links.complete.href, { state: 'fileUploaded', briefcaseId });
}

/**
 * Larger files are uploaded in blocks of this many bytes, as the API clients do: Azure limits the size of one request.
 */
const blockBytes = 256 * 1024 * 1024;

/** @param bytes the content of the file, if it is in memory */
async function upload(url: string, file: string, bytes?: Buffer<ArrayBuffer>): Promise<void> {
  const put = async (address: string, body: Blob | Buffer<ArrayBuffer> | string, type?: string): Promise<void> => {
    // Only whole blobs have a type; blocks have none.
    const headers = {
      'content-type': 'application/octet-stream',
      ...(type !== undefined && { 'x-ms-blob-type': type }),
    };
    let response: Response;
    try {
      response = await fetch(address, { method: 'PUT', headers, body });
    } catch (error) {
      throw new ExitError(
        exitCodes.unreachable,
        `the upload of ${file} broke off; run the command again to go on`,
        error,
      );
    }
    if (response.status !== 201)
      throw new ExitError(
        exitCodes.failed,
        `the upload of ${file} was answered ${response.status}: ${await response.text()}`,
      );
  };
  if (bytes !== undefined) return put(url, bytes, 'BlockBlob');
  const whole = await openAsBlob(file);
  if (whole.size <= blockBytes) return put(url, whole, 'BlockBlob');
  const ids: string[] = [];
  for (let start = 0; start < whole.size; start += blockBytes) {
    const id = Buffer.from(String(ids.length).padStart(6, '0')).toString('base64');
    await put(`${url}&comp=block&blockid=${encodeURIComponent(id)}`, whole.slice(start, start + blockBytes));
    ids.push(id);
  }
  await put(
    `${url}&comp=blocklist`,
    `<?xml version="1.0" encoding="utf-8"?><BlockList>${ids.map((id) => `<Latest>${id}</Latest>`).join('')}</BlockList>`,
  );
}
