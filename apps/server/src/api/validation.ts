import type { ErrorObject, ValidateFunction } from 'ajv';
import type { TSchema } from '../jsonSchema.ts';
import { detail, type ErrorDetail } from '../errors.ts';
import { onFirstUse, schemaCompiler } from '../schemaChecks.ts';
import { faultOfText, normalizeText, type TextKind } from './text.ts';

/**
 * Annotations of a property's schema that word its refusal:
 * `explain` follows "Provided 'x' value is not valid." (or, for parameters, "'v' is not a valid 'x' value.");
 * `tooLong` replaces the sentence about the 255 characters; `pick` follows "'v' is not a valid 'x' value.";
 * `refusal` replaces the whole message, with `{value}` for what was given;
 * `fixed` is the message for a property that cannot be set, `missing` the one for a required property that is absent, null or blank, which then counts as missing.
 */
export interface Wording {
  explain?: string;
  tooLong?: string;
  pick?: string;
  refusal?: string;
  fixed?: string;
  missing?: string;
}
const wordings = [
  'explain',
  'tooLong',
  'pick',
  'refusal',
  'fixed',
  'missing',
] as const satisfies readonly (keyof Wording)[];

/** Removes undeclared properties at every depth, so that unknown data is never stored, copied or returned. */
const forBodies = schemaCompiler({
  allErrors: true,
  verbose: true,
  validateFormats: false,
  removeAdditional: 'all',
});
/** The same, but stops at the first error: a large body may have one in each of its values. */
const forLargeBodies = schemaCompiler({ verbose: true, validateFormats: false, removeAdditional: 'all' });
/** Validates responses without changing them. */
const forAnswers = schemaCompiler({ allErrors: true, verbose: true, validateFormats: false });
/** Parameters arrive as text: `'5'` becomes 5 where a number is declared. */
const forParameters = schemaCompiler({
  allErrors: true,
  verbose: true,
  validateFormats: false,
  coerceTypes: true,
});

for (const ajv of [forBodies, forLargeBodies, forAnswers, forParameters])
  ajv.addKeyword({
    keyword: 'text',
    type: 'string',
    validate: (kind: TextKind, value: string) => faultOfText(kind, value) === undefined,
  });

export type Check = (value: unknown) => ErrorDetail[];

/**
 * Compiles a body schema into a check that returns one detail for each property at fault, worded as the API does. Changes the
 * checked object in place: removes undeclared properties and normalizes names and descriptions.
 */
export function bodyCheck(schema: TSchema): Check {
  const [all, first] = [onFirstUse(() => forBodies.compile(schema)), onFirstUse(() => forLargeBodies.compile(schema))];
  return checkWith((value) => (hasMoreValues(value, maxJudgedValues) ? first() : all()), schema, 'property');
}

/** The same for responses, which are not changed. */
export function answerCheck(schema: TSchema): Check {
  return checkWith(
    onFirstUse(() => forAnswers.compile(schema)),
    schema,
    'property',
  );
}

/** The same for query parameters; the checked object is changed in place to the declared types. */
export function parameterCheck(schema: TSchema): Check {
  return checkWith(
    onFirstUse(() => forParameters.compile(schema)),
    schema,
    'parameter',
  );
}

/**
 * Renames parameters to their declared spelling: the API ignores the case of their names, and ignoring a `$orderby` would
 * return the wrong page with 200. An unknown query option, whose name begins with `$`, is refused for the same reason.
 * The object is changed in place. @returns a detail for each parameter at fault
 */
export function parameterNames(schema: TSchema | undefined): (query: Record<string, unknown>) => ErrorDetail[] {
  const declared = new Map(
    Object.keys(schema === undefined ? {} : propertiesOf(schema)).map((name) => [name.toLowerCase(), name]),
  );
  return (query) => {
    const details: ErrorDetail[] = [];
    for (const given of Object.keys(query)) {
      const name = declared.get(given.toLowerCase());
      if (name === undefined && given.startsWith('$')) details.push(detail.unknownOption(given.slice(0, 100)));
      if (name === undefined || name === given) continue;
      if (name in query) details.push(detail.invalidValue(name, `'${name}' is given more than once.`));
      query[name] = query[given];
      Reflect.deleteProperty(query, given);
    }
    return details;
  };
}

/** Bodies with at most this many values get every error reported; larger ones only the first. */
const maxJudgedValues = 1000;
/** Maximum number of errors reported for one request. */
const maxDetails = 100;

