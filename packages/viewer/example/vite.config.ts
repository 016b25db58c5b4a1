import { cpSync, globSync } from 'node:fs';
import path from 'node:path';
import { defineConfig, type Plugin } from 'vite';

/** Where the packages are: beside this file in a project of your own. */
const packages = path.join(import.meta.dirname, '../node_modules');

/** Texts, cursors, sprites and a worker, which the packages look for beside the page. */
function publicFiles(): Plugin {
  const folders = globSync('@itwin/{*,web-viewer-react/node_modules/@itwin/*}/lib/public', { cwd: packages });
  let output = '';
  return {
    name: 'public-files',
    configResolved: ({ root, build }) => {
      output = path.resolve(root, build.outDir);
    },
    closeBundle: () => {
      for (const folder of folders) cpSync(path.join(packages, folder), output, { recursive: true });
    },
  };
}

export default defineConfig({
  plugins: [publicFiles()],
  // The style sheets of AppUI name packages in the way of webpack.
  resolve: { alias: [{ find: /^~/, replacement: '' }] },
  build: { target: 'es2023' },
});
