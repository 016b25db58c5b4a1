import { environment } from '../config.ts';

/** Every variable that the server or one of its commands reads. */
const known = [
  ...Object.keys(environment),
  'OFFSHOOT_CONFIG',
  'OFFSHOOT_ITWINJS_KEY',
  'OFFSHOOT_URL',
  'OFFSHOOT_TOKEN',
  'OFFSHOOT_SOURCE_TOKEN',
  'OFFSHOOT_NO_BROWSER',
  'OFFSHOOT_DEBUG',
];

/** Names that something else sets: Kubernetes for a service of the name `offshoot`, and the tests of this project. */
const ofOthers = /^OFFSHOOT_(SERVICE_|PORT_\d|TEST|FUZZ_|CHAOS_|WRITE_)/;

/** Most single-letter changes between a name and the one that was meant. */
const mostEdits = 3;

/** Variables whose name begins like that of a setting, and is none, with the nearest real name if one is near. */
export function unknownVariables(env: NodeJS.ProcessEnv): { name: string; nearest: string | undefined }[] {
  return Object.keys(env)
    .filter((name) => /^OFFSHOOT_/i.test(name) && !known.includes(name) && !ofOthers.test(name))
    .sort()
    .map((name) => {
      const [best] = known
        .map((each) => ({ each, edits: distance(name.toUpperCase(), each) }))
        .sort((a, b) => a.edits - b.edits);
      return { name, nearest: best !== undefined && best.edits <= mostEdits ? best.each : undefined };
    });
}

/** Levenshtein distance: the letters to insert, remove or replace. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, n) => n);
  for (const [i, letter] of Array.from(a).entries()) {
    const next = [i + 1];
    for (const [j, other] of Array.from(b).entries())
      next.push(
        Math.min((next[j] as number) + 1, (row[j + 1] as number) + 1, (row[j] as number) + (letter === other ? 0 : 1)),
      );
    row = next;
  }
  return row[b.length] as number;
}