function checkWith(
  validatorFor: (value: unknown) => ValidateFunction,
  schema: TSchema,
  kind: 'property' | 'parameter',
): Check {
  const texts = Object.entries(
    (schema as { properties?: Record<string, { text?: TextKind }> }).properties ?? {},
  ).filter(([, { text }]) => text !== undefined);
  return (value) => {
    const bad = findUnstorable(value);
    if (bad !== undefined)
      return [
        detail.invalidValue(
          bad.place,
          `Provided '${bad.place}' value is not valid. The value cannot contain ${bad.what}.`,
        ),
      ];
    const validate = validatorFor(value);
    if (validate(value)) {
      const given = value as Record<string, unknown>;
      for (const [name, { text }] of texts)
        if (typeof given[name] === 'string') given[name] = normalizeText(text as TextKind, given[name]);
      return [];
    }
    const details = new Map<string, ErrorDetail>();
    for (const error of validate.errors ?? []) {
      const found = describe(error, schema, kind);
      const target = found.target ?? '';
      if (!details.has(target)) details.set(target, found);
    }
    return [...details.values()].slice(0, maxDetails);
  };
}

/** Whether a value contains more than `limit` values, itself included. */
function hasMoreValues(value: unknown, limit: number): boolean {
  let left = limit;
  const isOver = (inner: unknown): boolean =>
    --left < 0 || (typeof inner === 'object' && inner !== null && Object.values(inner).some(isOver));
  return isOver(value);
}

function describe(error: ErrorObject, schema: TSchema, kind: 'property' | 'parameter'): ErrorDetail {
  const [top = ''] = error.instancePath.slice(1).split('/');
  if (error.keyword === 'required') {
    const missing = (error.params as { missingProperty: string }).missingProperty;
    // A missing nested property is reported with its path, `baselineFile.size`.
    const target = [...error.instancePath.slice(1).split('/').filter(Boolean), missing].join('.');
    return kind === 'parameter'
      ? detail.missingParameter(target)
      : detail.missingProperty(target, propertiesOf(schema)[target]?.missing);
  }
  if (top === '') return detail.invalidBody();
  const wording = wordingOf(error, schema, top);
  if (wording.fixed !== undefined) return { code: 'ReadOnlyProperty', message: wording.fixed, target: top };
  if (wording.missing !== undefined && (isBlank(error.data) || isInvisible(error)))
    return detail.missingProperty(top, wording.missing);
  if (wording.refusal !== undefined)
    return detail.invalidValue(
      top,
      wording.refusal.replace('{value}', () => shown(error.data)),
    );
  if (error.keyword === 'maxLength')
    return detail.invalidValue(
      top,
      wording.tooLong ??
        `Provided '${top}' value is not valid. The value exceeds allowed ${String(error.schema)} characters.`,
    );
  const textFault = error.keyword === 'text' ? faultOfText(error.schema as TextKind, error.data as string) : undefined;
  if (textFault === 'control')
    return detail.invalidValue(
      top,
      `Provided '${top}' value is not valid. The value cannot contain control characters.`,
    );
  const blank =
    textFault === 'blank' ||
    (typeof error.data === 'string' &&
      isBlank(error.data) &&
      (error.keyword === 'minLength' || error.keyword === 'pattern'));
  if (blank && wording.explain === undefined)
    return detail.invalidValue(
      top,
      `'${error.data as string}' is not a valid '${top}' value. The value cannot be empty or consist only of whitespace characters.`,
    );
  if (wording.explain !== undefined && kind === 'property')
    return detail.invalidValue(top, `Provided '${top}' value is not valid. ${wording.explain}`);
  const more = wording.explain ?? wording.pick;
  const text = `'${shown(error.data)}' is not a valid '${top}' value.`;
  return detail.invalidValue(top, more === undefined ? text : `${text} ${more}`);
}

/** The annotation nearest to the fault: of the schema that refused, else of the property it belongs to. */
function wordingOf(error: ErrorObject, schema: TSchema, top: string): Wording {
  const nearest = error.parentSchema as Wording | undefined;
  if (nearest !== undefined && wordings.some((word) => word in nearest)) return nearest;
  return propertiesOf(schema)[top] ?? {};
}

function propertiesOf(schema: TSchema): Record<string, Wording | undefined> {
  return (schema as { properties?: Record<string, Wording> }).properties ?? {};
}

/** Whether a text was refused because it contains no visible characters. */
function isInvisible(error: ErrorObject): boolean {
  return error.keyword === 'text' && faultOfText(error.schema as TextKind, error.data as string) === 'blank';
}

function isBlank(value: unknown): boolean {
  return value === null || (typeof value === 'string' && value.trim() === '');
}

function shown(value: unknown): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
  return text.length <= 100 ? text : `${text.slice(0, 100).toWellFormed()}…`;
}

/** The top-level property that contains text a database cannot store unchanged; undefined if there is none. */
function findUnstorable(value: unknown, top = ''): { place: string; what: string } | undefined {
  if (typeof value === 'string') {
    if (value.includes('\0')) return { place: top, what: 'the NUL character' };
    return value.isWellFormed() ? undefined : { place: top, what: 'surrogates without their counterparts' };
  }
  if (typeof value !== 'object' || value === null) return undefined;
  for (const [key, inner] of Object.entries(value)) {
    const place = top === '' ? key.replaceAll('\0', '').toWellFormed() : top;
    const found = findUnstorable(key, place) ?? findUnstorable(inner, place);
    if (found !== undefined) return found;
  }
  return undefined;
}
