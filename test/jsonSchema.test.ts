import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Type as TypeBox } from 'typebox';
import { Type } from '../apps/server/src/jsonSchema.ts';

/** One schema of each kind, with and without options. */
function schemasOf(type: typeof Type): Record<string, object> {
  const text = type.String({ minLength: 1, description: 'a text' });
  const object = type.Object(
    { id: text, size: type.Optional(type.Integer({ minimum: 0 })), ready: type.Boolean() },
    { additionalProperties: false, description: 'an object' },
  );
  return {
    Array: type.Array(text, { maxItems: 2 }),
    Boolean: type.Boolean({ default: true }),
    Enum: type.Enum(['a', 'b'], { default: 'a' }),
    Integer: type.Integer(),
    Literal: type.Object({
      text: type.Literal('', { description: 'nothing' }),
      number: type.Literal(1),
      boolean: type.Literal(true),
    }),
    Null: type.Null({ description: 'always null' }),
    Number: type.Number({ minimum: -90, maximum: 90 }),
    Object: object,
    Optional: type.Object({ a: type.Optional(text), b: type.Optional(type.Optional(text)) }),
    'Optional, in a copy': type.Object({ a: { ...type.Optional(text) } }),
    Partial: type.Partial(object),
    Record: type.Record(type.String(), object, { default: {}, description: 'a record' }),
    'Record with limits of its names': type.Record(type.String({ minLength: 1, maxLength: 100 }), object),
    String: type.String(),
    Union: type.Union([text, type.Null()], { default: null }),
    Unsafe: type.Object({ a: type.Unsafe({ type: ['string', 'null'] }), b: type.Optional(type.Unsafe({ not: {} })) }),
  };
}

describe('JSON schemas', () => {
  const expected = schemasOf(TypeBox);
  for (const [kind, schema] of Object.entries(schemasOf(Type)))
    test(`${kind} is built as by TypeBox, whose types describe it`, () =>
      assert.equal(JSON.stringify(schema), JSON.stringify(expected[kind])));
});
