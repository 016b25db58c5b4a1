import {
  DataTexture,
  DoubleSide,
  GLSL3,
  LineBasicMaterial,
  MeshBasicMaterial,
  MeshLambertMaterial,
  NearestFilter,
  RGBAFormat,
  ShaderMaterial,
  UnsignedByteType,
  type Color,
  type Material,
  type Texture,
  type WebGLProgramParametersWithUniforms,
} from 'three';

/** Texels in a row of the table of colours. */
const width = 1024;

/** Colours that replace those of elements, by the index of the element: red, green, blue and the share that is replaced. */
export class FeatureColors {
  readonly texture: DataTexture;
  readonly #data: Uint8Array<ArrayBuffer>;

  constructor(elements: number) {
    const height = Math.max(1, Math.ceil((elements + 1) / width));
    this.#data = new Uint8Array(width * height * 4);
    this.texture = new DataTexture(this.#data, width, height, RGBAFormat, UnsignedByteType);
    this.texture.minFilter = this.texture.magFilter = NearestFilter;
    this.texture.needsUpdate = true;
  }

  set(colors: readonly ([number, number, number, number] | undefined)[], selected: number | undefined): void {
    this.#data.fill(0);
    colors.forEach((color, n) => {
      if (color !== undefined) this.#put(n, color);
    });
    if (selected !== undefined) this.#put(selected, [0.05, 0.45, 1, 0.75]);
    this.texture.needsUpdate = true;
  }

  #put(n: number, color: readonly number[]): void {
    const linear = (value: number): number => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    color.forEach((value, channel) => {
      this.#data[n * 4 + channel] = Math.round((channel < 3 ? linear(value) : value) * 255);
    });
  }
}

/** Surfaces lie a little behind the lines and letters on them. */
const behind = { polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 };

/** How a primitive of a chunk looks. */
export interface Look {
  color: Color;
  /** A picture, named after its texture. */
  map: Texture | null;
  opacity: number;
  kind: 'surface' | 'fill' | 'text' | 'line';
}

const vertexHead = /* glsl */ `
  attribute float _feature;
  uniform sampler2D featureColors;
  varying vec4 vFeatureColor;
  varying float vFeature;
`;
const vertexBody = /* glsl */ `
  int feature = int(_feature + 0.5);
  vFeature = _feature;
  vFeatureColor = texelFetch(featureColors, ivec2(feature % ${width}, feature / ${width}), 0);
`;
/** The second target gets the normal and a value that differs between elements, from which edges are found. */
const fragmentHead = /* glsl */ `
  layout(location = 1) out highp vec4 outEdge;
  varying vec4 vFeatureColor;
  varying float vFeature;
`;

/** The materials of one view: each look once, all with the same table of colours. */
export class Materials {
  readonly #colors: FeatureColors;
  readonly #made = new Map<string, Material>();
  readonly #maps = new Set<Texture>();

  constructor(colors: FeatureColors) {
    this.#colors = colors;
  }

  of({ color, map, opacity, kind }: Look): Material {
    const key = `${kind} ${color.getHexString()} ${opacity} ${map?.name ?? ''}`;
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    if (map !== null) this.#maps.add(map);
    const common = { color, opacity, transparent: opacity < 1, depthWrite: opacity >= 1 };
    const material =
      kind === 'line'
        ? new LineBasicMaterial(common)
        : kind !== 'surface'
          ? new MeshBasicMaterial({ ...common, ...(kind === 'fill' && behind), side: DoubleSide })
          : new MeshLambertMaterial({ ...common, ...behind, map, side: DoubleSide });
    material.onBeforeCompile = (shader) => this.#extend(shader, kind === 'surface');
    material.customProgramCacheKey = () => kind;
    this.#made.set(key, material);
    return material;
  }

  #extend(shader: WebGLProgramParametersWithUniforms, lit: boolean): void {
    shader.uniforms.featureColors = { value: this.#colors.texture };
    shader.vertexShader = `${vertexHead}${shader.vertexShader.replace('#include <begin_vertex>', `${vertexBody}#include <begin_vertex>`)}`;
    const edge = `outEdge = vec4(${lit ? 'normalize(normal).xy * 0.5 + 0.5' : '0.5, 0.5'}, fract(vFeature * 0.618034 + 0.31), 1.0);`;
    shader.fragmentShader = `${fragmentHead}${shader.fragmentShader
      .replace(
        '#include <color_fragment>',
        '#include <color_fragment>\n diffuseColor.rgb = mix(diffuseColor.rgb, vFeatureColor.rgb, vFeatureColor.a);',
      )
      .replace('#include <opaque_fragment>', `#include <opaque_fragment>\n ${edge}`)}`;
  }

  dispose(): void {
    for (const material of this.#made.values()) material.dispose();
    for (const map of this.#maps) map.dispose();
    this.#colors.texture.dispose();
  }
}

/** Draws the index of each element, from 1, and the depth, each as a colour. */
export function pickMaterial(): ShaderMaterial {
  return new ShaderMaterial({
    glslVersion: GLSL3,
    clipping: true,
    side: DoubleSide,
    vertexShader: /* glsl */ `
      #include <common>
      #include <clipping_planes_pars_vertex>
      in float _feature;
      out float vFeature;
      void main() {
        vFeature = _feature;
        vec3 transformed = position;
        #include <project_vertex>
        #include <clipping_planes_vertex>
      }`,
    fragmentShader: /* glsl */ `
      #include <common>
      #include <clipping_planes_pars_fragment>
      in float vFeature;
      layout(location = 0) out vec4 outFeature;
      layout(location = 1) out vec4 outDepth;
      vec4 bytesOf(uint value) {
        return vec4(value & 255u, (value >> 8) & 255u, (value >> 16) & 255u, (value >> 24) & 255u) / 255.0;
      }
      void main() {
        vec4 diffuseColor = vec4(1.0);
        #include <clipping_planes_fragment>
        outFeature = bytesOf(uint(vFeature + 0.5) + 1u);
        outDepth = bytesOf(uint(gl_FragCoord.z * 16777215.0));
      }`,
  });
}

/** Shows a drawing with a darker line where the element or the direction of the surface changes. */
export function edgeMaterial(): ShaderMaterial {
  return new ShaderMaterial({
    depthTest: false,
    depthWrite: false,
    uniforms: { image: { value: null }, edges: { value: null }, strength: { value: 1 } },
    vertexShader: /* glsl */ `
      varying vec2 vUv;
      void main() {
        vUv = position.xy * 0.5 + 0.5;
        gl_Position = vec4(position.xy, 0.0, 1.0);
      }`,
    fragmentShader: /* glsl */ `
      uniform sampler2D image;
      uniform sampler2D edges;
      uniform float strength;
      varying vec2 vUv;
      float differ(vec3 a, vec3 b) {
        return max(step(0.004, abs(a.z - b.z)), smoothstep(0.12, 0.3, length(a.xy - b.xy)));
      }
      void main() {
        vec2 pixel = 1.0 / vec2(textureSize(edges, 0));
        vec3 here = texture2D(edges, vUv).xyz;
        float edge = max(differ(here, texture2D(edges, vUv + vec2(pixel.x, 0.0)).xyz),
          differ(here, texture2D(edges, vUv + vec2(0.0, pixel.y)).xyz));
        vec4 color = texture2D(image, vUv);
        gl_FragColor = vec4(mix(color.rgb, color.rgb * 0.25, edge * strength * 0.6), color.a);
        #include <colorspace_fragment>
      }`,
  });
}
