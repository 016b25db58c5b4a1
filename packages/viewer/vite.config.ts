import { cpSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { defineConfig, type Plugin } from 'vite';

/** Files smaller than this are not worth a compressed variant, bytes. */
const smallestCompressed = 1024;

/** The server sends the compressed variants that it finds beside a file. */
function compress(file: string): void {
  const bytes = readFileSync(file);
  if (bytes.length < smallestCompressed) return;
  writeFileSync(`${file}.gz`, gzipSync(bytes, { level: 9 }));
  // Quality 11 takes 20 s for the largest file and saves another 8 percent.
  writeFileSync(`${file}.br`, brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 9 } }));
}

/** The packages bring texts, cursors, sprites and a worker, which they look for beside the page. */
function publicFiles(): Plugin {
  let output = '';
  return {
    name: 'public-files',
    apply: 'build',
    configResolved: ({ root, build }) => {
      output = path.resolve(root, build.outDir);
    },
    closeBundle: () => {
      const folders = globSync('node_modules/@itwin/{*,web-viewer-react/node_modules/@itwin/*}/lib/public', {
        cwd: import.meta.dirname,
      });
      for (const folder of folders) cpSync(path.join(import.meta.dirname, folder), output, { recursive: true });
      for (const file of globSync('**/*.{js,css,svg,json,md}', { cwd: output })) compress(path.join(output, file));
    },
  };
}

export default defineConfig({
  // The path below which a proxy serves the viewer is not known when it is built.
  base: './',
  plugins: [publicFiles()],
  // The style sheets of AppUI name packages in the way of webpack.
  resolve: { alias: [{ find: /^~/, replacement: '' }] },
  build: {
    emptyOutDir: true,
    target: 'es2023',
    // Inlined files would need exceptions in the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: 'licences.md' },
    chunkSizeWarningLimit: 10_000,
    rolldownOptions: {
      onwarn(warning, report) {
        if (warning.code !== 'MODULE_LEVEL_DIRECTIVE') report(warning);
      },
    },
  },
});
