import assert from 'node:assert/strict';
import { startOffshoot } from '@offshoot/testing';

let hub;
let fixture;
export const prepare = async () => {
  hub = await startOffshoot();
  fixture = await hub.createIModel();
};
/** The iModel of one test is a clone that the API lists. */
export const check = async () => {
  const clone = await hub.clone(fixture);
  const response = await fetch(`${hub.baseUrl}/${clone}`, {
    headers: { authorization: `Bearer ${await hub.token()}` },
  });
  assert.equal((await response.json()).iModel.iTwinId, hub.iTwinId);
};
export const tidy = () => hub.stop();
