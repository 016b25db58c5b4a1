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

/** Whether a text is an address, or a network in CIDR notation. */
export function isNetwork(text: string): boolean {
  const [address = '', prefix, ...more] = text.split('/');
  const version = isIP(address);
  return (
    version !== 0 &&
    more.length === 0 &&
    (prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (version === 4 ? 32 : 128)))
  );
}

/** What counts as one sender: an IPv4 address, or the /64 network of an IPv6 address, of which a sender has all. */
export function senderOf(address: string): string {
  const [bare = ''] = address.split('%');
  const embedded = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(bare)?.[1];
  if (embedded !== undefined || isIP(bare) !== 6) return embedded ?? bare;
  const [head = [], tail = []] = bare
    .toLowerCase()
    .split('::')
    .map((part) => part.split(':').filter((group) => group !== ''));
  return [...head, ...Array.from({ length: Math.max(0, 8 - head.length - tail.length) }, () => '0'), ...tail]
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ''))
    .join(':');
}
