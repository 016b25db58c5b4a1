import { after, before, test } from 'node:test';
import { check, prepare, tidy } from './promise.mjs';

before(prepare);
after(tidy);
test('works in node:test', check);
