import { after, before, describe } from 'node:test';
import type { ConfigInput } from '../../apps/server/src/config.ts';
import type { Engine } from '../../apps/server/src/db/engine.ts';
import type { Api } from './api.ts';
import { official, type Official } from './clients.ts';
import { bootServer, endServer, setups, type Setup, type TestServer } from './server.ts';

/** Shared by the tests of a suite: a running server, Olivia with the official client and with plain HTTP, her iTwin. */
export interface Context {
  engine: Engine;
  server: TestServer;
  olivia: Official;
  api: Api;
  iTwinId: string;
  /** The status of an upload that the server would refuse with `status`: a store with direct access accepts every upload. */
  refused(status: number): number;
}

/**
 * Runs a suite on a running server of each database and store. The context is set before its first test.
 * @param on fewer of them, for what does not depend on them
 */
export function onEachDatabase(
  name: string,
  config: ConfigInput | ((setup: Setup) => ConfigInput),
  body: (context: Context) => void,
  on: readonly Setup[] = setups,
): void {
  for (const setup of on) {
    describe(`${name} on ${setup.engine} and ${setup.store}`, () => {
      const context = {
        engine: setup.engine,
        refused: (status) => (context.server.services.blobs.stores.home.direct?.uploads === undefined ? status : 201),
      } as Context;
      before(async () => {
        context.server = await bootServer(setup, typeof config === 'function' ? config(setup) : config);
        context.olivia = await official(context.server);
        context.api = await context.server.as('olivia');
        context.iTwinId = await context.server.iTwin();
      });
      after(() => endServer(context.server));
      body(context);
    });
  }
}
