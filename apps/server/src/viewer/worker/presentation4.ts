import { RpcInterface, RpcManager, RpcPendingResponse, RpcRegistry } from '@itwin/core-common';
import {
  PresentationRpcInterface,
  PresentationStatus,
  type Node,
  type NodePathElement,
} from '@itwin/presentation-common';

/**
 * `PresentationRpcInterface` 4.1.0, the version of front ends of iTwin.js 4, which refuse and are refused by 5.0.0. Both have the
 * same operations. The registry of core-common has one version of each interface, so this one has a name of its own, and each
 * operation is answered by the implementation of 5.0.0, with what differs translated:
 *
 * - `getPagedNodes` and `getNodePaths`: the label of a node is its `labelDefinition` in 4.x, and the counts of filters have other names.
 * - `getContentDescriptor`: 5.x answers with JSON as text. Older front ends expect it parsed, and do not ask for `transport`.
 * - `computeSelection`: front ends of 4.x may send the ids and the scope as parameters of their own.
 * - The key of a node without a version is one of version 1.
 * - A failure is an answer with a status; so is a request that takes longer, after which a front end of 4.x asks again at once.
 */
class Presentation4RpcInterface extends RpcInterface {
  static readonly interfaceName = 'PresentationRpcInterface4';
  static readonly interfaceVersion = '4.1.0';
}

/** `PresentationStatus.BackendTimeout`, which 5.x deprecates because it does not send it any more. */
const backendTimeout = 65543;

/** An answer of either version. */
interface Response {
  statusCode: number;
  errorMessage?: string;
  result?: unknown;
}

type Operation = (...parameters: unknown[]) => Promise<Response>;
type Options = Readonly<Record<string, unknown>>;

/** Registers the operations. `Presentation.initialize` must have been called. */
export function registerPresentation4(): typeof Presentation4RpcInterface {
  for (const name of Object.getOwnPropertyNames(PresentationRpcInterface.prototype)) {
    if (name in RpcInterface.prototype) continue;
    const value: Operation = (...parameters) => answer(name, parameters);
    Object.defineProperty(Presentation4RpcInterface.prototype, name, { value });
  }
  RpcManager.registerImpl(Presentation4RpcInterface, Presentation4RpcInterface);
  return Presentation4RpcInterface;
}

/** The address of a request, with the name of the interface that answers its version. */
export function withPresentation4(address: string): string {
  return address.replace(/\/PresentationRpcInterface-(?=4\.[^/]*$)/, `/${Presentation4RpcInterface.interfaceName}-`);
}

async function answer(name: string, [token, options, ...rest]: unknown[]): Promise<Response> {
  const implementation = RpcRegistry.instance.getImplForInterface(PresentationRpcInterface) as unknown as Record<
    string,
    Operation
  >;
  const given: Options = typeof options === 'object' && options !== null ? { ...options } : {};
  try {
    const { result, ...others } = (await implementation[name]?.(token, optionsOf(name, given, rest))) as Response;
    return result === undefined ? others : { ...others, result: resultOf(name, given, result) };
  } catch (error) {
    if (error instanceof RpcPendingResponse) return { statusCode: backendTimeout };
    const { errorNumber, message } = error as Error & { errorNumber?: number };
    return { statusCode: errorNumber ?? PresentationStatus.Error, errorMessage: message };
  }
}

/** The options of a request of 4.x as those of 5.x. */
function optionsOf(name: string, options: Options, [elementIds, scopeId]: unknown[]): Options {
  const { parentKey } = options;
  if (name === 'computeSelection' && options['elementIds'] === undefined)
    return { ...options, elementIds, scope: { id: scopeId } };
  if (typeof parentKey === 'object' && parentKey !== null)
    return { ...options, parentKey: { version: 1, ...parentKey } };
  return options;
}

/** The result of 5.x as that of 4.x. */
function resultOf(name: string, options: Options, result: unknown): unknown {
  switch (name) {
    case 'getPagedNodes': {
      const { items, ...others } = result as { items: Node[] };
      return { ...others, items: items.map(nodeOf) };
    }
    case 'getNodePaths':
    case 'getFilteredNodePaths':
      return (result as NodePathElement[]).map(pathElementOf);
    case 'getContentDescriptor':
      return options['transport'] === undefined && typeof result === 'string' ? JSON.parse(result) : result;
    default:
      return result;
  }
}

function nodeOf({ label, ...others }: Node): object {
  return { ...others, labelDefinition: label };
}

function pathElementOf({ node, children, filteringData, ...others }: NodePathElement): object {
  const counts = filteringData && {
    occurances: filteringData.matchesCount,
    childrenOccurances: filteringData.childMatchesCount,
  };
  return { ...others, node: nodeOf(node), children: children.map(pathElementOf), filteringData: counts };
}
