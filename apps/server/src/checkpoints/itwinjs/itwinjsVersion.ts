import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

let found: string | undefined;

/** Version of the iTwin.js that is installed here; `""` without one. */
export function iTwinJsVersion(): string {
  return (found ??= find());
}

function find(): string {
  try {
    // Its exports do not include package.json: that lies above its entry.
    for (
      let folder = path.dirname(fileURLToPath(import.meta.resolve('@itwin/core-backend')));
      folder !== path.dirname(folder);
      folder = path.dirname(folder)
    ) {
      const file = path.join(folder, 'package.json');
      const { name, version } = existsSync(file)
        ? (JSON.parse(readFileSync(file, 'utf8')) as { name?: string; version?: string })
        : {};
      if (name === '@itwin/core-backend' && version !== undefined) return version;
    }
  } catch {
    // Not installed.
  }
  return '';
}
