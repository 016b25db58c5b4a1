import fc from 'fast-check';
import type { Schema } from './document.ts';

/** An id that the server returned, chosen when the request is sent: by its kind, and by number among the known ones. */
export class Known {
  readonly name: string;
  readonly pick: number;
  constructor(name: string, pick: number) {
    this.name = name;
    this.pick = pick;
  }
}

/** Properties and parameters that contain ids, and the kind of these ids. */
const names: Record<string, string | readonly string[]> = {
  iTwinId: 'iTwinId',
  iModelId: 'iModelId',
  changesetId: 'changeset',
  parentId: ['changeset', 'iTwinId'],
  briefcaseId: 'briefcaseId',
  groupId: 'groupId',
  imsGroups: 'groupId',
  roleId: 'roleId',
  roleIds: 'roleId',
  userId: 'userId',
  ownerId: 'userId',
  email: 'email',
};
const knownPick = fc.noBias(fc.nat(1000));
const knownOf = (name: string): fc.Arbitrary<Known> | undefined =>
  names[name] === undefined
    ? undefined
    : fc.tuple(fc.constantFrom(...[names[name]].flat()), knownPick).map(([kind, pick]) => new Known(kind, pick));

const nested = (depth: number): unknown => JSON.parse(`${'['.repeat(depth)}${']'.repeat(depth)}`);

/** Text that malicious or faulty clients send. */
const hostileTexts: readonly string[] = [
  '',
  ' ',
  '\0',
  'a\0b',
  '\ud800',
  '\u202e',
  '\u200b',
  '\r\n',
  'ſ',
  'İ',
  '🦄'.repeat(200),
  'a'.repeat(256),
  'a'.repeat(5000),
  ' '.repeat(5000),
  '..',
  '../..',
  '%',
  '%00',
  '%2f',
  '-1',
  '0',
  '1e9',
  '9007199254740993',
  '99999999999999999999',
  'NaN',
  'null',
  'true',
  '[]',
  '{}',
  '[object Object]',
  '__proto__',
  'constructor',
  "' or 1=1 --",
  '"',
  '\\',
  '*',
  '(',
  '$top',
  '2026-02-30T00:00:00Z',
  '+275760-09-13T00:00:00.001Z',
  '0x1',
  '00000000-0000-0000-0000-000000000000',
];
export const hostileText = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...hostileTexts) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 300, size: 'max' }) },
);
const hostileNumber = fc.oneof(
  fc.constantFrom(-1, 0, -0, 1.5, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 53), 2 ** 63, 1e308, -1e308),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
);
const hostileValue: fc.Arbitrary<unknown> = fc.oneof(
  { weight: 4, arbitrary: hostileText },
  { weight: 3, arbitrary: hostileNumber },
  {
    weight: 3,
    arbitrary: fc.constantFrom<unknown>(null, true, false, [], {}, [null], [[]], [{}], { id: {} }, nested(50)),
  },
  { weight: 3, arbitrary: fc.jsonValue({ maxDepth: 5 }) },
);
/** Valid and invalid JSON, as a whole body. */
const hostileBody: fc.Arbitrary<Buffer> = fc.oneof(
  fc
    .constantFrom(
      '',
      '{',
      'null',
      '[]',
      '"text"',
      '1e999',
      '{"a":1,"a":2}',
      '{"__proto__":{"iTwinId":"x"},"constructor":{"prototype":{"a":1}}}',
      '\ufeff{}',
      '<a/>',
      `${'['.repeat(5000)}${']'.repeat(5000)}`,
      `{"name":${'{"a":'.repeat(5000)}1${'}'.repeat(5001)}`,
    )
    .map((text) => Buffer.from(text)),
  fc.jsonValue().map((value) => Buffer.from(JSON.stringify(value))),
  fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
);

/** A value that a schema allows, with boundary values more often than by chance. @param name of the property or parameter */
export function valid(schema: Schema, name = ''): fc.Arbitrary<unknown> {
  const { type, anyOf, not } = schema;
  // `not: {}`: the property must be absent.
  if (not !== undefined) return fc.constant(undefined);
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  if ('const' in schema) return fc.constant(schema.const);
  if (anyOf !== undefined) return fc.oneof(...anyOf.map((each) => valid(each, name)));
  if (Array.isArray(type))
    return fc.oneof(
      ...type.map((each) => ({ weight: each === 'null' ? 1 : 3, arbitrary: valid({ ...schema, type: each }, name) })),
    );
  const { minimum = -(2 ** 31), maximum = 2 ** 31 - 1, minItems: minLength = 0 } = schema;
  switch (type) {
    case 'null':
      return fc.constant(null);
    case 'boolean':
      return fc.boolean();
    case 'integer':
      return orKnown(
        name,
        fc.oneof(
          { weight: 1, arbitrary: fc.constantFrom(minimum, maximum) },
          { weight: 3, arbitrary: fc.integer({ min: minimum, max: Math.min(maximum, minimum + 20) }) },
          { weight: 1, arbitrary: fc.maxSafeInteger().map((n) => Math.min(Math.max(n, minimum), maximum)) },
        ),
      );
    case 'number':
      return fc.oneof(
        { weight: 1, arbitrary: fc.constantFrom(minimum, maximum) },
        { weight: 3, arbitrary: fc.double({ min: minimum, max: maximum, noNaN: true }) },
      );
    case 'array': {
      const items = valid(schema.items ?? {}, name);
      // In a long array some item is nearly always refused.
      const bounds = { minLength, maxLength: Math.min(schema.maxItems ?? 3, Math.max(minLength, 3)) };
      return schema.uniqueItems === true
        ? fc.uniqueArray(items, { ...bounds, selector: (item) => JSON.stringify(item) })
        : fc.array(items, bounds);
    }
    case 'object':
      return validObject(schema);
    case 'string':
      return orKnown(name, text(schema, name));
    case undefined:
    default:
      return fc.jsonValue();
  }
}

