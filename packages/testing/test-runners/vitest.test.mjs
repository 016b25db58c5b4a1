import { afterAll, beforeAll, test } from 'vitest';
import { check, prepare, tidy } from './promise.mjs';

beforeAll(prepare, 60_000);
afterAll(tidy);
test('works in Vitest', check);
