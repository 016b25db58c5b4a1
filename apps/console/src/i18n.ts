import i18next from 'i18next';
import { initReactI18next } from 'react-i18next';
import en from './locales/en.json';

export const languages = ['en', 'de'] as const;
export type LanguageCode = (typeof languages)[number];
const chosenKey = 'offshoot.console.language';

declare module 'i18next' {
  interface CustomTypeOptions {
    defaultNS: 'translation';
    resources: { translation: typeof en };
  }
}

function preferred(): LanguageCode {
  const chosen = localStorage.getItem(chosenKey);
  const wanted = chosen === null ? navigator.languages : [chosen];
  for (const tag of wanted) {
    const code = languages.find((language) => tag.toLowerCase().startsWith(language));
    if (code !== undefined) return code;
  }
  return 'en';
}

async function load(code: LanguageCode): Promise<void> {
  if (code === 'de' && !i18next.hasResourceBundle('de', 'translation'))
    i18next.addResourceBundle('de', 'translation', (await import('./locales/de.json')).default);
}

export async function startTexts(): Promise<void> {
  const code = preferred();
  await i18next.use(initReactI18next).init({
    resources: { en: { translation: en } },
    lng: 'en',
    fallbackLng: 'en',
    interpolation: { escapeValue: false },
    showSupportNotice: false,
  } as Parameters<typeof i18next.init>[0]);
  await choose(code);
}

/** Shows another language. @param keep whether this browser remembers it */
export async function choose(code: LanguageCode, keep = false): Promise<void> {
  await load(code);
  await i18next.changeLanguage(code);
  document.documentElement.lang = code;
  if (keep) localStorage.setItem(chosenKey, code);
}
