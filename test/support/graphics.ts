import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Api } from './api.ts';
import { workFolder, type Official } from './clients.ts';
import { until } from './until.ts';

export interface Graphics {
  changesetId: string;
  changesetIndex: number;
  state: string;
  error: { code: string; message: string } | null;
  summary: {
    outdated: boolean;
    elements: number;
    triangles: number;
    omittedElements: number;
    omittedTriangles: number;
    omittedTextures: number;
    is2d: boolean;
    bounds: { low: number[]; high: number[] };
  } | null;
  chunks: { href: string; size: number; triangles: number; bounds: { low: number[]; high: number[] } }[];
  elements: { href: string; size: number } | null;
}

export interface ElementTable {
  models: { id: string; label: string }[];
  categories: { id: string; label: string }[];
  subCategories: { id: string; label: string; category: number; hidden: boolean; elements: number }[];
  classes: string[];
  elements: Record<
    'id' | 'class' | 'label' | 'model' | 'category' | 'box' | 'hash',
    (string | number | number[] | null)[]
  >;
}

/** The JSON of a binary glTF. */
export interface Gltf {
  materials: { pbrMetallicRoughness: { baseColorFactor: number[]; baseColorTexture?: { index: number } } }[];
  textures?: { source: number }[];
  images?: { name: string; mimeType: string; bufferView: number }[];
  bufferViews: { byteOffset: number; byteLength: number }[];
  asset: { version: string; extras: { origin: number[] } };
  accessors: { count: number; type: string; componentType: number }[];
  meshes: { primitives: { mode: number; indices: number; material: number; attributes: Record<string, number> }[] }[];
  nodes: {
    mesh: number;
    extras: { model: number; category: number; subCategory: number };
    extensions?: Record<string, unknown>;
  }[];
}

/** Creates an iModel from a file that a program of this folder writes. */
export async function makeModel(
  { client, authorization }: Official,
  iTwinId: string,
  program: string,
  parameters: readonly string[],
  name: string = randomUUID(),
): Promise<string> {
  const work = workFolder();
  try {
    const filePath = path.join(work.path, 'model.bim');
    await promisify(execFile)(process.execPath, [
      fileURLToPath(new URL(program, import.meta.url)),
      filePath,
      ...parameters,
    ]);
    return (await client.iModels.createFromBaseline({ authorization, iModelProperties: { iTwinId, name, filePath } }))
      .id;
  } finally {
    work.remove();
  }
}

export async function graphicsOf(api: Api, iModelId: string, changeset: string | number = 0): Promise<Graphics> {
  const { status, body } = await api.get(`/imodels/${iModelId}/changesets/${changeset}/graphics`);
  assert.equal(status, 200, JSON.stringify(body));
  return (body as { graphics: Graphics }).graphics;
}

export async function ended(api: Api, iModelId: string, changeset: string | number = 0): Promise<Graphics> {
  return until(
    'the end of the drawing',
    async () => {
      const graphics = await graphicsOf(api, iModelId, changeset);
      return graphics.state === 'successful' || graphics.state === 'failed' ? graphics : undefined;
    },
    60_000,
  );
}

export async function bytesAt(href: string, encoding = 'br'): Promise<Buffer> {
  const response = await fetch(href, { headers: { 'accept-encoding': encoding } });
  assert.equal(response.status, 200);
  return Buffer.from(await response.arrayBuffer());
}

export function gltfIn(glb: Buffer): Gltf {
  assert.equal(glb.toString('latin1', 0, 4), 'glTF');
  assert.equal(glb.readUInt32LE(8), glb.length);
  return JSON.parse(glb.toString('utf8', 20, 20 + glb.readUInt32LE(12))) as Gltf;
}

export async function tableOf({ elements }: Graphics): Promise<ElementTable> {
  return JSON.parse((await bytesAt(elements?.href ?? '')).toString('utf8')) as ElementTable;
}
