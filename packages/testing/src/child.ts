/**
 * The process of the server: runs the command line of the installed package `offshoot` with the arguments that it gets. When
 * it ends, it removes the folder that the environment names, so that nothing is left if the test process was killed.
 */
import { readFileSync, rmSync } from 'node:fs';
import { findPackageJSON } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { folderVariable } from './serverProcess.ts';

const folder = process.env[folderVariable];
if (folder !== undefined) process.once('exit', () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

const manifest = findPackageJSON('offshoot', import.meta.url);
if (manifest === undefined) throw new Error('the package offshoot is not installed');
const { bin } = JSON.parse(readFileSync(manifest, 'utf8')) as { bin: { offshoot: string } };
await import(pathToFileURL(path.join(path.dirname(manifest), bin.offshoot)).href);
