import { serverAddress } from '../base.ts';
import { ApiFault, faultOf } from '../api/fault.ts';

/** Where users sign in. */
export interface ConsoleIssuer {
  name: string;
  authority: string;
  clientId: string;
  scope: string;
}

/** `/console.json` of the server. */
export interface ConsoleSettings {
  version: string;
  /** Address at which users sign in, without a slash at the end. */
  address: string;
  issuers: ConsoleIssuer[];
  /** Why nobody can sign in at the server itself, as a sentence. */
  refused: string | null;
  /** Nobody has a password yet: the server prints a link for the first account when it starts. */
  needsFirstAccount: boolean;
  /** Rate limits by operation. */
  limits: Record<string, { requests: number; seconds: number } | undefined>;
  guide: string;
  document: string;
  /** The page with the iTwin viewer, which a server may not have. */
  viewer: { page: boolean } | null;
}

const answerMs = 20_000;

export async function readSettings(): Promise<ConsoleSettings> {
  let response: Response;
  try {
    response = await fetch(`${serverAddress}/console.json`, { signal: AbortSignal.timeout(answerMs) });
  } catch {
    throw new ApiFault(0, 'NoAnswer', 'The server does not answer.');
  }
  if (!response.ok) throw await faultOf(response);
  return (await response.json()) as ConsoleSettings;
}
