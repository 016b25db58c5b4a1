import {
  Color,
  Group,
  InstancedBufferAttribute,
  InstancedMesh,
  LineSegments,
  Mesh,
  MeshStandardMaterial,
  RepeatWrapping,
  Texture,
  type BufferAttribute,
  type Material,
  type Object3D,
} from 'three';
import { GLTFLoader, type GLTF, type GLTFParser } from 'three/addons/loaders/GLTFLoader.js';
import type { Look, Materials } from './materials.ts';

type Drawn = Mesh | LineSegments;

/** Indexes of a part in the table of elements. Chunks of the first format know no subcategories. */
interface Layer {
  model: number;
  category: number;
  subCategory: number | undefined;
}

/** A part of a drawing: all of one model and subcategory in one look. */
export interface Part extends Layer {
  object: Drawn;
}

export interface LoadedChunk {
  group: Group;
  /** World coordinates of its zero point. */
  origin: [number, number, number];
  parts: Part[];
}

const loader = new GLTFLoader();
// The loader itself reads pictures through addresses that the policy of the page forbids requests to.
loader.register((parser) => ({ name: 'pictures', loadTexture: (index) => loadPicture(parser, index) }));

/** Reads a chunk, and gives its parts the materials of the view. */
export async function readChunk(bytes: ArrayBuffer, materials: Materials): Promise<LoadedChunk> {
  const gltf = await loader.parseAsync(bytes, '');
  const group = new Group();
  group.add(gltf.scene);
  const parts: Part[] = [];
  const drawn: Drawn[] = [];
  gltf.scene.traverse((object) => {
    if (object instanceof Mesh || object instanceof LineSegments) drawn.push(object);
  });
  for (const object of drawn) {
    if (object instanceof InstancedMesh) await setInstanceFeatures(object as InstancedMesh, gltf);
    const loaded = object.material as Material;
    object.material = materials.of(lookOf(loaded, object instanceof LineSegments));
    loaded.dispose();
    parts.push({ object, ...layerOf(object) });
  }
  const { origin } = (gltf.asset as { extras?: { origin?: [number, number, number] } }).extras ?? {};
  return { group, origin: origin ?? [0, 0, 0], parts };
}

interface Pictures {
  textures: { source: number }[];
  images: { name: string; mimeType: string; bufferView: number }[];
}

async function loadPicture(parser: GLTFParser, index: number): Promise<Texture> {
  const { textures, images } = parser.json as Pictures;
  const image = images[textures[index]?.source ?? -1];
  if (image === undefined) throw new Error('a chunk lacks one of its pictures');
  const bytes = (await parser.getDependency('bufferView', image.bufferView)) as ArrayBuffer;
  const texture = new Texture(await createImageBitmap(new Blob([bytes], { type: image.mimeType })));
  texture.name = image.name;
  texture.flipY = false;
  texture.wrapS = texture.wrapT = RepeatWrapping;
  texture.needsUpdate = true;
  return texture;
}

/** The indexes of a part; a node with several primitives is a group, which has them for all. */
function layerOf(object: Object3D): Layer {
  for (let at: Object3D | null = object; at !== null; at = at.parent) {
    const { model, category, subCategory } = at.userData as Partial<Layer>;
    if (model !== undefined && category !== undefined) return { model, category, subCategory };
  }
  return { model: 0, category: 0, subCategory: undefined };
}

/** The look that the loader made of a material of the chunk. */
function lookOf(material: Material, line: boolean): Look {
  const {
    color = new Color(0xffffff),
    opacity,
    transparent,
    map = null,
  } = material as Material & { color?: Color; map?: Texture | null };
  const lit = material instanceof MeshStandardMaterial;
  const text = material.userData.text === true;
  return {
    color,
    map,
    opacity: transparent ? opacity : 1,
    kind: line ? 'line' : lit ? 'surface' : text ? 'text' : 'fill',
  };
}

/** Instances of one mesh in several nodes share its geometry, so each node gets a copy that refers to the same buffers. */
async function setInstanceFeatures(mesh: InstancedMesh, { parser }: GLTF): Promise<void> {
  const node = parser.associations.get(mesh)?.nodes;
  const json = parser.json as {
    nodes: { extensions?: { EXT_mesh_gpu_instancing?: { attributes: { _FEATURE?: number } } } }[];
  };
  const accessor =
    node === undefined ? undefined : json.nodes[node]?.extensions?.EXT_mesh_gpu_instancing?.attributes._FEATURE;
  const features = (
    accessor === undefined ? mesh.geometry.getAttribute('_FEATURE') : await parser.getDependency('accessor', accessor)
  ) as BufferAttribute | undefined;
  const geometry = mesh.geometry.clone();
  for (const [name, attribute] of Object.entries(mesh.geometry.attributes)) geometry.setAttribute(name, attribute);
  geometry.setIndex(mesh.geometry.index);
  geometry.deleteAttribute('_FEATURE');
  geometry.setAttribute(
    '_feature',
    new InstancedBufferAttribute(Float32Array.from(features?.array ?? new Float32Array(mesh.count)), 1),
  );
  mesh.geometry = geometry;
  // The sphere around all instances; without it only that of the part at its origin would be looked at.
  mesh.computeBoundingSphere();
}
