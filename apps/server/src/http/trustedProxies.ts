import { BlockList, isIP } from 'node:net';
import type { Config } from '../config.ts';

type Trusts = (address: string | undefined, hop: number) => boolean;

const ofLists = new WeakMap<readonly string[], Trusts>();

/**
 * Whether the `X-Forwarded-*` headers that came from an address count. `true` trusts whoever connects, and nobody that this one
 * names in turn: a client may write any number of addresses into the header before its proxy adds the one that is true.
 * @param setting `true`, or addresses and networks (`10.0.0.0/8`) of all proxies in a row
 */
export function proxyTrust(setting: Config['trustProxy']): Trusts {
  if (typeof setting === 'boolean') return (_address, hop) => setting && hop === 0;
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
