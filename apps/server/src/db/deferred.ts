/**
 * Statements that are sent without waiting for their answer, by transaction. Only PostgreSQL has them: its transactions
 * await them together with COMMIT, and the failure of one is the failure of the transaction.
 */
const deferred = new WeakMap<object, Promise<unknown>[]>();

/** Lets statements of a transaction be deferred. @returns those that have been, to be awaited with COMMIT */
export function collectDeferred(tx: object): readonly Promise<unknown>[] {
  const sent: Promise<unknown>[] = [];
  deferred.set(tx, sent);
  return sent;
}

/**
 * Waits for a statement, unless its transaction awaits it with COMMIT. Only for statements whose result decides nothing:
 * PostgreSQL executes them in order, and rolls back if one fails.
 */
export async function defer(tx: object, statement: Promise<unknown>): Promise<void> {
  const sent = deferred.get(tx);
  if (sent === undefined) {
    await statement;
    return;
  }
  statement.catch(() => undefined);
  sent.push(statement);
}

/**
 * Awaits statements of one transaction that were issued together: PostgreSQL executes them in order, so that a read sees
 * everything that the lock before it has waited for. The first error in this order is thrown, as if each had been awaited
 * before the next was issued.
 */
export async function inOrder<T extends readonly Promise<unknown>[]>(
  ...statements: T
): Promise<{ [K in keyof T]: Awaited<T[K]> }> {
  const outcomes = await Promise.allSettled(statements);
  return outcomes.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  }) as { [K in keyof T]: Awaited<T[K]> };
}
