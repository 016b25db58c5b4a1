import type { Static, TProperties, TSchema, Type as TypeBox } from 'typebox';

export type { Static, TSchema };

/** A property that the owner of the schema reads, and that JSON and copies of the schema do not contain. */
const optional = '~optional';

type Options = Record<string, unknown> | undefined;

const simple = (type: string) => (options?: Options) => ({ type, ...options });

/** A copy of a schema for a property that may be missing. */
function optionalOf(schema: TSchema): TSchema {
  return Object.defineProperty({ ...schema }, optional, { value: true });
}

function objectOf(properties: TProperties, options?: Options): object {
  const required = Object.keys(properties).filter((name) => !Object.hasOwn(properties[name] as TSchema, optional));
  return { type: 'object', ...(required.length > 0 && { required }), properties, ...options };
}

/**
 * Builds JSON schemas whose types TypeBox infers. Of TypeBox itself only the types are used: its code has 373 modules, which took a
 * tenth of a second and 10 MiB at each start. `test/jsonSchema.test.ts` compares the schemas with those of TypeBox.
 */
export const Type = {
  Array: (items: object, options?: Options) => ({ type: 'array', items, ...options }),
  Boolean: simple('boolean'),
  Enum: (values: readonly unknown[], options?: Options) => ({ enum: values, ...options }),
  Integer: simple('integer'),
  Literal: (value: string | number | boolean, options?: Options) => ({ type: typeof value, const: value, ...options }),
  Null: simple('null'),
  Number: simple('number'),
  Object: objectOf,
  Optional: optionalOf,
  Partial: ({ properties }: { properties: TProperties }) =>
    objectOf(Object.fromEntries<TSchema>(Object.entries(properties).map(([name, each]) => [name, optionalOf(each)]))),
  Record: (_key: object, value: object, options?: Options) => ({
    type: 'object',
    patternProperties: { '^.*$': value },
    ...options,
  }),
  String: simple('string'),
  Union: (anyOf: readonly object[], options?: Options) => ({ anyOf, ...options }),
  Unsafe: (schema: object) => ({ ...schema }),
} as unknown as Pick<
  typeof TypeBox,
  | 'Array'
  | 'Boolean'
  | 'Enum'
  | 'Integer'
  | 'Literal'
  | 'Null'
  | 'Number'
  | 'Object'
  | 'Optional'
  | 'Partial'
  | 'Record'
  | 'String'
  | 'Union'
  | 'Unsafe'
>;
