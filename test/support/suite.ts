import { after, before, describe } from 'node:test';
import type { ConfigInput } from '../../apps/server/src/config.ts';
import type { Engine } from '../../apps/server/src/db/engine.ts';
import type { Api } from './api.ts';
import { official, type Official } from './clients.ts';
import { bootServer, endServer, setups, type Setup, type TestServer } from './server.ts';

/** What the tests of one suite share: a booted server, Olivia with the official client and with plain HTTP, her iTwin. */
export interface Context {
  engine: Engine;
  server: TestServer;
  olivia: Official;
  api: Api;
  iTwinId: string;
  /** What an upload that cannot count is answered: a store that clients go to by themselves takes whatever comes. */
  refused(status: number): number;
}

/** Runs a suite on a booted server of each database and store. The context is filled before its first test. */
export function onEachDatabase(
  name: string,
  config: ConfigInput | ((setup: Setup) => ConfigInput),
  body: (context: Context) => void,
): void {
  for (const setup of setups) {
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
