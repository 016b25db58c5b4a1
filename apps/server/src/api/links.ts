import { account, type SignedLinks } from '../storage/signedLinks.ts';
import type { Page } from './paging.ts';

export interface Link {
  href: string;
}
export interface StorageLink extends Link {
  storageType: 'azure';
}

/**
 * Addresses for one response, all absolute. Rule of the wire: every address of something in an iModel contains
 * `/imodels/{id}`, from which clients take ids.
 */
export class Links {
  readonly #origin: string;
  readonly #signed: SignedLinks;

  /** @param origin the server as the client reaches it, without a slash at the end */
  constructor(origin: string, signed: SignedLinks) {
    this.#origin = origin;
    this.#signed = signed;
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

  /** A fresh download link. Rule of the API: each read of a changeset gives a new one. */
  download(blobId: string, fileName: string): StorageLink {
    return { href: this.#signed.make(this.#origin, { resource: `blobs/${blobId}`, fileName, permission: 'r' }), storageType: 'azure' };
  }

  /** A fresh download link of a whole model file, as it is for one iModel. */
  modelFile(fileId: string, iModelId: string, fileName: string): StorageLink {
    return { href: this.#signed.make(this.#origin, { resource: `files/${fileId}/${iModelId}`, fileName, permission: 'r' }), storageType: 'azure' };
  }

  /** Where the containers of checkpoints are, and a token for one of them. */
  container(container: string, lifeSeconds: number): { baseUrl: string; token: string } {
    return { baseUrl: `${this.#origin}/${account}`, token: this.#signed.containerToken(container, lifeSeconds) };
  }

  upload(blobId: string, fileName: string): StorageLink {
    return { href: this.#signed.make(this.#origin, { resource: `blobs/${blobId}`, fileName, permission: 'w' }), storageType: 'azure' };
  }

  /** `_links` of a list: they carry every parameter of the request, so that a page follows from its link alone. */
  page(path: string, rawQuery: Record<string, unknown>, page: Page<unknown>): { self: Link; prev: Link | null; next: Link | null } {
    const link = (changes: Record<string, string> | undefined): Link | null => {
      if (changes === undefined) return null;
      const kept = Object.entries(rawQuery).filter(([name]) => name !== '$skip' && name !== '$continuationToken' && name !== '$top');
      return { href: this.#list(path, [...kept, ...Object.entries(changes)]) };
    };
    return { self: { href: this.#list(path, Object.entries(rawQuery)) }, prev: link(page.prev), next: link(page.next) };
  }

  #list(path: string, query: [string, unknown][]): string {
    const text = new URLSearchParams(query.map(([name, value]): [string, string] => [name, String(value)])).toString().replaceAll('%24', '$');
    return `${this.#origin}${path}${text === '' ? '' : `?${text}`}`;
  }
}
