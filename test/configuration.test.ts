import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { configurationDocument, configurationFile, undescribedSettings } from './support/configuration.ts';

test('every setting, nested ones too, has a description', () => {
  assert.deepEqual(undescribedSettings(), []);
});

test('docs/configuration.md lists every setting with its type, default and variable from the schema', () => {
  if (process.env['OFFSHOOT_WRITE_CONFIGURATION'] !== undefined)
    writeFileSync(configurationFile, configurationDocument());
  assert.ok(
    readFileSync(configurationFile, 'utf8') === configurationDocument(),
    'docs/configuration.md is not what the schema says: npm run configuration',
  );
});
