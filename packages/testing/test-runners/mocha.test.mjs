import { after, before, describe, it } from 'mocha';
import { check, prepare, tidy } from './promise.mjs';

describe('@offshoot/testing', function () {
  this.timeout(60_000);
  before(prepare);
  after(tidy);
  it('works in Mocha', check);
});
