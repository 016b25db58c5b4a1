import type { FastifyInstance, FastifyRequest } from 'fastify';
import { signInBase, signInPath, SignInRefusedError } from '../access/signInIssuer.ts';
import type { Config } from '../config.ts';
import type { Services } from '../services.ts';
import type { ViewerPage } from '../http/viewerPage.ts';
import { consoleClient } from '../signIn/clients.ts';
import { version } from '../version.ts';
import { baseUrlOf } from './baseUrl.ts';

/** Where users of the console sign in. */
interface ConsoleIssuer {
  name: string;
  authority: string;
  clientId: string;
  scope: string;
}

/** How a front end reaches the back end of the viewer: what it takes as `backendConfiguration`. */
const viewerBackend = { path: '/viewer/rpc', title: 'offshoot', version: '1' } as const;

/** Operations whose rate limits the console tells before they are used. */
const limited = ['clone-imodel', 'fork-imodel', 'create-imodel', 'make-changeset-checkpoint'] as const;

/** The origins of the outside issuers at which users of the console sign in. */
export function issuerOrigins({ issuers }: Pick<Config, 'issuers'>): string[] {
  return [
    ...new Set(
      issuers.flatMap(({ issuer, console: client }) => (client === undefined ? [] : [new URL(issuer).origin])),
    ),
  ];
}

/** `/console.json`: what the console needs before anybody has signed in. */
export function serveConsoleSettings(app: FastifyInstance, services: Services, viewerPage: ViewerPage): void {
  const { config } = services;
  app.get('/console.json', async (request, reply) => {
    const address = addressOf(request, config);
    const own = await embeddedIssuer(services, address);
    const issuers = [...(own.issuer === undefined ? [] : [own.issuer]), ...outsideIssuers(config)];
    const [first] = issuers;
    return reply.header('cache-control', 'no-cache').send({
      version,
      address,
      authority: first?.authority ?? null,
      clientId: first?.clientId ?? null,
      scope: first?.scope ?? null,
      issuers,
      refused: own.refused,
      needsFirstAccount: own.needsFirstAccount,
      limits: limitsOf(services),
      guide: '/docs/guide/',
      document: '/docs/',
      viewer: config.viewer.enabled ? { page: await viewerPage.isThere(), ...viewerBackend } : null,
    });
  });
}

function addressOf(request: FastifyRequest, config: Config): string {
  const requested = baseUrlOf(request, config);
  try {
    return signInBase(config, requested);
  } catch (error) {
    if (error instanceof SignInRefusedError) return requested;
    throw error;
  }
}

async function embeddedIssuer(
  { config, accounts }: Services,
  address: string,
): Promise<{ issuer: ConsoleIssuer | undefined; refused: string | null; needsFirstAccount: boolean }> {
  if (!config.embeddedIssuer) return { issuer: undefined, refused: null, needsFirstAccount: false };
  try {
    const base = signInBase(config, address);
    return {
      issuer: {
        name: new URL(base).host,
        authority: `${base}${signInPath}`,
        clientId: consoleClient,
        scope: scopeOf(config),
      },
      refused: null,
      needsFirstAccount: !(await accounts.hasPasswords()),
    };
  } catch (error) {
    if (error instanceof SignInRefusedError)
      return { issuer: undefined, refused: error.message, needsFirstAccount: false };
    throw error;
  }
}

function outsideIssuers(config: Config): ConsoleIssuer[] {
  return config.issuers.flatMap(({ issuer, console: client }) =>
    client === undefined
      ? []
      : [
          {
            name: client.name ?? new URL(issuer).host,
            authority: issuer,
            clientId: client.clientId,
            scope: client.scope ?? scopeOf(config),
          },
        ],
  );
}

function scopeOf({ requiredScope }: Pick<Config, 'requiredScope'>): string {
  return ['openid', 'profile', 'email', 'offline_access', ...(requiredScope === null ? [] : [requiredScope])].join(' ');
}

/** The rate limits of the console, by operation. With an outside issuer, roles can give a user another tier. */
function limitsOf({ config, directory }: Services): Record<string, { requests: number; seconds: number }> {
  const tier = config.tiers[directory.findApplication(consoleClient)?.tier ?? config.defaultTier];
  return Object.fromEntries(
    limited.flatMap((operation) => {
      const window = tier?.operations[operation];
      return window === undefined ? [] : [[operation, { requests: window.requests, seconds: window.seconds }]];
    }),
  );
}
