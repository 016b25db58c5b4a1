import type { SnapshotDb } from '@itwin/core-backend';
import type { DisplayStyleProps, SubCategoryProps, ViewDefinitionProps } from '@itwin/core-common';
import type { Geometry } from './geometry.ts';

/** The part of iTwin.js that reads definitions. */
export type DefinitionReader = Pick<SnapshotDb, 'elements' | 'queryFilePropertyBlob'>;

/** A subcategory in which something is drawn. */
export interface SubCategory {
  /** Hexadecimal. */
  id: string;
  label: string;
  /** Id of its category. */
  category: string;
  /** Whether it is off at first: by its own appearance, unless the display style of the default view says otherwise. */
  hidden: boolean;
  /** Elements that have something in it. */
  elements: number;
}

/** The subcategories of everything that is drawn. */
export function subCategoriesOf(db: DefinitionReader, { placed, instances }: Geometry): SubCategory[] {
  const users = new Map<string, Set<number>>();
  const note = (id: string, feature: number): void => {
    const known = users.get(id);
    if (known === undefined) users.set(id, new Set([feature]));
    else known.add(feature);
  };
  for (const { feature, piece } of placed) note(piece.subCategory, feature);
  for (const { feature, part } of instances) for (const piece of part.pieces) note(piece.subCategory, feature);
  const overrides = hiddenByDefaultView(db);
  return [...users].map(([id, elements]) => {
    const props = db.elements.tryGetElementProps<SubCategoryProps>(id);
    return {
      id,
      label: props?.userLabel ?? props?.code.value ?? id,
      category: props?.parent?.id ?? '0x0',
      hidden: overrides.get(id) ?? props?.appearance?.invisible === true,
      elements: elements.size,
    };
  });
}

/** What the display style of the default view switches. Most iModels have no default view, and a broken one counts as none. */
function hiddenByDefaultView(db: DefinitionReader): Map<string, boolean> {
  const hidden = new Map<string, boolean>();
  try {
    const id = db.queryFilePropertyBlob({ namespace: 'dgn_View', name: 'DefaultView' });
    if (id?.length !== 8) return hidden;
    const view = db.elements.tryGetElementProps<ViewDefinitionProps>(
      `0x${Buffer.from(id).readBigUInt64LE().toString(16)}`,
    );
    const style =
      view === undefined ? undefined : db.elements.tryGetElementProps<DisplayStyleProps>(view.displayStyleId);
    for (const { subCategory, invisible } of style?.jsonProperties?.styles?.subCategoryOvr ?? [])
      if (subCategory !== undefined && invisible !== undefined) hidden.set(subCategory, invisible);
  } catch {
    hidden.clear();
  }
  return hidden;
}
