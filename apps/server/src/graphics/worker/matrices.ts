/** Matrices of instances: row-major, 3 × 4. */

/** Rotation and uniform scale of a matrix; undefined if it mirrors, shears or scales each axis differently. */
export function rotationOf(
  m: Float64Array,
): { quaternion: [number, number, number, number]; scale: number } | undefined {
  const column = (n: number): [number, number, number] => [m[n], m[n + 4], m[n + 8]] as [number, number, number];
  const [x, y, z] = [column(0), column(1), column(2)];
  const scale = Math.hypot(...x);
  const dot = (a: typeof x, b: typeof x): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const near = (value: number, wanted: number): boolean => Math.abs(value - wanted) <= 1e-4 * scale * scale;
  if (!(scale > 1e-9)) return undefined;
  if (![dot(x, y), dot(y, z), dot(x, z)].every((value) => near(value, 0))) return undefined;
  if (![dot(y, y), dot(z, z)].every((value) => near(value, scale * scale))) return undefined;
  const cross = [x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]] as typeof x;
  if (dot(cross, z) <= 0) return undefined;
  return { quaternion: quaternionOf(x, y, z, scale), scale };
}

function quaternionOf(
  x: [number, number, number],
  y: [number, number, number],
  z: [number, number, number],
  scale: number,
): [number, number, number, number] {
  const [m00, m10, m20] = x.map((value) => value / scale) as typeof x;
  const [m01, m11, m21] = y.map((value) => value / scale) as typeof x;
  const [m02, m12, m22] = z.map((value) => value / scale) as typeof x;
  const trace = m00 + m11 + m22;
  if (trace > 0) {
    const s = 2 * Math.sqrt(trace + 1);
    return [(m21 - m12) / s, (m02 - m20) / s, (m10 - m01) / s, s / 4];
  }
  if (m00 > m11 && m00 > m22) {
    const s = 2 * Math.sqrt(1 + m00 - m11 - m22);
    return [s / 4, (m01 + m10) / s, (m02 + m20) / s, (m21 - m12) / s];
  }
  if (m11 > m22) {
    const s = 2 * Math.sqrt(1 + m11 - m00 - m22);
    return [(m01 + m10) / s, s / 4, (m12 + m21) / s, (m02 - m20) / s];
  }
  const s = 2 * Math.sqrt(1 + m22 - m00 - m11);
  return [(m02 + m20) / s, (m12 + m21) / s, s / 4, (m10 - m01) / s];
}

export function isMirror(m: Float64Array): boolean {
  const [a, b, c, , d, e, f, , g, h, i] = m as unknown as number[] as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) < 0;
}

/** A normal after a rotation, -127 to 127. Scales that differ by axis are so rare that they are treated as rotations too. */
export function rotateNormal(m: Float64Array, normals: Int8Array, at: number): [number, number, number] {
  const [x, y, z] = [normals[at], normals[at + 1], normals[at + 2]] as [number, number, number];
  const turned = [0, 4, 8].map(
    (row) => (m[row] as number) * x + (m[row + 1] as number) * y + (m[row + 2] as number) * z,
  ) as [number, number, number];
  const length = Math.hypot(...turned) || 1;
  return turned.map((value) => Math.round((value / length) * 127)) as [number, number, number];
}
