import { after, before, describe } from 'node:test';
import type { ConfigInput } from '../../apps/server/src/config.ts';
import type { Engine } from '../../apps/server/src/db/engine.ts';
import type { Api } from './api.ts';
import { official, type Official } from './clients.ts';
import { bootServer, databases, endServer, setups, type Setup, type TestServer } from './server.ts';

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

type Configuration = ConfigInput | ((setup: Setup) => ConfigInput);

/** Runs a suite on a running server of each database, for promises that no store has a part in. The context is set before its first test. */
export function onEachDatabase(name: string, config: Configuration, body: (context: Context) => void): void {
  onEach(databases, name, config, body);
}

/** Runs a suite on a running server of each store with its database, for promises about files. The context is set before its first test. */
export function onEachStore(name: string, config: Configuration, body: (context: Context) => void): void {
  onEach(setups, name, config, body);
}

/** Runs a suite on one running server, for promises that neither database nor store has a part in. */
export function onOneDatabase(name: string, config: Configuration, body: (context: Context) => void): void {
  onEach(setups.slice(0, 1), name, config, body);
}

function onEach(on: readonly Setup[], name: string, config: Configuration, body: (context: Context) => void): void {
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