function orKnown(name: string, own: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  const known = knownOf(name);
  return known === undefined ? own : fc.oneof({ weight: 12, arbitrary: known }, { weight: 1, arbitrary: own });
}

/** Each optional property is present in one of three cases: more of them rarely fit each other. */
function validObject({ properties = {}, required = [] }: Schema): fc.Arbitrary<unknown> {
  return fc.record(
    Object.fromEntries(
      Object.entries(properties).map(([name, schema]) => {
        const value = valid(schema, name);
        return [
          name,
          required.includes(name)
            ? value
            : fc.oneof({ weight: 2, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value }),
        ];
      }),
    ),
  );
}

function text({ minLength = 0, maxLength = 255, pattern, format }: Schema, name: string): fc.Arbitrary<string> {
  // fast-check does not generate text for lookaheads: they are removed, and checked afterwards.
  if (pattern !== undefined)
    return fc
      .stringMatching(new RegExp(pattern.replace(/\(\?[=!][^)]*\)/g, '')))
      .filter((made) => made.length <= maxLength && new RegExp(pattern).test(made));
  // The document does not declare every format; other values come from the hostile texts.
  if (format === 'date-time' || name === 'expiresAt')
    return fc
      .date({ min: new Date('2027-01-01'), max: new Date('2040-01-01'), noInvalidDate: true })
      .map((date) => date.toISOString());
  if (name === 'data') return fc.jsonValue().map((value) => Buffer.from(JSON.stringify({ value })).toString('base64'));
  // Host names that do not resolve: nothing is sent to anybody.
  if (format === 'uri' || name === 'callbackUrl') return fc.webPath().map((path) => `https://receiver.invalid${path}`);
  const longest = Math.min(maxLength, 1000);
  return fc.oneof(
    {
      weight: 4,
      arbitrary: fc.string({
        unit: 'grapheme',
        minLength: Math.min(Math.max(1, minLength), longest),
        maxLength: Math.min(Math.max(12, minLength), longest),
      }),
    },
    { weight: 1, arbitrary: fc.constantFrom('a'.repeat(longest), 'é'.repeat(minLength)) },
  );
}

/** Parts of a request besides its address. */
export interface Payload {
  body: unknown;
  contentType: string;
}

/** A body: mostly as declared, else with one property of another kind, or of any kind. */
export function bodyOf(content: Record<string, { schema: Schema }>): fc.Arbitrary<Payload> {
  const [type = '', { schema = {} } = {}] = Object.entries(content)[0] ?? [];
  if (schema.format === 'binary')
    return fc
      .constantFrom(onePixel, onePixel.subarray(0, 40), Buffer.alloc(0), Buffer.from('no picture'))
      .map((body) => ({ body, contentType: type }));
  const good = valid(schema);
  const properties = Object.keys(schema.properties ?? {});
  const twisted =
    properties.length === 0
      ? hostileValue
      : fc
          .tuple(good, fc.constantFrom(...properties), hostileValue)
          .map(([value, name, hostile]) =>
            typeof value === 'object' && value !== null ? { ...value, [name]: hostile } : hostile,
          );
  return fc.oneof(
    { weight: 8, arbitrary: good.map((body) => ({ body, contentType: type })) },
    { weight: 4, arbitrary: twisted.map((body) => ({ body, contentType: type })) },
    {
      weight: 1,
      arbitrary: fc.record({
        body: hostileBody,
        contentType: fc.constantFrom(type, type, type, `${type}; charset=latin1`, 'text/plain', '', ';'),
      }),
    },
  );
}

/** A parameter: mostly as declared, else any text. */
export function parameterOf(schema: Schema, name: string): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 8, arbitrary: valid(schema, name) }, { weight: 1, arbitrary: hostileText });
}

/** A PNG of one pixel. */
const onePixel = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
);
