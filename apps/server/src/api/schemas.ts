import { Type, type Static, type TSchema } from '../jsonSchema.ts';
import type { TextKind } from './text.ts';
import type { Wording } from './validation.ts';

/**
 * A schema that also allows null. It extends `type` instead of using `anyOf`, whose two branches would report every
 * error twice.
 */
export function Nullable<S extends TSchema>(schema: S) {
  const { type } = schema as unknown as { type: string };
  return Type.Unsafe<Static<S> | null>({ ...schema, type: [type, 'null'] });
}

/** A name: 1 to 255 characters, at least one of them visible and none a control character; stored in NFC. */
export const NameText = (description: string, wording: Wording = {}) => textOf('name', description, wording);
/** A reference to a person or an object that must match exactly; otherwise like a name. */
export const ReferenceText = (description: string) => textOf('reference', description, {});
const textOf = (text: TextKind, description: string, wording: Wording) =>
  Type.String({ description, minLength: 1, maxLength: 255, text, ...wording });
/** Free text of at most 255 characters, which may contain line breaks; stored in NFC. */
export const FreeText = (description: string, options: Wording & { minLength?: number; pattern?: string } = {}) =>
  Type.String({ description, maxLength: 255, text: 'description' satisfies TextKind, ...options });
/** A single line of text, which may be empty; stored in NFC. */
export const LabelText = (options: Wording & { description?: string; maxLength?: number } = {}) =>
  Type.String({ maxLength: 255, text: 'label' satisfies TextKind, ...options });
/** A query parameter that is compared with names or descriptions. */
export const SearchText = (options: { description?: string; minLength?: number } = {}) =>
  Type.String({ maxLength: 255, text: 'search' satisfies TextKind, ...options });
/** An enumeration of strings that also allows null. */
export function NullableWord<W extends string>(words: readonly W[], wording: Wording = {}) {
  return Type.Unsafe<W | null>({ type: ['string', 'null'], enum: [...words, null], ...wording });
}

/** A read-only property, which a request body must not contain. */
export const Fixed = (message: string) => Type.Optional(Type.Unsafe<undefined>({ not: {}, fixed: message }));

/** An id in a request body. The handler checks that the object exists. */
export const IdText = (options: { description?: string; minLength?: number } = {}) =>
  Type.String({ maxLength: 255, ...options });

/** The id of an iTwin or iModel in a query. */
export const guidPattern = '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$';

export const LinkSchema = Type.Object({ href: Type.String() });
export const StorageLinkSchema = Type.Object({
  href: Type.String({ description: 'Signed, good for one blob and a limited time.' }),
  storageType: Type.String({
    enum: ['azure', 'google'],
    description: 'Protocol of the link. azure: a part of Azure Blob. google: plain GET that may be redirected.',
  }),
});
export const PageLinks = Type.Object({ self: LinkSchema, prev: Nullable(LinkSchema), next: Nullable(LinkSchema) });

const latitude = Type.Number({ minimum: -90, maximum: 90, explain: "Valid 'latitude' value range is -90 to 90." });
const longitude = Type.Number({
  minimum: -180,
  maximum: 180,
  explain: "Valid 'longitude' value range is -180 to 180.",
});
const PointSchema = Type.Object({ latitude, longitude });
export const ExtentSchema = Type.Object(
  { southWest: PointSchema, northEast: PointSchema },
  { description: 'Area on earth, degrees.' },
);

export const ApplicationSchema = Type.Object({ id: Type.String(), name: Type.String() });

export const ErrorSchema = Type.Object(
  {
    error: Type.Object({
      code: Type.String(),
      message: Type.String(),
      target: Type.Optional(Type.String()),
      details: Type.Optional(
        Type.Array(
          Type.Object({
            code: Type.String(),
            message: Type.String(),
            target: Type.Optional(Type.String()),
            innerError: Type.Optional(Type.Object({ code: Type.String() })),
          }),
        ),
      ),
    }),
  },
  { description: 'What was wrong.' },
);

export const NameSchema = NameText('Name, unique within the iTwin.');
/** Null and the empty string both mean "no description". */
export const DescriptionSchema = Nullable(FreeText('Free text.'));
export const ContainersEnabled = Type.Integer({
  minimum: 0,
  maximum: 7,
  description: 'Bit flags: 1 SchemaSync, 2 CodeStore, 4 ViewStore.',
  explain: "'containersEnabled' must be a sum of the flags 1, 2 and 4.",
});

const dayMs = 86_400_000;
const twoDigits = Array.from({ length: 60 }, (_, n) => String(n).padStart(2, '0'));
/** The day that was formatted last: its number since 1970, and its date with the `T`. */
let lastDay = { number: Number.NaN, text: '' };

/** Formats a time for the API: ISO 8601 with milliseconds, UTC. */
export function time(ms: number): string {
  if (!Number.isInteger(ms)) return new Date(ms).toISOString();
  // `toISOString` computes the date from the beginning each time, which was 6 % of a page of 100 changesets.
  const day = Math.floor(ms / dayMs);
  if (day !== lastDay.number) {
    const text = new Date(ms).toISOString();
    lastDay = { number: day, text: text.slice(0, text.indexOf('T') + 1) };
  }
  const rest = ms - day * dayMs;
  const seconds = Math.floor(rest / 1000);
  const minutes = Math.floor(seconds / 60);
  const two = (n: number): string => twoDigits[n] as string;
  const thousandths = String(1000 + (rest % 1000)).slice(1);
  return `${lastDay.text}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}:${two(seconds % 60)}.${thousandths}Z`;
}
export const TimeSchema = Type.String({ format: 'date-time' });

/** Rule of the wire: a property without a value is null, never `""`. */
export function emptyToNull(text: string | null | undefined): string | null {
  return text === undefined || text === '' ? null : text;
}
