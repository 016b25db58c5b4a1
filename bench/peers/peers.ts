import type { Child } from '../../apps/server/src/bench/common.ts';
import type { Budget } from '../common.ts';
import type { Api, Installation } from '../installation.ts';
import type { Load } from '../load/load.ts';
import type { Sources } from './sources.ts';

/** How much is measured. */
export interface Scale {
  /** Only what the ratios of `--quick` need. */
  quick: boolean;
  rounds: number;
  /** Time to measure each side of a comparison in each round. */
  seconds: number;
  /** Size of the large file. */
  megabytes: number;
  /** Changesets of the iModel that is cloned and copied. */
  files: number;
}

/** What every comparison works with. */
export interface Setting {
  scale: Scale;
  budget: Budget;
  load: Load;
  /** Folder for the files of comparisons, on the disk of the store. */
  folder: string;
  installation: Installation<Sources>;
  server: Child;
  api: Api;
}

/** Another way to get a second iModel with the same content. */
export interface OtherWay {
  name: string;
  /** @returns milliseconds */
  run: () => Promise<number>;
  stop?: () => Promise<void>;
}
