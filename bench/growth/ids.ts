const hex = (n: number, digits: number): string => n.toString(16).padStart(digits, '0');

/** A GUID that sorts unlike its number, as random ones do. @param kind keeps the ids of tables apart */
export function idOf(kind: 'user' | 'iTwin' | 'iModel' | 'group' | 'job' | 'blob' | 'version', n: number): string {
  const kinds = ['user', 'iTwin', 'iModel', 'group', 'job', 'blob', 'version'];
  return `${hex(Math.imul(n + 1, 0x9e3779b1) >>> 0, 8)}-0000-4000-8000-${hex(kinds.indexOf(kind) + 1, 4)}${hex(n, 8)}`;
}

export const changesetId = (index: number): string => hex(index, 40);
