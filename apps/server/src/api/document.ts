import swagger from '@fastify/swagger';
import Fastify from 'fastify';
import { Type } from '../jsonSchema.ts';
import { errorTable, type ErrorCode } from '../errors.ts';
import { version } from '../version.ts';
import { keyDescription } from './repeats.ts';
import { isPersonal, iTwinNotFoundOf, needsInitialized, validationErrorOf, type Access, type Route } from './route.ts';
import { ErrorSchema } from './schemas.ts';

/** Generates the OpenAPI document of the routes. It takes 0.1 s, and its packages as long to load, so it is made on request. */
export async function documentOfRoutes(routes: readonly Route[]): Promise<object> {
  const app = Fastify();
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Offshoot',
        version,
        description:
          'iModels API v2, iTwins and access control of this server. Files go through signed links, which are not part of this document.',
        license: { name: 'MIT' },
      },
      security: [{ bearer: [] }],
      components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } } },
    },
  });
  await app.register(async (api) => {
    for (const route of routes)
      api.route({
        method: route.method,
        url: route.path,
        schema: documentOf(route),
        validatorCompiler: () => () => true,
        serializerCompiler: () => (value) => JSON.stringify(value),
        handler: () => undefined,
      });
  });
  await app.ready();
  return app.swagger();
}

/** Every error that a route can return: those it declares and those that follow from its declaration. */
export function errorsOf(route: Route): ErrorCode[] {
  const codes = new Set<ErrorCode>([
    'BadRequest',
    'HeaderNotFound',
    'Unauthorized',
    'RateLimitExceeded',
    'RequestHeadersTooLarge',
    'Unavailable',
    ...(route.errors ?? []),
  ]);
  if (route.access.on === 'imodel') codes.add('iModelNotFound');
  if (needsInitialized(route.access)) codes.add('iModelNotInitialized');
  if (route.access.on === 'itwin') codes.add(iTwinNotFoundOf(route));
  if (route.access.on !== 'caller' && !(route.access.on === 'itwin' && route.access.permission === 'member'))
    codes.add('InsufficientPermissions');
  // Shares are refused here even if every user is permitted.
  if (route.method !== 'GET') codes.add('InsufficientPermissions');
  if (route.method === 'POST') codes.add('RequestInProgress');
  codes.add(validationErrorOf(route));
  if (route.body !== undefined || route.file !== undefined) codes.add('RequestTooLarge');
  if (route.body !== undefined && route.bodyOptional !== true) codes.add('MissingRequestBody');
  return [...codes];
}

function permissionText(access: Access): string {
  if (access.on === 'caller') return 'Permission: any valid token.';
  const also = access.on === 'imodel' && access.also !== undefined ? ` ${access.also}` : '';
  if (access.on === 'imodel')
    return `Permission: \`${access.permission}\` on the iModel${access.level === 'iTwin' ? "'s iTwin" : ''}.${also}${isPersonal(access) ? ' Not for holders of a share.' : ''}`;
  return access.permission === 'member'
    ? 'Permission: any role on the iTwin.'
    : `Permission: \`${access.permission}\` on the iTwin.`;
}

const retryAfter = {
  'Retry-After': { type: 'integer', description: 'Seconds to wait before the request is sent again.' },
};

/** The Fastify schema of a route, from which the API document is generated. */
function documentOf(route: Route) {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of errorsOf(route)) {
    const status = errorTable[code][0];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const headers = Object.fromEntries(
    Object.entries(route.response.headers ?? {}).map(([name, description]) => [name, { type: 'string', description }]),
  );
  const { binary, description, schema } = route.response;
  const success = {
    description,
    headers,
    ...(binary === undefined
      ? (schema ?? { type: 'null' })
      : { content: { [binary]: { schema: Type.String({ format: 'binary' }) } } }),
  };
  const params = [...route.path.matchAll(/:(\w+)/g)].map((match) => match[1] as string);
  return {
    operationId: route.operationId,
    summary: route.summary,
    description: [route.description, permissionText(route.access)].filter(Boolean).join('\n\n'),
    tags: [route.tag],
    security: [{ bearer: [] }],
    ...(params.length > 0 && { params: Type.Object(Object.fromEntries(params.map((name) => [name, Type.String()]))) }),
    ...(route.query !== undefined && { querystring: route.query }),
    ...(route.body !== undefined && { body: route.body }),
    ...(route.file !== undefined && {
      consumes: [...route.file.types],
      body: Type.String({ format: 'binary', description: `At most ${route.file.limit} bytes.` }),
    }),
    ...(route.method === 'POST' && {
      headers: Type.Object({
        'idempotency-key': Type.Optional(Type.String({ minLength: 1, maxLength: 255, description: keyDescription })),
      }),
    }),
    ...(route.prefer === true && {
      headers: Type.Object({
        prefer: Type.Optional(
          Type.String({
            enum: ['return=minimal', 'return=representation'],
            description: 'Short or full items; short by default.',
          }),
        ),
      }),
    }),
    response: {
      [route.response.status]: success,
      ...Object.fromEntries(
        [...byStatus].map(([status, codes]) => [
          status,
          {
            ...ErrorSchema,
            ...((status === 429 || status === 503) && { headers: retryAfter }),
            description: codes.map((code) => `\`${code}\`: ${errorTable[code][1]}`).join('\n\n'),
          },
        ]),
      ),
    },
  };
}
