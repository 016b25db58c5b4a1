import { defineConfig } from 'vite';

export default defineConfig({
  // The path below which a proxy serves the console is not known when it is built.
  base: './',
  build: {
    outDir: '../server/dist/console',
    emptyOutDir: true,
    target: 'es2023',
    // Inlined files would need exceptions in the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: 'licences.md' },
    chunkSizeWarningLimit: 700,
    rolldownOptions: {
      onwarn(warning, report) {
        // Libraries mark their files for servers that render them; here everything runs in the browser.
        if (warning.code !== 'MODULE_LEVEL_DIRECTIVE') report(warning);
      },
    },
  },
});
