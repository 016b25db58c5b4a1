import { randomBytes } from 'node:crypto';
import { createReadStream, createWriteStream, rmSync } from 'node:fs';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { alternate, compare, type Figure } from '../common.ts';
import type { LoadRequest } from '../load/connection.ts';
import type { Loaded } from '../load/jobs.ts';
import { startNginx } from './nginx.ts';
import type { Setting } from './peers.ts';

/** A plain file that nginx serves beside the checkpoint. */
const wholeFile = '/uploads/whole.bim';

interface Direction {
  what: string;
  connections: number;
  /** Requests to send in each round. */
  count: number;
  ours: () => Promise<LoadRequest[]>;
  theirs: (nginx: string) => LoadRequest[];
  /** Bytes of each request, if the body of the request and not that of the answer counts. */
  sent?: number;
  samples: [number[], number[]];
}

/** Files that clients download and upload, beside nginx. */
export async function compareFiles(setting: Setting): Promise<{ download: Figure; upload: Figure; others: Figure[] }> {
  const { scale, budget, load, installation, folder } = setting;
  const nginxFolder = path.join(folder, 'nginx');
  const store = path.join(installation.dataDir, 'blobs', 'objects');
  const nginx = await startNginx(nginxFolder, store);
  const directions = [downloads(setting, 1), uploads(setting)];
  if (!scale.quick) directions.push(downloads(setting, 8), ...checkpoints(setting));
  const measure = async (
    { connections, count, sent }: Direction,
    requests: LoadRequest[],
    samples: number[],
  ): Promise<void> => {
    const loaded: Loaded = await load.requests({ requests, connections, count });
    samples.push((sent === undefined ? loaded.bytes : sent * count) / 1e6 / loaded.seconds);
  };
  try {
    if (nginx !== null)
      for (const block of installation.content.checkpoint?.blockFiles ?? [])
        await pipeline(
          createReadStream(path.join(store, block)),
          createWriteStream(path.join(nginxFolder, wholeFile), { flags: 'a' }),
        );
    await alternate(budget, scale.rounds, budget.secondsLeft * 0.5, async () => {
      for (const direction of directions) {
        await measure(direction, await direction.ours(), direction.samples[0]);
        if (nginx !== null) await measure(direction, direction.theirs(nginx.origin), direction.samples[1]);
      }
    });
  } finally {
    await nginx?.stop();
    rmSync(nginxFolder, { recursive: true, force: true });
  }
  const [download, upload, ...others] = directions.map(({ what, samples: [ours, theirs] }) =>
    compare(what, 'MB/s', ours, 'nginx', nginx === null ? null : theirs),
  );
  return { download: download as Figure, upload: upload as Figure, others };
}

function toRequest(href: string, headers: Record<string, string> = {}): LoadRequest {
  const { origin, pathname, search } = new URL(href);
  return { origin, method: 'GET', path: `${pathname}${search}`, headers, status: 200 };
}

function downloads({ scale, installation, api }: Setting, connections: number): Direction {
  const { largeId, largeFile } = installation.content;
  return {
    what: `download of ${scale.megabytes} MB${connections === 1 ? '' : `, ${connections} at a time`}`,
    connections,
    count: connections,
    ours: async () => {
      const { changeset } = await api.json<{ changeset: { _links: { download: { href: string } } } }>(
        'GET',
        `/imodels/${largeId}/changesets/1`,
      );
      return [toRequest(changeset._links.download.href)];
    },
    theirs: (origin) => [{ origin, method: 'GET', path: `/${largeFile}`, status: 200 }],
    samples: [[], []],
  };
}

/** Each upload belongs to a push of a new clone, which has no other push in progress. */
function uploads({ scale, installation, api }: Setting): Direction {
  const size = scale.megabytes * 1_000_000;
  return {
    what: `upload of ${scale.megabytes} MB (Offshoot: hashed and synced)`,
    connections: 1,
    count: 1,
    sent: size,
    ours: async () => {
      const iModelId = await api.clone(installation.content.historyId, installation.iTwinId);
      const { changesets } = await api.json<{ changesets: { id: string }[] }>(
        'GET',
        `/imodels/${iModelId}/changesets?$orderBy=index%20desc&$top=1`,
      );
      const { changeset } = await api.json<{ changeset: { _links: { upload: { href: string } } } }>(
        'POST',
        `/imodels/${iModelId}/changesets`,
        {
          id: randomBytes(20).toString('hex'),
          parentId: changesets[0]?.id ?? '',
          briefcaseId: await api.briefcase(iModelId),
          fileSize: size,
        },
      );
      const headers = { 'x-ms-blob-type': 'BlockBlob', 'content-type': 'application/octet-stream' };
      const upload = toRequest(changeset._links.upload.href, headers);
      return [{ ...upload, method: 'PUT', bodyBytes: size, status: 201 }];
    },
    theirs: (origin) => [
      {
        origin,
        method: 'PUT',
        path: `/uploads/${randomBytes(8).toString('hex')}`,
        bodyBytes: size,
        status: 201,
      },
    ],
    samples: [[], []],
  };
}

/** Blocks of a container, as iTwin.js reads them, and the whole file with the ids of the iModel written over it. */
function checkpoints({ installation, api }: Setting): Direction[] {
  const { checkpoint } = installation.content;
  if (checkpoint === null) return [];
  const find = async () =>
    (
      await api.json<{
        checkpoint: {
          directoryAccessInfo: { baseUrl: string };
          containerAccessInfo: { account: string; container: string; sas: string };
          _links: { download: { href: string } };
        };
      }>('GET', `/imodels/${checkpoint.iModelId}/changesets/0/checkpoint`)
    ).checkpoint;
  const { blockIds, blockFiles } = checkpoint;
  const fromNginx = (origin: string): LoadRequest[] =>
    blockFiles.map((file) => ({ origin, method: 'GET', path: `/${file}`, status: 200 }));
  return [
    {
      what: 'blocks of a checkpoint container, 4 MiB, 4 at a time',
      connections: 4,
      count: blockIds.length * 4,
      ours: async () => {
        const { account, container, sas } = (await find()).containerAccessInfo;
        const base = account.startsWith('http') ? account : `${api.origin}/storage`;
        return blockIds.map((id) => toRequest(`${base}/${container}/${id}.bcv?${sas.replace(/^\?/, '')}`));
      },
      theirs: fromNginx,
      samples: [[], []],
    },
    {
      what: 'whole checkpoint file, ids of the iModel written over it',
      connections: 1,
      count: 4,
      ours: async () => [toRequest((await find())._links.download.href)],
      theirs: (origin) => [{ origin, method: 'GET', path: wholeFile, status: 200 }],
      samples: [[], []],
    },
  ];
}
