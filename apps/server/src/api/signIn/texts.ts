/** The texts of the pages. */
const en = {
  signIn: 'Sign in',
  signInTo: 'Sign in to continue to {client}',
  email: 'E-mail',
  password: 'Password',
  cancel: 'Cancel',
  wrong: 'The e-mail or the password is wrong.',
  tooMany: 'Too many attempts. Try again in {minutes} min.',
  busy: 'The server is busy. Try again in a moment.',
  consentTitle: 'Allow access?',
  consentText: '{client} wants to use this server in your name.',
  consentList: 'It will be able to:',
  consentReturn: 'You will return to {place}.',
  consentUser: 'You are signed in as {user}.',
  allow: 'Allow',
  scopeApi: 'read and change what you can read and change',
  scopeProfile: 'see your name',
  scopeEmail: 'see your e-mail address',
  scopeOffline: 'do so while you are not using it, until you sign out',
  deviceTitle: 'Connect a device',
  deviceText: 'Enter the code that the device or the command line shows.',
  deviceCode: 'Code',
  deviceWrong: 'There is no such code, or it has expired or been used. Check it and try again.',
  deviceAborted: 'The device was not connected.',
  deviceConfirmTitle: 'Is this your device?',
  deviceConfirmText: '{client} asks for access in your name. Continue only if it shows this code:',
  deviceDone: 'The device is connected',
  deviceDoneText: 'You can close this page and continue there.',
  continue: 'Continue',
  signOut: 'Sign out',
  signOutTitle: 'Sign out?',
  signOutText: 'This ends your session in this browser.',
  staySignedIn: 'Stay signed in',
  signedOut: 'You are signed out',
  signedOutText: 'You can close this page.',
  errorTitle: 'This did not work',
  expired: 'This page has expired, or it was opened in another browser. Go back to the application and sign in again.',
  setPassword: 'Set your password',
  setPasswordFor: 'For {user}.',
  firstTitle: 'Create the first account',
  firstText: 'It becomes the administrator of this installation.',
  givenName: 'First name',
  surname: 'Last name',
  newPassword: 'Password (at least {length} characters)',
  repeatPassword: 'Repeat the password',
  save: 'Save',
  saved: 'Your password is set',
  savedText: 'You can now sign in.',
  toConsole: 'Open the console',
  linkUsed: 'This link has been used or has expired.',
  tooShort: 'The password needs at least {length} characters.',
  tooLong: 'The password has more than {length} characters.',
  isName: 'The password must not be the e-mail address.',
  different: 'The two passwords differ.',
  invalidEmail: 'Enter an e-mail address.',
  invalidName: 'Enter a first and a last name of at most 255 characters.',
  notSaved: 'The account could not be saved. Another user may have this e-mail address.',
};

export type Texts = typeof en;

