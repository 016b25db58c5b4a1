import type { Api } from '../installation.ts';
import type { LoadRequest } from '../load/connection.ts';

/** A request that clones an iModel under a new name each time. */
export function cloneRequest(api: Api, iModelId: string, iTwinId: string): LoadRequest {
  return {
    origin: api.origin,
    method: 'POST',
    path: `/imodels/${iModelId}/clone`,
    headers: api.jsonHeaders,
    body: JSON.stringify({ iTwinId, name: '{uuid}' }),
    status: 202,
  };
}
