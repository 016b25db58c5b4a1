import {
  Button,
  ButtonGroup,
  DropdownMenu,
  IconButton,
  Input,
  LabeledSelect,
  MenuItem,
  Select,
} from '@itwin/itwinui-react';
import {
  SvgCompare,
  Svg3D,
  SvgFitToView,
  SvgLayers,
  SvgLink,
  SvgMeasure,
  SvgCrop,
  SvgImodelHollow,
  SvgWalk,
} from '@itwin/itwinui-icons-react';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { headQuery, iModelQuery, versionsQuery } from '../api/queries.ts';
import { lineageQuery } from '../family/lineage.ts';
import { numberText } from '../format.ts';
import type { Direction, Section } from './engine/Viewer.ts';
import type { Bounds } from './graphics.ts';
import { pointText, sectionText, type Point, type ViewSearch } from './search.ts';

export type Tool = 'select' | 'measure' | 'walk';

const directions: readonly Direction[] = ['iso', 'top', 'front', 'right', 'back', 'left', 'bottom'];

interface ToolbarProps {
  point: Point;
  other: Point | undefined;
  is2d: boolean;
  bounds: Bounds | undefined;
  tool: Tool;
  section: Section | undefined;
  edges: boolean;
  panel: boolean;
  onFit: (direction?: Direction) => void;
  onTool: (tool: Tool) => void;
  onEdges: (on: boolean) => void;
  onPanel: (open: boolean) => void;
  setSearch: (change: ViewSearch & { at?: number | undefined }) => void;
}

export function Toolbar(props: ToolbarProps) {
  const { point, other, is2d, bounds, tool, section, edges, panel, setSearch } = props;
  const { t } = useTranslation();
  const toggleSection = () =>
    setSearch({
      section:
        section !== undefined || bounds === undefined
          ? undefined
          : sectionText({ axis: 'z', at: (bounds.low[2] + bounds.high[2]) / 2, keep: 'below' }),
    });
  return (
    <div className="view-tools">
      <div className="toolbar" role="toolbar" aria-label={t('view.tools')}>
        <PointSelect
          label={t('view.point')}
          point={point}
          onChange={({ index }) => setSearch({ at: index, element: undefined })}
        />
        <ButtonGroup>
          <IconButton label={t('view.fit')} onClick={() => props.onFit()}>
            <SvgFitToView />
          </IconButton>
          {!is2d && (
            <DropdownMenu
              menuItems={(close) =>
                directions.map((direction) => (
                  <MenuItem key={direction} onClick={() => (close(), props.onFit(direction))}>
                    {t(`view.directions.${direction}`)}
                  </MenuItem>
                ))
              }
            >
              <IconButton label={t('view.standardViews')}>
                <Svg3D />
              </IconButton>
            </DropdownMenu>
          )}
        </ButtonGroup>
        <ButtonGroup>
          <IconButton
            label={t('view.measure')}
            isActive={tool === 'measure'}
            aria-pressed={tool === 'measure'}
            onClick={() => props.onTool(tool === 'measure' ? 'select' : 'measure')}
          >
            <SvgMeasure />
          </IconButton>
          {!is2d && (
            <IconButton
              label={t('view.walk')}
              isActive={tool === 'walk'}
              aria-pressed={tool === 'walk'}
              onClick={() => props.onTool(tool === 'walk' ? 'select' : 'walk')}
            >
              <SvgWalk />
            </IconButton>
          )}
          {!is2d && (
            <IconButton
              label={t('view.section')}
              isActive={section !== undefined}
              aria-pressed={section !== undefined}
              onClick={toggleSection}
            >
              <SvgCrop />
            </IconButton>
          )}
          {!is2d && (
            <IconButton
              label={t('view.edges')}
              isActive={edges}
              aria-pressed={edges}
              onClick={() => props.onEdges(!edges)}
            >
              <SvgImodelHollow />
            </IconButton>
          )}
        </ButtonGroup>
        <CompareButton point={point} other={other} setSearch={setSearch} />
        <span className="spacer" />
        <CopyLink />
        <IconButton label={t('view.panel')} isActive={panel} aria-pressed={panel} onClick={() => props.onPanel(!panel)}>
          <SvgLayers />
        </IconButton>
      </div>
      {other !== undefined && <CompareBar point={point} other={other} setSearch={setSearch} />}
      {section !== undefined && bounds !== undefined && (
        <SectionBar
          section={section}
          bounds={bounds}
          onChange={(next) => setSearch({ section: next === undefined ? undefined : sectionText(next) })}
        />
      )}
    </div>
  );
}

/** Chooses a point of the history: the latest, a named version or the baseline. */
function PointSelect({ label, point, onChange }: { label: string; point: Point; onChange: (point: Point) => void }) {
  const { t } = useTranslation();
  const { iModelId, index } = point;
  const head = useQuery({ ...headQuery(iModelId), retry: false });
  const versions = useQuery({ ...versionsQuery(iModelId), retry: false });
  const last = head.data?.index ?? 0;
  const options = new Map<number, string>();
  if (last > 0) options.set(last, t('view.latest', { index: numberText(last) }));
  for (const { changesetIndex, displayName, state } of versions.data ?? [])
    if (state === 'visible')
      options.set(changesetIndex, t('view.version', { name: displayName, index: numberText(changesetIndex) }));
  if (!options.has(0)) options.set(0, t('timeline.baseline'));
  if (!options.has(index)) options.set(index, t('timeline.changeset', { index: numberText(index) }));
  const sorted = [...options].sort(([a], [b]) => b - a);
  return (
    <Select
      native
      className="view-select"
      triggerProps={{ 'aria-label': label }}
      value={String(index)}
      onChange={(value: string) => onChange({ iModelId, index: Number(value) })}
      options={sorted.map(([value, text]) => ({ value: String(value), label: text }))}
    />
  );
}

