import { Ajv } from 'ajv';
import type { Static, TSchema } from 'typebox';
import { exitCodes, ExitError } from './exit.ts';

const ajv = new Ajv({ strict: false });

/**
 * Makes a check of what came from outside: a file, or the answer of another server.
 * @param what names it in the message, such as `changesets.json`
 * @returns a function that gives the value with its type
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
