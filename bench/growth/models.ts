import { randomUUID } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { nobodysAccount } from '../../apps/server/src/quotas/accounts.ts';
import type { Bulk } from './bulk.ts';
import type { Content } from './data.ts';
import { changesetId, idOf } from './ids.ts';

/** Kind of the jobs that wait. */
export const jobKind = 'bench';
/** Bytes of each stored file. */
const fileBytes = 100;

/** The columns of a history that continues no other. */
const rootHistory = { first_index: 1, parent_id: null, depth: 0, jump_id: null, jump_first_index: null };

/** iModels that only managers may see, each with a history, and marked by one member. */
export async function addIModels(bulk: Bulk, { manyId, ownerId, baselineId }: Content, size: number): Promise<void> {
  const now = Date.now();
  // The history and the segment of an iModel have its id.
  await bulk.insert('segment', size, (n) => ({ id: idOf('iModel', n), owner_imodel_id: idOf('iModel', n) }));
  await bulk.insert('history', size, (n) => ({
    ...rootHistory,
    id: idOf('iModel', n),
    created_at: now,
    segment_id: idOf('iModel', n),
  }));
  await bulk.insert('imodel', size, (n) => ({
    id: idOf('iModel', n),
    itwin_id: manyId,
    name: `iModel ${n}`,
    name_order: `imodel ${n}`,
    search_text: `imodel ${n}`,
    description: null,
    extent: null,
    containers_enabled: 0,
    geographic_crs: null,
    state: 'initialized' as const,
    baseline_id: baselineId,
    history_id: idOf('iModel', n),
    head_index: 0,
    head_changeset_id: '',
    last_pushed_at: null,
    creator_id: ownerId,
    created_at: now,
    clock: now,
    next_briefcase_id: 2,
    inherited_index: 0,
    secured_by: 'users' as const,
    deleted_at: null,
    failed_at: null,
    lineage_id: null,
    source_id: null,
    source_kind: null,
    source_index: null,
    source_changeset_id: null,
    search_doc: null,
  }));
  // A user keeps at most 25 recents.
  for (const kind of ['favorite', 'recent'] as const)
    await bulk.insert('mark', kind === 'recent' ? 25 : size, (n) => ({
      user_id: idOf('user', 0),
      kind,
      subject: 'imodel' as const,
      subject_id: idOf('iModel', n),
      marked_at: now + n,
    }));
}

/** One iModel with many changesets, some with a file of their own, and with versions and locks. */
export async function addChangesets(
  bulk: Bulk,
  { largeId, ownerId, blobId, storeId }: Content,
  size: number,
  objects: string,
): Promise<void> {
  const now = Date.now();
  const [historyId, segmentId] = [randomUUID(), randomUUID()];
  const files = Math.floor(size / 10);
  for (let n = 0; n < files; n++) {
    const key = idOf('blob', n);
    const folder = path.join(objects, key.slice(0, 2));
    mkdirSync(folder, { recursive: true });
    writeFileSync(path.join(folder, key), Buffer.alloc(fileBytes));
  }
  await bulk.insert('blob', files, (n) => ({
    id: idOf('blob', n),
    store: storeId,
    key: idOf('blob', n),
    size: fileBytes,
    sha256: '0'.repeat(64),
    state: 'stored' as const,
    created_at: now - 86_400_000,
    released_at: null,
    ...nobodysAccount,
  }));
  await bulk.insert('segment', 1, () => ({ id: segmentId, owner_imodel_id: largeId }));
  await bulk.insert('history', 1, () => ({ ...rootHistory, id: historyId, created_at: now, segment_id: segmentId }));
  await bulk.insert('changeset', 10 * size, (n) => ({
    segment_id: segmentId,
    index: n + 1,
    id: changesetId(n + 1),
    parent_id: n === 0 ? '' : changesetId(n),
    blob_id: n < files ? idOf('blob', n) : blobId,
    file_size: fileBytes,
    description: null,
    containing_changes: 0,
    briefcase_id: 2,
    creator_id: n % 2 === 0 ? ownerId : idOf('user', n % size),
    pushed_at: now - 1000 * (10 * size - n),
    application_id: 'bench',
    application_name: 'Benchmark',
    synchronization_info: null,
  }));
  await bulk.insert('named_version', size, (n) => ({
    id: idOf('version', n),
    imodel_id: largeId,
    name: `version ${n}`,
    search_text: `version ${n}`,
    description: null,
    changeset_index: n + 1,
    changeset_id: changesetId(n + 1),
    state: 'visible' as const,
    creator_id: ownerId,
    application_id: 'bench',
    application_name: 'Benchmark',
    created_at: now + n,
  }));
  await bulk.insert('briefcase', 1, () => ({
    imodel_id: largeId,
    briefcase_id: 2,
    owner_id: ownerId,
    device_name: null,
    application_id: 'bench',
    application_name: 'Benchmark',
    acquired_at: now,
  }));
  await bulk.insert('object_lock', size, (n) => ({
    imodel_id: largeId,
    object_id: `0x${(n + 1).toString(16)}`,
    briefcase_id: 2,
    level: n % 3 === 0 ? ('exclusive' as const) : ('shared' as const),
  }));
  await bulk.update(
    'update imodel set history_id = ?, head_index = ?, head_changeset_id = ?, next_briefcase_id = 3 where id = ?',
    [historyId, 10 * size, changesetId(10 * size), largeId],
  );
}

/** Jobs that are due. */
export async function addJobs(bulk: Bulk, { manyId }: Content, count: number): Promise<void> {
  const now = Date.now();
  await bulk.insert('job', count, (n) => ({
    id: idOf('job', n),
    kind: jobKind,
    subject_id: idOf('iModel', n),
    tenant: manyId,
    user_id: idOf('user', n % 100),
    payload: '{}',
    state: 'ready' as const,
    run_at: now - 1000 + (n % 1000),
    attempt: 0,
    lease_owner: null,
    lease_until: null,
    wait_ms: 0,
    last_error: null,
    created_at: now,
    trace: null,
  }));
}
