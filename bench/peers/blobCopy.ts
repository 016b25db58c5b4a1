import { readdirSync } from 'node:fs';
import path from 'node:path';
import { BlobServiceClient } from '@azure/storage-blob';
import { azuriteConnection, startAzurite } from '../../test/support/stores.ts';
import { note, timed } from '../common.ts';
import type { OtherWay } from './peers.ts';

const atOnce = 16;

/** Copy Blob for each file, on Azurite. Null if it does not start. */
export async function prepareBlobCopy(files: string): Promise<OtherWay | null> {
  const azurite = await startAzurite().catch((error: unknown) => {
    note(`Azurite does not start: clones are measured without it (${String(error)})`);
    return undefined;
  });
  if (azurite === undefined) return null;
  try {
    const container = BlobServiceClient.fromConnectionString(azuriteConnection(azurite.address)).getContainerClient(
      'bench',
    );
    await container.create();
    const names = readdirSync(files);
    for (const name of names) await container.getBlockBlobClient(name).uploadFile(path.join(files, name));
    let copies = 0;
    const copy = async (): Promise<void> => {
      const prefix = `copy${copies++}`;
      const left = [...names];
      await Promise.all(
        Array.from({ length: atOnce }, async () => {
          for (let name = left.pop(); name !== undefined; name = left.pop())
            await (
              await container
                .getBlobClient(`${prefix}/${name}`)
                .beginCopyFromURL(container.getBlobClient(name).url, { intervalInMs: 10 })
            ).pollUntilDone();
        }),
      );
    };
    return {
      name: `Copy Blob of each file on Azurite, ${atOnce} at a time`,
      run: () => timed(copy),
      stop: () => azurite.stop(),
    };
  } catch (error) {
    await azurite.stop();
    throw error;
  }
}
