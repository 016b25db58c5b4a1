import { createHash, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { exportJWK, generateKeyPair, SignJWT, type CryptoKey, type JWTHeaderParameters } from 'jose';
import type { ConfigInput } from '../../apps/server/src/config.ts';

const audience = 'https://imodels.example';

/** An OpenID Connect issuer for tests. */
export interface OidcIssuer {
  url: string;
  /** As it appears in the configuration. */
  settings: NonNullable<ConfigInput['issuers']>[number];
  /** Requests that it received. */
  requests: string[];
  /** Answers 500 to every request while this is set. */
  broken: boolean;
  /** The claims of the person who signs in there with a browser, without being asked anything. */
  person: Record<string, unknown> | undefined;
  /** A token with these claims, valid for an hour. */
  token(claims: object, options?: { header?: Partial<JWTHeaderParameters>; key?: CryptoKey }): Promise<string>;
  close(): void;
}

/** Starts an issuer on a free port of this machine. */
export async function startOidcIssuer(): Promise<OidcIssuer> {
  const { privateKey, publicKey } = await generateKeyPair('ES256');
  const jwk = { ...(await exportJWK(publicKey)), kid: 'one' };
  const server = createServer((request, response) => {
    issuer.requests.push(request.url ?? '');
    response.setHeader('content-type', 'application/json');
    response.setHeader('access-control-allow-origin', '*');
    if (issuer.broken) response.writeHead(500).end('{}');
    else if (request.url === '/keys') response.end(JSON.stringify({ keys: [jwk] }));
    else if (request.url === '/.well-known/openid-configuration') response.end(JSON.stringify(discovery(issuer.url)));
    else void signIn(issuer, codes, request, response);
  });
  const codes = new Map<string, URLSearchParams>();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const issuer: OidcIssuer = {
    url,
    settings: {
      issuer: url,
      audience,
      algorithms: ['ES256'],
      organizationClaim: 'org',
      administratorClaim: 'org_admin',
    },
    requests: [],
    broken: false,
    person: undefined,
    token: (claims, { header = {}, key = privateKey } = {}) =>
      // The library's setters would refuse claims that no issuer should send.
      new SignJWT({
        iss: url,
        aud: audience,
        exp: Math.floor(Date.now() / 1000) + 3600,
        scope: 'openid itwin-platform',
        client_id: 'spa',
        ...claims,
      })
        .setProtectedHeader({ alg: 'ES256', kid: 'one', ...header })
        .sign(key),
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
  return issuer;
}

const discovery = (url: string): object => ({
  issuer: url,
  jwks_uri: `${url}/keys`,
  authorization_endpoint: `${url}/authorize`,
  token_endpoint: `${url}/token`,
});

/** Signs `person` in with an authorization code, whose request must prove that it knows the verifier of the code. */
async function signIn(
  issuer: OidcIssuer,
  codes: Map<string, URLSearchParams>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { pathname, searchParams } = new URL(request.url ?? '', issuer.url);
  if (issuer.person === undefined || !['/authorize', '/token'].includes(pathname)) {
    response.writeHead(404).end('{}');
    return;
  }
  if (pathname === '/authorize') {
    const code = randomUUID();
    codes.set(code, searchParams);
    const back = new URL(searchParams.get('redirect_uri') ?? '');
    back.searchParams.set('code', code);
    back.searchParams.set('state', searchParams.get('state') ?? '');
    response.writeHead(302, { location: back.href }).end();
    return;
  }
  const sent = new URLSearchParams(await text(request));
  const asked = codes.get(sent.get('code') ?? '');
  codes.delete(sent.get('code') ?? '');
  const proof = createHash('sha256')
    .update(sent.get('code_verifier') ?? '')
    .digest('base64url');
  if (asked?.get('code_challenge_method') !== 'S256' || asked.get('code_challenge') !== proof) {
    response.writeHead(400).end(JSON.stringify({ error: 'invalid_grant' }));
    return;
  }
  const clientId = asked.get('client_id') ?? '';
  response.end(
    JSON.stringify({
      token_type: 'Bearer',
      expires_in: 3600,
      scope: asked.get('scope'),
      access_token: await issuer.token({ ...issuer.person, client_id: clientId, scope: asked.get('scope') }),
      id_token: await issuer.token({ ...issuer.person, aud: clientId }),
    }),
  );
}
