import type { Static, TSchema } from '../jsonSchema.ts';
import { checkOf } from '../schemaChecks.ts';
import { exitCodes, ExitError } from './exit.ts';

/**
 * Creates a validator for external data: a file, or the answer of another server.
 * The validator takes the value and its name for messages, such as `changesets.json`.
 * @returns a function that returns the value with its type
 * @throws ExitError (in that function) with the first fault
 */
export function expectShape<S extends TSchema>(
  schema: S,
  exitCode: number = exitCodes.failed,
): (value: unknown, what: string) => Static<S> {
  const check = checkOf(schema);
  return (value, what) => {
    const validate = check();
    if (validate(value)) return value as Static<S>;
    const { instancePath = '', message = 'is not valid' } = validate.errors?.[0] ?? {};
    throw new ExitError(
      exitCode,
      `${what}: ${instancePath === '' ? 'it' : instancePath.slice(1).replaceAll('/', '.')} ${message}`,
    );
  };
}
