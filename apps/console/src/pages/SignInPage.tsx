import { Alert, Anchor, Button, Surface, Text } from '@itwin/itwinui-react';
import { useState, useSyncExternalStore } from 'react';
import { useTranslation } from 'react-i18next';
import { useSession } from '../auth/context.ts';
import type { ConsoleIssuer } from '../auth/settings.ts';
import { serverAddress } from '../base.ts';
import { Logo } from '../components/Logo.tsx';
import { useTitle } from '../components/useTitle.ts';

/** What is shown as long as nobody is signed in. */
export function SignInPage() {
  const { t } = useTranslation();
  const session = useSession();
  const { problem } = useSyncExternalStore(session.subscribe, session.state);
  const { settings } = session;
  const [leaving, setLeaving] = useState<string>();
  useTitle(t('signIn.title'));
  const signIn = async (issuer: ConsoleIssuer) => {
    setLeaving(issuer.authority);
    if (!(await session.signIn(issuer))) setLeaving(undefined);
  };
  const several = settings.issuers.length > 1;
  return (
    <main className="sign-in">
      <Surface elevation={1} className="sign-in-card">
        <Logo size={48} />
        <Text as="h1" variant="headline">
          {t('signIn.title')}
        </Text>
        <Text as="p">{t(several ? 'signIn.choose' : 'signIn.text')}</Text>
        {problem !== undefined && (
          <Alert type={problem === 'ended' ? 'informational' : 'negative'} role="alert">
            {t(`signIn.problems.${problem}`)}
          </Alert>
        )}
        {settings.refused !== null && (
          <Alert type="warning" role="alert">
            {settings.refused}
          </Alert>
        )}
        {settings.needsFirstAccount && <Alert type="informational">{t('signIn.firstAccount')}</Alert>}
        {settings.issuers.length === 0 && settings.refused === null && (
          <Alert type="warning">{t('signIn.noIssuer')}</Alert>
        )}
        <div className="stack">
          {settings.issuers.map((issuer) => (
            <Button
              key={issuer.authority}
              styleType={several ? 'default' : 'high-visibility'}
              size="large"
              stretched
              loading={leaving === issuer.authority}
              onClick={() => void signIn(issuer)}
            >
              {several ? t('signIn.with', { name: issuer.name }) : t('signIn.button')}
            </Button>
          ))}
        </div>
        <Text as="p" variant="small" isMuted>
          <Anchor href={`${serverAddress}${settings.guide}`}>{t('shell.guide')}</Anchor>
          {' · '}
          <Anchor href={`${serverAddress}${settings.document}`}>{t('shell.document')}</Anchor>
          {' · '}
          {t('shell.version', { version: settings.version })}
        </Text>
      </Surface>
    </main>
  );
}
