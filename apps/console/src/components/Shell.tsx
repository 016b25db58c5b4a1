import {
  Avatar,
  DropdownMenu,
  Header,
  IconButton,
  MenuDivider,
  MenuExtraContent,
  MenuItem,
  SkipToContentLink,
  Text,
} from '@itwin/itwinui-react';
import { Svg404 } from '@itwin/itwinui-illustrations-react';
import { Link, Outlet, useParams } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { useSession, useUser } from '../auth/context.ts';
import { serverAddress } from '../base.ts';
import { choose, languages } from '../i18n.ts';
import { Crumbs } from './Crumbs.tsx';
import { EmptyState } from './EmptyState.tsx';
import { Logo } from './Logo.tsx';
import { useTitle } from './useTitle.ts';

const initialsOf = (name: string): string =>
  name
    .split(/[\s@.]+/)
    .map((part) => part[0] ?? '')
    .join('')
    .slice(0, 2)
    .toUpperCase();

/** The frame of all pages. */
export function Shell() {
  const { t } = useTranslation();
  const { iTwinId, iModelId } = useParams({ strict: false });
  return (
    <div className="shell">
      <SkipToContentLink href="#content" onClick={toContent}>
        {t('shell.skip')}
      </SkipToContentLink>
      <Header
        isSlim
        className="header"
        appLogo={
          <Link to="/" className="brand" aria-label="Offshoot">
            <Logo size={24} />
            <span>Offshoot</span>
          </Link>
        }
        breadcrumbs={(iTwinId ?? iModelId) === undefined ? undefined : <Crumbs />}
        actions={[<UserMenu key="user" />]}
      />
      <main id="content" tabIndex={-1} className="content">
        <Outlet />
      </main>
    </div>
  );
}

/** The address of the page stays as it is: a fragment would replace the history entry. */
function toContent(event: React.MouseEvent): void {
  event.preventDefault();
  document.getElementById('content')?.focus();
}

function UserMenu() {
  const { t, i18n } = useTranslation();
  const session = useSession();
  const user = useUser();
  const open = (path: string) => window.open(`${serverAddress}${path}`, '_blank', 'noopener');
  return (
    <DropdownMenu
      menuItems={(close) => [
        <MenuExtraContent key="user">
          <Text variant="leading">{user.name}</Text>
          {user.email !== '' && user.email !== user.name && (
            <Text variant="small" isMuted>
              {user.email}
            </Text>
          )}
        </MenuExtraContent>,
        <MenuDivider key="first" />,
        <MenuItem key="guide" onClick={() => (open(session.settings.guide), close())}>
          {t('shell.guide')}
        </MenuItem>,
        <MenuItem key="document" onClick={() => (open(session.settings.document), close())}>
          {t('shell.document')}
        </MenuItem>,
        ...languages
          .filter((code) => code !== i18n.language)
          .map((code) => (
            <MenuItem key={code} lang={code} onClick={() => (void choose(code, true), close())}>
              {t(`shell.languages.${code}`)}
            </MenuItem>
          )),
        <MenuDivider key="last" />,
        <MenuItem key="out" onClick={() => (close(), void session.signOut())}>
          {t('shell.signOut')}
        </MenuItem>,
      ]}
    >
      <IconButton styleType="borderless" label={t('shell.user', { name: user.name })}>
        <Avatar
          abbreviation={initialsOf(user.name)}
          size="small"
          backgroundColor="#0b5cad"
          className="avatar"
          aria-hidden
        />
      </IconButton>
    </DropdownMenu>
  );
}

export function NotFound() {
  const { t } = useTranslation();
  useTitle(t('notFound.title'));
  return (
    <EmptyState
      picture={<Svg404 aria-hidden />}
      heading="h1"
      title={t('notFound.title')}
      text={t('notFound.text')}
      actions={
        <Link to="/" className="iui-anchor">
          {t('notFound.home')}
        </Link>
      }
    />
  );
}
