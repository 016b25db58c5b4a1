import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FairOrder, type Account } from '../apps/server/src/operations/fairOrder.ts';
import { PastFailures } from '../apps/server/src/operations/pastFailures.ts';
import { steadyClock } from '../apps/server/src/operations/steadyClock.ts';
import { within } from '../apps/server/src/operations/within.ts';

describe('The fair order of jobs', () => {
  const account = (userId: string, organizationId: string | null = null): Account => ({ userId, organizationId });
  const due = (userId: string, organizationId: string | null, dueAt: number) => ({ userId, organizationId, dueAt });
  const users = (fair: FairOrder, waiting: ReturnType<typeof due>[], running: Account[] = []): string[] =>
    fair.order(waiting, running).map(({ userId }) => userId);

  test('is the order in which jobs became due while none runs or has run', () => {
    const waiting = [due('b', 'two', 20), due('c', 'three', 30), due('a', 'one', 10)];
    assert.deepEqual(users(new FairOrder(4), waiting), ['a', 'b', 'c']);
  });

  test('puts the organization that runs fewest jobs first, and within it the user who runs fewest', () => {
    const fair = new FairOrder(8);
    const running = [account('a', 'one'), account('b', 'one'), account('b', 'one'), account('d', 'two')];
    const waiting = [due('b', 'one', 1), due('a', 'one', 2), due('e', 'two', 3), due('f', 'three', 4)];
    assert.deepEqual(users(fair, waiting, running), ['f', 'e', 'a', 'b']);
  });

  test('prefers among equals those served longest ago: organizations, then users', () => {
    const fair = new FairOrder(4);
    fair.served(account('b', 'one'));
    fair.served(account('a', 'one'));
    fair.served(account('c', 'two'));
    const waiting = [due('c', 'two', 1), due('a', 'one', 2), due('b', 'one', 3), due('d', 'three', 4)];
    assert.deepEqual(users(fair, waiting), ['d', 'b', 'a', 'c']);
  });

  test('gives an organization three quarters of the slots and a user half, both rounded down', () => {
    const running = (count: number, userId = 'a') => Array.from({ length: count }, () => account(userId, 'one'));
    const own = [due('a', 'one', 1)];
    const colleague = [due('b', 'one', 1)];
    const fair = new FairOrder(7);
    assert.deepEqual(users(fair, own, running(2)), ['a']);
    assert.deepEqual(users(fair, own, running(3)), []);
    assert.deepEqual(users(fair, colleague, [...running(3), account('c', 'one')]), ['b']);
    assert.deepEqual(users(fair, colleague, [...running(3), ...running(2, 'c')]), []);
  });

  test('makes the only slot available to everybody', () => {
    const fair = new FairOrder(1);
    assert.deepEqual(users(fair, [due('a', 'one', 1)]), ['a']);
    assert.deepEqual(users(fair, [due('b', 'two', 1)], [account('a', 'one')]), ['b']);
    assert.deepEqual(users(fair, [due('a', 'one', 1)], [account('a', 'one')]), []);
  });

  test('counts a user without an organization once, and as a separate organization', () => {
    const fair = new FairOrder(4);
    assert.deepEqual(users(fair, [due('a', null, 1), due('b', null, 2)], [account('a')]), ['b', 'a']);
    assert.deepEqual(users(fair, [due('a', null, 1)], [account('a'), account('a')]), []);
    assert.deepEqual(users(fair, [due('b', null, 1)], [account('a'), account('a'), account('c')]), ['b']);
    // An organization may have the name of a user.
    assert.deepEqual(users(fair, [due('b', 'a', 1)], [account('a'), account('a'), account('a')]), ['b']);
  });
});

describe('A bounded wait', () => {
  test('reports whether the work ended in time, with or without an error', async () => {
    assert.equal(await within(Promise.resolve(), 60_000), true);
    assert.equal(await within(Promise.reject(new Error('failed')), 60_000), true);
    assert.equal(await within(new Promise(() => undefined), 5), false);
  });

  test('leaves no timer behind', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
    const before = timers();
    await within(Promise.resolve(), 60_000);
    assert.equal(timers(), before);
  });
});

describe('Steps that may fail', () => {
  const failing = (message: string) => async (): Promise<void> => {
    throw new Error(message);
  };

  test('continue after failures, which are reported together at the end', async () => {
    const failures = new PastFailures();
    await failures.pass(failing('first'));
    await failures.pass(async () => undefined);
    await failures.pass(failing('second'));
    assert.throws(
      () => failures.end(),
      (error: AggregateError) => {
        assert.equal(error.message, '2 steps failed, the first: first');
        assert.deepEqual(
          error.errors.map((each: Error) => each.message),
          ['first', 'second'],
        );
        return true;
      },
    );
  });

  test('report nothing when none failed', async () => {
    const failures = new PastFailures();
    await failures.pass(async () => undefined);
    failures.end();
  });

  test('end with the tenth failure in a row, and a success starts the count again', async () => {
    const failures = new PastFailures();
    for (let n = 0; n < 9; n++) await failures.pass(failing('one of nine'));
    await failures.pass(async () => undefined);
    for (let n = 0; n < 9; n++) await failures.pass(failing('one of nine'));
    await assert.rejects(failures.pass(failing('tenth')), /^Error: tenth$/);
  });

  test('end with the first failure after the signal', async () => {
    const abort = new AbortController();
    const failures = new PastFailures(abort.signal);
    await failures.pass(failing('before the signal'));
    abort.abort();
    await assert.rejects(failures.pass(failing('after the signal')), /^Error: after the signal$/);
  });
});

describe('The reference time for ages', () => {
  test('follows a step of ten seconds at once, and no larger one', () => {
    let wall = 1_000_000;
    const now = steadyClock(
      60_000,
      () => wall,
      () => 0,
    );
    assert.equal(now(), wall);
    wall += 10_000;
    assert.equal(now(), 1_010_000);
    wall += 10_001;
    assert.equal(now(), 1_010_000);
  });

  test('advances at most with the elapsed time of the process, unless another source is given', () => {
    let wall = 1_000_000;
    const now = steadyClock(60_000, () => wall);
    wall += 3 * 3_600_000;
    const held = now();
    assert.ok(held >= 1_000_000 && held < 1_060_000, String(held));
  });
});
