import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ApiFault } from '../../apps/console/src/api/fault.ts';
import { faultText } from '../../apps/console/src/faultText.ts';
import { errorTable } from '../../apps/server/src/errors.ts';

const locale = (language: string): Record<string, unknown> =>
  JSON.parse(
    readFileSync(new URL(`../../apps/console/src/locales/${language}.json`, import.meta.url), 'utf8'),
  ) as Record<string, unknown>;

const texts = { en: locale('en'), de: locale('de') };

type Translate = NonNullable<Parameters<typeof faultText>[1]>;

/** The text of a key, as the library of the console finds it. */
function translator(language: 'en' | 'de'): Translate {
  const find = (key: string): unknown =>
    key.split('.').reduce<unknown>((at, part) => (at as Record<string, unknown> | undefined)?.[part], texts[language]);
  const translate = (key: string, values: Record<string, unknown> = {}): string => {
    const text = find(key) ?? find(`${key}_${values['count'] === 1 ? 'one' : 'other'}`);
    assert.equal(typeof text, 'string', `${language} has no text ${key}`);
    return (text as string).replace(/\{\{(\w+)\}\}/g, (_, name: string) => String(values[name]));
  };
  return translate as unknown as Translate;
}

const t = { en: translator('en'), de: translator('de') };

/** What a text says by key, and what it leaves open for values. */
function* entries(value: unknown, path = ''): Generator<[key: string, open: string]> {
  if (typeof value === 'string') yield [path, [...new Set(value.match(/\{\{\w+\}\}/g) ?? [])].sort().join(' ')];
  else for (const [key, each] of Object.entries(value as object)) yield* entries(each, `${path}.${key}`);
}

test('German has every text of English, with the same values in it', () => {
  assert.deepEqual([...entries(texts.de)].sort(), [...entries(texts.en)].sort());
});

test('every error of the server has a text in both languages, or is shown with the message of the server', () => {
  for (const [code, [status, message]] of Object.entries(errorTable)) {
    const fault = new ApiFault(status, code, message, { retryAfter: 7 });
    const [en, de] = [faultText(fault, t.en), faultText(fault, t.de)];
    for (const { title, text } of [en, de]) {
      assert.ok(title !== '' && text !== '', code);
      assert.doesNotMatch(`${title} ${text}`, /faults\.|\{\{|undefined/, code);
    }
    assert.notEqual(en.title, de.title, code);
    if (!de.text.includes(message)) assert.notEqual(en.text, de.text, code);
  }
});

test('what may be corrected in a form is said with the details of the server', () => {
  const fault = new ApiFault(422, 'InvalidiModelsRequest', 'Cannot create iModel.', {
    details: [{ code: 'InvalidValue', message: "'name' is too long.", target: 'name' }],
  });
  assert.match(faultText(fault, t.en).text, /^Cannot create iModel\. 'name' is too long\.$/);
  const quota = new ApiFault(403, 'Other', '', { details: [{ code: 'ResourceQuotaExceeded', message: 'Full.' }] });
  assert.match(faultText(quota, t.de).text, /^Full\. Löschen Sie/);
});

test('an error of a proxy, and one of the console itself, are said in words too', () => {
  assert.equal(faultText(new ApiFault(502, 'Unknown', ''), t.en).title, 'The server has a problem');
  assert.equal(faultText(new ApiFault(418, 'Unknown', ''), t.en).text, 'HTTP 418');
  assert.equal(faultText(new TypeError('x is not a function'), t.en).title, 'Something went wrong');
});
