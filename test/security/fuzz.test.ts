import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzz } from '../support/fuzz/run.ts';
import { engines, setups } from '../support/server.ts';

/** Over all setups together. `npm run fuzz` sends ten times as many. */
const requests = Number(process.env['OFFSHOOT_FUZZ_REQUESTS'] ?? 5200);
/** Fixed in `npm test`, so that a failure is caused by a change; random in `npm run fuzz`, unless one is given. */
const seed = Number(
  process.env['OFFSHOOT_FUZZ_SEED'] ??
    (process.env['OFFSHOOT_FUZZ_REQUESTS'] === undefined ? 1 : Date.now() % 1_000_000),
);
/** Heap growth that exceeds caches and chance, bytes: 5 KiB for each request of the shorter run. */
const mostGrowth = 16 * 1024 * 1024;

for (const engine of engines) {
  const setup = setups.find((each) => each.engine === engine) ?? assert.fail(`there is no set-up with ${engine}`);
  test(`requests generated from the API document get declared answers on ${engine} and ${setup.store}, without 5xx, blocked event loop or memory growth`, async (context) => {
    context.diagnostic(`OFFSHOOT_FUZZ_SEED=${seed}`);
    const report = await fuzz(setup, seed, Math.ceil(requests / engines.length));
    context.diagnostic(
      `${report.requests} requests; by status: ${JSON.stringify(report.statuses)}; heap grew by ${Math.round(report.growth / 1024)} KiB; never successful: ${report.unreached.join(', ') || 'none'}`,
    );
    assert.ok(report.faults.length === 0, `with OFFSHOOT_FUZZ_SEED=${seed}:\n\n${report.faults.join('\n\n')}`);
    assert.ok(report.growth < mostGrowth, `the heap grew by ${report.growth} bytes`);
    // Otherwise the handlers were not tested.
    assert.ok(
      report.unreached.length < report.operations / 4,
      `too few operations were ever successful; never were: ${report.unreached.join(', ')}`,
    );
  });
}
