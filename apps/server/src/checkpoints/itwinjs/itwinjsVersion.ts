import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

let found: string | undefined;

/** Version of the installed iTwin.js; `""` if it is not installed. */
export function iTwinJsVersion(): string {
  return (found ??= find());
}

function find(): string {
  try {
    // The package does not export its package.json, so search the folders above its entry point.
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
