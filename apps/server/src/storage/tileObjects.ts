import type { Readable } from 'node:stream';
import type { ByteRange, CallOptions, TileObjects } from './blobStore.ts';

/** The calls of an object service that tiles need. */
interface TileService {
  get(name: string, range?: ByteRange, options?: CallOptions): Promise<Readable>;
  replace(name: string, content: Buffer, options?: CallOptions): Promise<void>;
  remove(name: string, options?: CallOptions): Promise<void>;
  list(prefix: string, options?: CallOptions): AsyncIterable<{ name: string; size: number; modifiedAt: number }>;
  folders(prefix: string, options?: CallOptions): AsyncIterable<string>;
}

const tiles = 'tiles/';

/** The tiles of a store on an object service, one object each below `tiles/{content}/`. */
export function tilesOf(service: TileService): TileObjects {
  return {
    read: async (content, name, options) => service.get(nameOf(content, name), undefined, options),
    put: async (content, name, bytes, options) => service.replace(nameOf(content, name), bytes, options),
    delete: async (content, name, options) => service.remove(nameOf(content, name), options),
    contents: (options) => service.folders(tiles, options),
    async *list(content, options) {
      const prefix = content === undefined ? tiles : `${tiles}${requireName(content)}/`;
      for await (const { name, size, modifiedAt } of service.list(prefix, options)) {
        const [, found = '', tile = ''] = name.split('/');
        yield { content: found, name: tile, size, modifiedAt };
      }
    },
  };
}

function nameOf(content: string, name: string): string {
  return `${tiles}${requireName(content)}/${requireName(name)}`;
}

/** The server chooses all names. The check ensures that a bug elsewhere cannot access other objects. */
function requireName(name: string): string {
  if (!/^[\w-][\w.-]{0,199}$/.test(name)) throw new Error(`'${name}' is not the name of a tile`);
  return name;
}
