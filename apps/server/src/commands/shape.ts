import { Ajv } from 'ajv';
import type { Static, TSchema } from '../jsonSchema.ts';
import { exitCodes, ExitError } from './exit.ts';

const ajv = new Ajv({ strict: false });

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
  const validate = ajv.compile(schema);
  return (value, what) => {
    if (validate(value)) return value as Static<S>;
    const { instancePath = '', message = 'is not valid' } = validate.errors?.[0] ?? {};
    throw new ExitError(
      exitCode,
      `${what}: ${instancePath === '' ? 'it' : instancePath.slice(1).replaceAll('/', '.')} ${message}`,
    );
  };
}
