/** A back end for viewers without iTwin.js, and what a server needs to pass calls to it. */
import assert from 'node:assert/strict';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ConfigInput } from '../../apps/server/src/config.ts';
import { makeIModel, official } from './clients.ts';
import type { TestServer } from './server.ts';
import type { Place } from './viewerCalls.ts';

/** A view back end whose answers a test writes. Each begins when the request has been read. */
export async function startBackend(
  answer: RequestListener,
): Promise<{ config: NonNullable<ConfigInput['viewer']>; close: () => void }> {
  const backend = createServer(
    (request, response) => void request.resume().once('end', () => answer(request, response)),
  );
  await new Promise<void>((listening) => backend.listen(0, '127.0.0.1', listening));
  const url = `http://127.0.0.1:${(backend.address() as AddressInfo).port}`;
  return {
    config: { enabled: true, service: { url, key: 'k'.repeat(32) } },
    close: () => {
      backend.close();
      backend.closeAllConnections();
    },
  };
}

/** A new iModel. Its baseline is its first checkpoint, so viewers may open it. */
export async function makeViewable(server: TestServer): Promise<Place & { baselineId: string }> {
  const iTwinId = await server.iTwin();
  const { id: iModelId } = await makeIModel(await official(server), iTwinId);
  const { baseline_id: baselineId } = await server.services.database.db
    .selectFrom('imodel')
    .select('baseline_id')
    .where('id', '=', iModelId)
    .executeTakeFirstOrThrow();
  assert.ok(baselineId !== null);
  return { iTwinId, iModelId, baselineId };
}