const de: Texts = {
  signIn: 'Anmelden',
  signInTo: 'Melden Sie sich an, um mit {client} fortzufahren',
  email: 'E-Mail',
  password: 'Passwort',
  cancel: 'Abbrechen',
  wrong: 'E-Mail oder Passwort ist falsch.',
  tooMany: 'Zu viele Versuche. Versuchen Sie es in {minutes} min erneut.',
  busy: 'Der Server ist ausgelastet. Versuchen Sie es gleich noch einmal.',
  consentTitle: 'Zugriff erlauben?',
  consentText: '{client} möchte diesen Server in Ihrem Namen nutzen.',
  consentList: 'Die Anwendung kann dann:',
  consentReturn: 'Danach gelangen Sie zu {place}.',
  consentUser: 'Sie sind angemeldet als {user}.',
  allow: 'Erlauben',
  scopeApi: 'lesen und ändern, was Sie lesen und ändern dürfen',
  scopeProfile: 'Ihren Namen sehen',
  scopeEmail: 'Ihre E-Mail-Adresse sehen',
  scopeOffline: 'dies auch tun, während Sie sie nicht nutzen, bis Sie sich abmelden',
  deviceTitle: 'Gerät verbinden',
  deviceText: 'Geben Sie den Code ein, den das Gerät oder die Befehlszeile anzeigt.',
  deviceCode: 'Code',
  deviceWrong:
    'Diesen Code gibt es nicht, oder er ist abgelaufen oder verbraucht. Prüfen Sie ihn und versuchen Sie es erneut.',
  deviceAborted: 'Das Gerät wurde nicht verbunden.',
  deviceConfirmTitle: 'Ist das Ihr Gerät?',
  deviceConfirmText: '{client} bittet um Zugriff in Ihrem Namen. Fahren Sie nur fort, wenn dort dieser Code steht:',
  deviceDone: 'Das Gerät ist verbunden',
  deviceDoneText: 'Sie können diese Seite schließen und dort weitermachen.',
  continue: 'Weiter',
  signOut: 'Abmelden',
  signOutTitle: 'Abmelden?',
  signOutText: 'Damit endet Ihre Sitzung in diesem Browser.',
  staySignedIn: 'Angemeldet bleiben',
  signedOut: 'Sie sind abgemeldet',
  signedOutText: 'Sie können diese Seite schließen.',
  errorTitle: 'Das hat nicht funktioniert',
  expired:
    'Diese Seite ist abgelaufen oder wurde in einem anderen Browser geöffnet. Gehen Sie zurück zur Anwendung und melden Sie sich erneut an.',
  setPassword: 'Passwort festlegen',
  setPasswordFor: 'Für {user}.',
  firstTitle: 'Erstes Konto anlegen',
  firstText: 'Es verwaltet diese Installation.',
  givenName: 'Vorname',
  surname: 'Nachname',
  newPassword: 'Passwort (mindestens {length} Zeichen)',
  repeatPassword: 'Passwort wiederholen',
  save: 'Speichern',
  saved: 'Ihr Passwort ist festgelegt',
  savedText: 'Sie können sich jetzt anmelden.',
  toConsole: 'Konsole öffnen',
  linkUsed: 'Dieser Link wurde schon benutzt oder ist abgelaufen.',
  tooShort: 'Das Passwort braucht mindestens {length} Zeichen.',
  tooLong: 'Das Passwort hat mehr als {length} Zeichen.',
  isName: 'Das Passwort darf nicht die E-Mail-Adresse sein.',
  different: 'Die beiden Passwörter sind verschieden.',
  invalidEmail: 'Geben Sie eine E-Mail-Adresse ein.',
  invalidName: 'Geben Sie Vor- und Nachnamen mit höchstens 255 Zeichen ein.',
  notSaved: 'Das Konto konnte nicht gespeichert werden. Vielleicht hat ein anderer Benutzer diese E-Mail-Adresse.',
};

/** A language with its texts. */
export interface Language {
  code: 'en' | 'de';
  texts: Texts;
}

const english: Language = { code: 'en', texts: en };
const german: Language = { code: 'de', texts: de };

/** The language that a browser prefers, of those that there are. @param accepted the Accept-Language header */
export function languageOf(accepted: string | undefined): Language {
  const preferred = (accepted ?? '')
    .slice(0, 200)
    .split(',')
    .map((entry) => {
      const [tag = '', ...parameters] = entry.trim().toLowerCase().split(';');
      const quality = parameters.map((each) => each.trim()).find((each) => each.startsWith('q='));
      return { tag, quality: quality === undefined ? 1 : Number(quality.slice(2)) || 0 };
    })
    .filter(({ tag, quality }) => quality > 0 && /^(?:en|de)(?:-|$)/.test(tag))
    .sort((one, other) => other.quality - one.quality);
  return preferred[0]?.tag.startsWith('de') === true ? german : english;
}

/** A text with its placeholders filled. The result is plain text, not HTML. */
export function filled(text: string, values: Readonly<Record<string, string | number>>): string {
  return text.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? ''));
}