interface CompareProps {
  point: Point;
  other: Point | undefined;
  setSearch: ToolbarProps['setSearch'];
}

function CompareButton({ point, other, setSearch }: CompareProps) {
  const { t } = useTranslation();
  const lineage = useQuery({ ...lineageQuery(point.iModelId), retry: false });
  const own = lineage.data?.iModels.find(({ id }) => id === point.iModelId);
  const parent = lineage.data?.iModels.find(({ id, visible, deleted }) => id === own?.parentId && visible && !deleted);
  const start = (): Point =>
    parent === undefined
      ? { iModelId: point.iModelId, index: 0 }
      : { iModelId: parent.id, index: own?.changesetIndex ?? 0 };
  return (
    <Button
      startIcon={<SvgCompare />}
      aria-pressed={other !== undefined}
      className={other === undefined ? undefined : 'chosen'}
      onClick={() => setSearch({ with: other === undefined ? pointText(start()) : undefined })}
    >
      {t('view.compare')}
    </Button>
  );
}

/** What the view is compared with: any point of the iModel itself or of its family. */
function CompareBar({ point, other, setSearch }: CompareProps & { other: Point }) {
  const { t } = useTranslation();
  const lineage = useQuery({ ...lineageQuery(point.iModelId), retry: false });
  const members = (lineage.data?.iModels ?? []).filter(({ visible, deleted }) => visible && !deleted);
  const options = members.map(({ id, displayName }) => ({
    value: id,
    label: id === point.iModelId ? t('view.sameIModel', { name: displayName }) : (displayName ?? id),
  }));
  const foreign = lineage.data !== undefined && !options.some(({ value }) => value === other.iModelId);
  const { data: stranger } = useQuery({ ...iModelQuery(other.iModelId), enabled: foreign, retry: false });
  if (foreign) options.push({ value: other.iModelId, label: stranger?.displayName ?? t('view.otherIModel') });
  const choose = (to: Point) => setSearch({ with: pointText(to) });
  const left = (id: string): number => {
    const own = members.find((member) => member.id === point.iModelId);
    return own?.parentId === id
      ? (own.changesetIndex ?? 0)
      : (members.find((member) => member.id === id)?.headIndex ?? 0);
  };
  return (
    <div className="toolbar view-bar">
      <span>{t('view.compareWith')}</span>
      <Select
        native
        className="view-select"
        triggerProps={{ 'aria-label': t('view.compareIModel') }}
        value={other.iModelId}
        onChange={(id: string) => choose({ iModelId: id, index: id === point.iModelId ? 0 : left(id) })}
        options={options}
      />
      <PointSelect key={other.iModelId} label={t('view.comparePoint')} point={other} onChange={choose} />
    </div>
  );
}

function SectionBar({
  section,
  bounds,
  onChange,
}: {
  section: Section;
  bounds: Bounds;
  onChange: (section: Section) => void;
}) {
  const { t } = useTranslation();
  const n = { x: 0, y: 1, z: 2 }[section.axis];
  const [low, high] = [bounds.low[n] ?? 0, bounds.high[n] ?? 1];
  return (
    <div className="toolbar view-bar">
      <LabeledSelect
        native
        displayStyle="inline"
        label={t('view.sectionAcross')}
        value={section.axis}
        onChange={(axis: string) => {
          const at = { x: 0, y: 1, z: 2 }[axis] ?? 2;
          onChange({
            ...section,
            axis: axis as Section['axis'],
            at: ((bounds.low[at] ?? 0) + (bounds.high[at] ?? 0)) / 2,
          });
        }}
        options={(['x', 'y', 'z'] as const).map((axis) => ({ value: axis, label: t(`view.axes.${axis}`) }))}
      />
      <input
        type="range"
        className="view-range"
        aria-label={t('view.sectionAt')}
        min={low}
        max={high}
        step={(high - low) / 200 || 0.01}
        value={section.at}
        onChange={({ currentTarget }) => onChange({ ...section, at: Number(currentTarget.value) })}
      />
      <Input
        size="small"
        className="view-number"
        type="number"
        step="0.1"
        aria-label={t('view.sectionAt')}
        value={+section.at.toFixed(2)}
        onChange={({ currentTarget }) => {
          const at = Number(currentTarget.value);
          if (Number.isFinite(at)) onChange({ ...section, at });
        }}
      />
      <Button size="small" onClick={() => onChange({ ...section, keep: section.keep === 'below' ? 'above' : 'below' })}>
        {t('view.flip')}
      </Button>
    </div>
  );
}

function CopyLink() {
  const { t } = useTranslation();
  const [copied, setCopied] = useState(false);
  const copy = () => {
    void navigator.clipboard.writeText(globalThis.location.href).then(() => setCopied(true));
    setTimeout(() => setCopied(false), 2000);
  };
  return (
    <>
      <span role="status" className="muted">
        {copied && t('view.copied')}
      </span>
      <IconButton label={t('view.copyLink')} onClick={copy}>
        <SvgLink />
      </IconButton>
    </>
  );
}
