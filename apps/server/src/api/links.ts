import type { Page, PagePosition } from '../db/keysetPaging.ts';
import type { DirectAccess } from '../storage/blobStore.ts';
import type { Blobs, Placed } from '../storage/blobs.ts';
import { account, type LinkOrigin, type SignedLinks } from '../storage/signedLinks.ts';
import { completionMs } from '../storage/uploads.ts';
import { parametersOf } from './paging.ts';

export interface Link {
  href: string;
}
/** Rule of the wire: the type picks the client for the transfer. `azure` speaks Azure's protocol, `google` follows redirects. */
export interface StorageLink extends Link {
  storageType: 'azure' | 'google';
}
/** A file that can be downloaded. */
export interface Downloadable {
  blobId: string;
  fileName: string;
}

/**
 * Addresses for one response, all absolute. Rule of the wire: every address of something in an iModel contains
 * `/imodels/{id}`, from which clients take ids.
 */
export class Links {
  readonly #origin: string;
  readonly #signed: SignedLinks;
  readonly #blobs: Blobs;
  readonly #forPage: boolean;
  readonly #through: LinkOrigin | undefined;
  /** Upload links given out by this response. */
  readonly #uploads = new Map<string, { blobId: string; fileName: string }>();

  /**
   * @param origin the server as the client reaches it, without a slash at the end
   * @param forPage whether a page in a browser asks, which stores may not answer
   * @param through the share that the asker holds: links end with it, so they lead to this server, which knows when that is
   */
  constructor(origin: string, forPage: boolean, signed: SignedLinks, blobs: Blobs, through: LinkOrigin | undefined) {
    this.#origin = origin;
    this.#forPage = forPage;
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

  /** A fresh download link. */
  async download(file: Downloadable): Promise<StorageLink> {
    const [link] = await this.downloads([file]);
    return link as StorageLink;
  }

  /**
   * Fresh download links, in the order of the files: to the stores themselves, where clients reach them. Rule of the API: each read
   * of a changeset gives a new one, with its id in it, also where two share their bytes.
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

  /** A fresh download link of a whole model file, as it is for one iModel. */
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

  /** Where the containers of checkpoints are, and a token for one of them. */
  container(container: string, lifeSeconds: number): { baseUrl: string; token: string } {
    return {
      baseUrl: `${this.#origin}/${account}`,
      token: this.#signed.containerToken(container, lifeSeconds, this.#through),
    };
  }

  /** A link to upload one file, to the store itself where clients can. */
  async upload(blobId: string, fileName: string): Promise<StorageLink> {
    const { stores } = this.#blobs;
    const place = stores.anyDirectUploads ? (await this.#blobs.places([blobId])).get(blobId) : undefined;
    const uploads = this.#direct(place)?.uploads;
    const href =
      uploads === undefined
        ? this.#signed.make(this.#origin, { resource: `blobs/${blobId}`, fileName, permission: 'w' })
        : // The store cannot tell whether an upload began in time: its link is good for as long as the file is waited for.
          await uploads.link(blobId, Math.max(this.#signed.expiry(), Date.now() + completionMs));
    this.#uploads.set(href, { blobId, fileName });
    return { href, storageType: 'azure' };
  }

  /** What an address of this response uploads, if it is an upload link. */
  uploadAt(href: string): { blobId: string; fileName: string } | undefined {
    return this.#uploads.get(href);
  }

  /** How the asking client reaches the store of a blob by itself, if it may. */
  #direct(place: Placed | undefined): DirectAccess | undefined {
    const direct =
      place === undefined || this.#through !== undefined ? undefined : this.#blobs.stores.get(place.store).direct;
    return direct !== undefined && this.#forPage && !direct.pages ? undefined : direct;
  }

  /** `_links` of a list: they carry every parameter of the request, so that a page follows from its link alone. */
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
