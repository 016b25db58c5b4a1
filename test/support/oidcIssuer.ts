import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
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
    if (issuer.broken) response.writeHead(500).end('{}');
    else
      response.end(
        JSON.stringify(
          request.url === '/keys' ? { keys: [jwk] } : { issuer: issuer.url, jwks_uri: `${issuer.url}/keys` },
        ),
      );
  });
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
