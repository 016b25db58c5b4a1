import { randomBytes } from 'node:crypto';
import { Command } from 'commander';
import { loadConfig, type ClientConfig } from '../config.ts';
import { hashOf, SignInClients, type SignInClient } from '../signIn/clients.ts';
import { SignInState } from '../signIn/state.ts';
import { exitCodes, ExitError } from './exit.ts';
import { installationCommand, type InstallationOptions } from './installationOptions.ts';
import { printDone, printList, printObject, type Column, type OutputOptions } from './output.ts';
import { confirm, withCommands, withConfirmation } from './resource.ts';
import { withSignInDatabase } from './signInDatabase.ts';

type ClientOptions = InstallationOptions & OutputOptions;

interface AddOptions extends ClientOptions {
  name?: string;
  redirectUri: string[];
  postLogoutRedirectUri: string[];
  public?: boolean;
  device?: boolean;
  consent: boolean;
  organization?: string;
}

interface Listed {
  id: string;
  name: string;
  confidential: boolean;
  redirectUris: readonly string[];
  grantTypes: readonly string[];
  from: string;
}

const columns: Column<Listed>[] = [
  { title: 'ID', of: ({ id }) => id },
  { title: 'NAME', of: ({ name }) => name },
  { title: 'KIND', of: ({ confidential }) => (confidential ? 'confidential' : 'public') },
  { title: 'GRANTS', of: ({ grantTypes }) => grantTypes.map((grant) => grant.replace(/^urn:.*:/, '')).join(', ') },
  { title: 'FROM', of: ({ from }) => from },
];

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** `offshoot clients`: the applications that sign users in at the server itself. */
export function clientsCommand(): Command {
  return withCommands(
    new Command('clients').description('Manage the applications that use sign-in at this server.'),
    installationCommand('list', 'List the applications of the configuration and the registered ones.').action(list),
    installationCommand('add', 'Register an application. The secret of a confidential one is printed once.')
      .argument('<id>', 'client id')
      .option('--name <name>', 'name that users see; the id by default')
      .option('--redirect-uri <uri>', 'address to which users return; repeat it for several', collect, [])
      .option('--post-logout-redirect-uri <uri>', 'address to which users return after signing out', collect, [])
      .option('--public', 'no secret: an application on devices of users or in a browser, with PKCE')
      .option('--device', 'may also use codes that users enter on another device')
      .option('--no-consent', 'do not ask users; for applications of the operator')
      .option('--organization <id>', 'organization of a service without users')
      .action(add),
    withConfirmation(
      installationCommand('remove', 'Remove a registered application.').argument('<id>', 'client id'),
    ).action(remove),
  );
}

function listed(client: SignInClient, from: string): Listed {
  const { id, name, secretHash, redirectUris, grantTypes } = client;
  return { id, name, confidential: secretHash !== undefined, redirectUris, grantTypes, from };
}

async function list(options: ClientOptions): Promise<void> {
  await withClients(options, async (clients) => {
    printList(
      (await clients.list()).map(({ from, ...client }) => listed(client, from)),
      columns,
      options,
    );
  });
}

async function add(id: string, options: AddOptions): Promise<void> {
  const secret = options.public === true ? undefined : randomBytes(32).toString('base64url');
  const users = options.redirectUri.length > 0;
  const grants = [
    ...(users ? (['authorization_code', 'refresh_token'] as const) : []),
    ...(options.device === true ? ([...(users ? [] : (['refresh_token'] as const)), 'device_code'] as const) : []),
  ];
  const input = {
    id,
    redirectUris: options.redirectUri,
    postLogoutRedirectUris: options.postLogoutRedirectUri,
    consent: options.consent,
    ...(options.name !== undefined && { name: options.name }),
    ...(secret !== undefined && { secretHash: hashOf(secret) }),
    ...(grants.length > 0 && { grantTypes: grants }),
    ...(options.organization !== undefined && { organizationId: options.organization }),
  };
  // The same rules as for a client of the configuration. @throws ConfigError
  const [client] = loadConfig({ clients: [input], embeddedIssuer: true }, { env: {} }).clients as [ClientConfig];
  await withClients(options, async (clients) => {
    if (clients.isTaken(id) || (await clients.find(id)) !== undefined)
      throw new ExitError(exitCodes.failed, `there is a client '${id}' already`);
    await clients.add(client);
    printObject(
      { ...client, secretHash: undefined, ...(secret !== undefined && { secret }) },
      [
        { title: 'ID', of: () => id },
        ...(secret === undefined ? [] : [{ title: 'SECRET', of: () => secret }]),
        { title: 'REDIRECTS', of: () => client.redirectUris.join(' ') || null },
      ],
      options,
    );
  });
}

async function remove(id: string, options: ClientOptions & { yes?: boolean }): Promise<void> {
  await withClients(options, async (clients) => {
    if (clients.isTaken(id))
      throw new ExitError(exitCodes.failed, `the client '${id}' belongs to the server or to its configuration`);
    await confirm(`Remove the client ${id}?`, options);
    if (!(await clients.remove(id))) throw new ExitError(exitCodes.usage, `no client '${id}' is registered`);
    printDone({ id, deleted: true }, `the client ${id} is removed`, options);
  });
}

async function withClients(
  options: InstallationOptions,
  work: (clients: SignInClients) => Promise<void>,
): Promise<void> {
  await withSignInDatabase(options, 'applications are registered at the configured issuers', (db, config) =>
    work(new SignInClients(config, new SignInState(db))),
  );
}
