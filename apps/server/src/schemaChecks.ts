import { Ajv, type Options, type ValidateFunction } from 'ajv';
import type { TSchema } from './jsonSchema.ts';

/**
 * Compiles schemas of this code base. The schemas themselves are not checked, because each compiler would first compile the
 * schema of schemas, which takes about 25 ms: `test/jsonSchema.test.ts` compares all kinds of them with those of TypeBox.
 */
export function schemaCompiler(options: Options = {}): Ajv {
  return new Ajv({ strict: false, meta: false, validateSchema: false, ...options });
}

/** The check of a schema, which is compiled when it is first used: it takes 1 to 200 ms. */
export function checkOf<T>(schema: TSchema, options: Options = {}): () => ValidateFunction<T> {
  return onFirstUse(() => schemaCompiler(options).compile<T>(schema));
}

/** Makes a value when it is first used. */
export function onFirstUse<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => (made ??= make());
}
