import { BlockList, isIP } from 'node:net';
import type { Config } from '../config.ts';

type Trusts = (address: string | undefined, hop: number) => boolean;

const trustsPeer: Trusts = (_address, hop) => hop === 0;
const trustsNone: Trusts = () => false;
const ofLists = new WeakMap<readonly string[], Trusts>();

/**
 * Decides whether to trust the `X-Forwarded-*` headers sent by an address. `true` trusts the direct peer only, not the
 * addresses listed before it: a client can put any number of addresses into the header before its proxy appends the real one.
 * @param setting `true`, or the addresses and networks (`10.0.0.0/8`) of all proxies in the chain
 */
export function proxyTrust(setting: Config['trustProxy']): Trusts {
  if (typeof setting === 'boolean') return setting ? trustsPeer : trustsNone;
  let trusts = ofLists.get(setting);
  if (trusts === undefined) {
    const list = new BlockList();
    for (const entry of setting) {
      const [address = '', prefix] = entry.split('/');
      const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
      if (prefix === undefined) list.addAddress(address, family);
      else list.addSubnet(address, Number(prefix), family);
    }
    trusts = (address) => address !== undefined && list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
    ofLists.set(setting, trusts);
  }
  return trusts;
}
