#!/usr/bin/env node
'use strict';
// Plain JavaScript that any Node parses: an older one cannot load the program itself, and would print a stack instead of the reason.
const { existsSync } = require('fs');
const { join } = require('path');
const { pathToFileURL } = require('url');

const oldest = 24;

if (Number(process.versions.node.split('.')[0]) < oldest) {
  process.stderr.write(
    `offshoot: Offshoot needs Node ${oldest} or later; this is Node ${process.versions.node}. Install it from https://nodejs.org, or in this folder with \`npm install node@${oldest}\`.\n`,
  );
  process.exitCode = 1;
} else {
  require('./compileCache.cjs');
  // The package holds compiled code only. A checkout has the sources, which Node runs without a build.
  const source = join(__dirname, '..', 'src', 'cli.ts');
  const program = existsSync(source) ? source : join(__dirname, '..', 'dist', 'cli.js');
  import(pathToFileURL(program).href);
}
