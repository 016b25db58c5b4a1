import type { FastifyInstance } from 'fastify';
import { ApiError } from '../errors.ts';

/**
 * Paths of the platform that clients request but this server does not implement, with the error message of each.
 * Without these entries, `exports` would match the route of an iTwin id, and the error would say that the iTwin was not
 * found.
 */
export const absentAddresses: readonly { paths: readonly string[]; message: string }[] = [
  { paths: ['/itwins/exports', '/itwins/exports/*'], message: 'Exports of iTwins are not available on this server.' },
  {
    paths: ['/itwins/repositories', '/itwins/repositories/*'],
    message: 'Global repositories are not available on this server; iTwins have repositories of their own.',
  },
  {
    paths: [
      '/itwins/:iTwinId/repositories/:repositoryId/resources',
      '/itwins/:iTwinId/repositories/:repositoryId/resources/*',
    ],
    message: 'Resources of repositories and their graphics are not available on this server.',
  },
  {
    paths: ['/accesscontrol/itwins/:iTwinId/jobs', '/accesscontrol/itwins/:iTwinId/jobs/*'],
    message: 'Access control jobs are not available on this server; change members one request at a time.',
  },
  {
    paths: ['/accesscontrol/itwins/:iTwinId/shares', '/accesscontrol/itwins/:iTwinId/shares/*'],
    message: 'Shares of a whole iTwin are not available on this server; iModels can be shared one by one.',
  },
];

/** Answers these paths with 404 and the reason, for every method and before a body is read. */
export function registerAbsent(app: FastifyInstance): void {
  for (const { paths, message } of absentAddresses) {
    for (const url of paths) {
      app.route({
        method: ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'],
        url,
        onRequest: () => Promise.reject(new ApiError('NotFound', { message })),
        handler: () => undefined,
      });
    }
  }
}
