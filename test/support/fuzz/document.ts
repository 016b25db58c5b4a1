import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';

/** The part of JSON Schema that the API document uses. */
export interface Schema {
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  anyOf?: Schema[];
  not?: Schema;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  minItems?: number;
  maxItems?: number;
  uniqueItems?: boolean;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
  format?: string;
  minimum?: number;
  maximum?: number;
}
interface Content {
  content?: Record<string, { schema: Schema }>;
}
export interface Operation {
  operationId: string;
  method: string;
  /** As in the document: `/imodels/{iModelId}`. */
  path: string;
  parameters?: { name: string; in: 'path' | 'query' | 'header'; required: boolean; schema: Schema }[];
  requestBody?: Content;
  responses: Record<string, Content>;
}
/** `/openapi.json` of a server. */
export interface ApiDocument {
  paths: Record<string, Record<string, Omit<Operation, 'method' | 'path'>>>;
}

export function operationsOf(document: ApiDocument): Operation[] {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ ...operation, method: method.toUpperCase(), path })),
  );
}

const ajv = new Ajv2020({ strict: false, validateFormats: false });
const compiled = new WeakMap<Schema, ValidateFunction>();

/** The deviation of an answer from the document; undefined if it conforms. */
export function faultOfAnswer(
  operation: Operation,
  status: number,
  type: string | undefined,
  body: Buffer,
): string | undefined {
  const declared = operation.responses[status];
  if (declared === undefined) return `status ${status} is not declared`;
  if (declared.content === undefined) return body.length === 0 ? undefined : 'has a body, where none is declared';
  const media = type?.split(';')[0] ?? '';
  const schema = declared.content[media]?.schema;
  if (schema === undefined) return `has the undeclared media type '${media}'`;
  if (media !== 'application/json') return undefined;
  let value: unknown;
  try {
    value = JSON.parse(body.toString());
  } catch {
    return 'is not JSON';
  }
  let check = compiled.get(schema);
  if (check === undefined) compiled.set(schema, (check = ajv.compile(schema)));
  return check(value) ? undefined : `does not match its schema: ${ajv.errorsText(check.errors)}`;
}
