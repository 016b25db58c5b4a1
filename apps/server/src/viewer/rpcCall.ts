import secureJson from 'secure-json-parse';
import { parseChangesetId, parseGuid } from '../domain.ts';
import { detail, type ErrorDetail } from '../errors.ts';
import { kindOf, refusedOperations, type OperationKind } from './operations.ts';

/** A call of a viewer that names one checkpoint, in its path and in every parameter. */
export interface RpcCall {
  iTwinId: string;
  iModelId: string;
  /** `""` for the baseline. */
  changesetId: string;
  interfaceName: string;
  version: string;
  operation: string;
  kind: OperationKind;
  /** Whether the parameters begin with the checkpoint; `queryVersionInfo` has no parameters. */
  hasToken: boolean;
  /** The parameters after the checkpoint. */
  rest: unknown[];
}

/** Maximum nesting depth of parameters: rulesets of Presentation are the deepest. */
const maxDepth = 64;
/** Longest parameters in an address, as base64: the front end sends longer ones in the body. */
export const maxParametersInAddress = 8 * 1024;

/** A call is refused. */
export class CallFault extends Error {
  readonly details: ErrorDetail[];
  constructor(...details: ErrorDetail[]) {
    super(details.map(({ message }) => message).join(' '));
    this.name = 'CallFault';
    this.details = details;
  }
}

const wrong = (target: string, message: string): CallFault => new CallFault(detail.invalidValue(target, message));

/**
 * Reads a call and checks that it is permitted, and that everything in it names the iModel and the changeset of its path.
 * iTwin.js finds an open iModel by the key in the parameters alone, so a key that differs from the path would read
 * another iModel.
 * @param text the parameters as JSON
 * @throws CallFault
 */
export function parseCall(params: Record<string, string | undefined>, text: string): RpcCall {
  if (params['mode'] !== '1') throw wrong('mode', "The mode must be '1': checkpoints are read-only.");
  const [iTwinId, iModelId] = [parseGuid(params['iTwinId'] ?? ''), parseGuid(params['iModelId'] ?? '')];
  const changesetId = params['changeset'] === '0' ? '' : parseChangesetId(params['changeset'] ?? '');
  if (iTwinId === undefined) throw wrong('iTwinId', 'It must be a GUID.');
  if (iModelId === undefined) throw wrong('iModelId', 'It must be a GUID.');
  if (changesetId === undefined) throw wrong('changeset', "It must be the id of a changeset, or '0' for the baseline.");
  const named = operationOf(params['operation'] ?? '');
  const parameters = parametersOf(text);
  const names = { iTwinId, iModelId, changesetId };
  requireSame(parameters, names, 0);
  if (named.operation === 'queryVersionInfo') return { ...names, ...named, hasToken: false, rest: [] };
  const [token, ...rest] = parameters;
  const given = token as { iModelId?: unknown } | null | undefined;
  if (typeof given !== 'object' || typeof given?.iModelId !== 'string')
    throw wrong('parameters', 'The first parameter must name the iModel.');
  return { ...names, ...named, hasToken: true, rest };
}

function operationOf(text: string): Pick<RpcCall, 'interfaceName' | 'version' | 'operation' | 'kind'> {
  const [, interfaceName = '', version = '', operation = ''] =
    /^([A-Za-z]{1,64})-(\d{1,4}\.\d{1,4}\.\d{1,4}(?:-[\w.]{1,32})?)-([A-Za-z0-9]{1,64})$/.exec(text) ?? [];
  const name = `${interfaceName}.${operation}`;
  const kind = kindOf(name);
  if (kind !== undefined) return { interfaceName, version, operation, kind };
  throw wrong('operation', refusedOperations.get(name) ?? 'This server does not know the operation.');
}

function parametersOf(text: string): unknown[] {
  let value: unknown;
  try {
    value = secureJson.parse(text);
  } catch {
    throw new CallFault(detail.invalidBody());
  }
  if (!Array.isArray(value)) throw wrong('parameters', 'The parameters must be an array.');
  return value;
}

/** Requires that every object that names an iModel, at any depth, names the one of the path. */
function requireSame(
  value: unknown,
  names: Pick<RpcCall, 'iTwinId' | 'iModelId' | 'changesetId'>,
  depth: number,
): void {
  if (typeof value !== 'object' || value === null) return;
  if (depth > maxDepth) throw new CallFault(detail.bodyTooDeep(maxDepth));
  if (Array.isArray(value)) {
    for (const each of value) requireSame(each, names, depth + 1);
    return;
  }
  const { iModelId, iTwinId, key, changeset } = value as Record<string, unknown>;
  if (iModelId !== undefined || (iTwinId !== undefined && key !== undefined)) {
    const sameKey = key === undefined || key === '' || isKeyOf(key, names);
    const { id } = (changeset ?? {}) as { id?: unknown };
    const sameChangeset = id === undefined || (typeof id === 'string' && id.toLowerCase() === names.changesetId);
    if (!isGuid(iModelId, names.iModelId) || !isGuid(iTwinId, names.iTwinId) || !sameKey || !sameChangeset)
      throw wrong('parameters', 'The parameters must name the iModel and the changeset of the path.');
  }
  for (const each of Object.values(value)) requireSame(each, names, depth + 1);
}

function isGuid(value: unknown, guid: string): boolean {
  return typeof value === 'string' && value.toLowerCase() === guid;
}

function isKeyOf(key: unknown, { iModelId, changesetId }: Pick<RpcCall, 'iModelId' | 'changesetId'>): boolean {
  return typeof key === 'string' && key.toLowerCase() === `${iModelId}:${changesetId}`;
}

/** The path of a call at the back end. */
export function pathOf({ iTwinId, iModelId, changesetId, interfaceName, version, operation }: RpcCall): string {
  const changeset = changesetId === '' ? '0' : changesetId;
  return `/offshoot/1/mode/1/context/${iTwinId}/imodel/${iModelId}/changeset/${changeset}/${interfaceName}-${version}-${operation}`;
}

/** The parameters of a call as JSON. The server names the checkpoint itself: what the caller wrote is not passed on. */
export function parametersText({ iTwinId, iModelId, changesetId, hasToken, rest }: RpcCall, index: number): string {
  const token = { key: `${iModelId}:${changesetId}`, iTwinId, iModelId, changeset: { id: changesetId, index } };
  return JSON.stringify(hasToken ? [token, ...rest] : []);
}
