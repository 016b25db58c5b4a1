import type { Page, PagePosition } from '../db/keysetPaging.ts';
import type { DirectAccess } from '../storage/blobStore.ts';
import type { Blobs, Placed } from '../storage/blobs.ts';
import { account, type LinkOrigin, type SignedLinks } from '../storage/signedLinks.ts';
import { completionMs } from '../storage/uploads.ts';
import { parametersOf } from './paging.ts';

export interface Link {
  href: string;
}
/**
 * Rule of the wire: the type selects the transfer client. `azure` uses the Azure Blob protocol, `google` follows
 * redirects.
 */
export interface StorageLink extends Link {
  storageType: 'azure' | 'google';
}
/** A file that can be downloaded. */
export interface Downloadable {
  blobId: string;
  fileName: string;
}

/**
 * Who follows the links of a response. `page`: a page in a browser, whose requests the CORS rules of a store may reject.
 * `console`: the page of this server, whose policy allows no other host.
 */
export type LinkClient = 'program' | 'page' | 'console';

/** The client that sent a request. The console names itself, because browsers send no `Origin` with its reads. */
export function linkClientOf({ headers }: { headers: Record<string, string | string[] | undefined> }): LinkClient {
  if (headers['offshoot-console'] !== undefined) return 'console';
  return headers['origin'] === undefined ? 'program' : 'page';
}

/**
 * Builds the absolute links of one response. Rule of the wire: every link to a resource of an iModel contains
 * `/imodels/{id}`, because clients extract ids from it.
 */
export class Links {
  readonly #origin: string;
  readonly #signed: SignedLinks;
  readonly #blobs: Blobs;
  readonly #client: LinkClient;
  readonly #through: LinkOrigin | undefined;
  /** Upload links in this response. */
  readonly #uploads = new Map<string, { blobId: string; fileName: string }>();

  /**
   * @param origin the server's origin as the client sees it, without a trailing slash
   * @param client who follows the links
   * @param through the share of the caller. Links expire with it, so they point to this server, which knows when it
   * ends
   */
  constructor(origin: string, client: LinkClient, signed: SignedLinks, blobs: Blobs, through: LinkOrigin | undefined) {
    this.#origin = origin;
    this.#client = client;
    this.#through = through;
    this.#signed = signed;
    this.#blobs = blobs;
  }

  imodel(iModelId: string, rest = ''): string {
    return `${this.#origin}/imodels/${iModelId}${rest}`;
  }

  to(iModelId: string, rest: string): Link {
    return { href: this.imodel(iModelId, rest) };
  }

  user(iModelId: string, userId: string): Link {
    return this.to(iModelId, `/users/${encodeURIComponent(userId)}`);
  }

  /** A new download link. */
  async download(file: Downloadable): Promise<StorageLink> {
    const [link] = await this.downloads([file]);
    return link as StorageLink;
  }

  /**
   * New download links, in the order of the files. They point directly to the store if clients can reach it.
   * Rule of the API: each read of a changeset returns a new link that contains its id, even if two changesets share a
   * blob.
   */
  async downloads(files: readonly Downloadable[]): Promise<StorageLink[]> {
    const { stores } = this.#blobs;
    const places = stores.anyDirect
      ? await this.#blobs.places(files.map(({ blobId }) => blobId))
      : new Map<string, Placed>();
    const links: StorageLink[] = [];
    for (const { blobId, fileName } of files) {
      const place = places.get(blobId);
      const direct = this.#direct(place);
      const href =
        direct?.downloads === 'link' && place?.key != null
          ? await direct.downloadLink(place.key, fileName, this.#signed.expiry())
          : this.#signed.make(this.#origin, { resource: `blobs/${blobId}`, fileName, permission: 'r' }, this.#through);
      links.push({ href, storageType: direct?.downloads === 'redirect' ? 'google' : 'azure' });
    }
    return links;
  }

  /** A new download link for a complete model file as one iModel sees it. */
  modelFile(fileId: string, iModelId: string, fileName: string): StorageLink {
    return {
      href: this.#signed.make(
        this.#origin,
        { resource: `files/${fileId}/${iModelId}`, fileName, permission: 'r' },
        this.#through,
      ),
      storageType: 'azure',
    };
  }

  /**
   * A link to a file of graphics, which this server decompresses for clients that cannot.
   * @param holder id of the caller
   */
  graphics(blobId: string, fileName: string, holder: string): string {
    return this.#signed.makeRepeatable(
      this.#origin,
      { resource: `graphics/${blobId}`, fileName },
      holder,
      this.#through,
    );
  }

  /** The base address of checkpoint containers, and a token for one container. */
  container(container: string, lifeSeconds: number): { baseUrl: string; token: string } {
    return {
      baseUrl: `${this.#origin}/${account}`,
      token: this.#signed.containerToken(container, lifeSeconds, this.#through),
    };
  }

  /** A link to upload one file. It points directly to the store if clients can reach it. */
  async upload(blobId: string, fileName: string): Promise<StorageLink> {
    const { stores } = this.#blobs;
    const place = stores.anyDirectUploads ? (await this.#blobs.places([blobId])).get(blobId) : undefined;
    const uploads = this.#direct(place)?.uploads;
    const href =
      uploads === undefined
        ? this.#signed.make(this.#origin, { resource: `blobs/${blobId}`, fileName, permission: 'w' })
        : // The store cannot tell whether an upload began in time: the link is valid while the server accepts the file.
          await uploads.link(blobId, Math.max(this.#signed.expiry(), Date.now() + completionMs));
    this.#uploads.set(href, { blobId, fileName });
    return { href, storageType: 'azure' };
  }

  /** The blob and file name of an upload link of this response; undefined for other addresses. */
  uploadAt(href: string): { blobId: string; fileName: string } | undefined {
    return this.#uploads.get(href);
  }

  /** Direct access to the store of a blob; undefined if this client must use the server instead. */
  #direct(place: Placed | undefined): DirectAccess | undefined {
    const direct =
      place === undefined || this.#through !== undefined ? undefined : this.#blobs.stores.get(place.store).direct;
    if (direct === undefined || this.#client === 'console') return undefined;
    return this.#client === 'page' && !direct.pages ? undefined : direct;
  }

  /** `_links` of a list. They repeat every parameter of the request, so that a client can follow a link as it is. */
  page(
    path: string,
    rawQuery: Record<string, unknown>,
    page: Page<unknown>,
  ): { self: Link; prev: Link | null; next: Link | null } {
    const link = (position: PagePosition | undefined): Link | null => {
      if (position === undefined) return null;
      const kept = Object.entries(rawQuery).filter(
        ([name]) => name !== '$skip' && name !== '$continuationToken' && name !== '$top',
      );
      return { href: this.#list(path, [...kept, ...Object.entries(parametersOf(position))]) };
    };
    return { self: { href: this.#list(path, Object.entries(rawQuery)) }, prev: link(page.prev), next: link(page.next) };
  }

  #list(path: string, query: [string, unknown][]): string {
    const text = new URLSearchParams(query.map(([name, value]): [string, string] => [name, String(value)]))
      .toString()
      .replaceAll('%24', '$');
    return `${this.#origin}${path}${text === '' ? '' : `?${text}`}`;
  }
}
