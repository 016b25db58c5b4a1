import { SearchBox } from '@itwin/itwinui-react';
import { SvgCloseSmall } from '@itwin/itwinui-icons-react';
import { useEffect, useEffectEvent, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';

/** How long after the last key the list is searched, milliseconds. */
const pauseMs = 250;

/** A search that follows the typing. */
export function SearchField({
  label,
  value,
  onSearch,
}: {
  label: string;
  value: string;
  onSearch: (text: string) => void;
}) {
  const { t } = useTranslation();
  const [text, setText] = useState(value);
  /** Searches that the page has not shown yet. */
  const sent = useRef<string[]>([]);
  const send = (wanted: string) => {
    sent.current.push(wanted);
    onSearch(wanted);
  };
  const search = useEffectEvent(send);
  useEffect(() => {
    const own = sent.current.indexOf(value);
    // What was typed while the page followed stays. Any other value comes from the address, as after Back.
    if (own === -1) setText(value);
    sent.current = sent.current.slice(own + 1);
  }, [value]);
  useEffect(() => {
    if (text.trim() === value) return;
    const timer = setTimeout(() => search(text.trim()), pauseMs);
    return () => clearTimeout(timer);
  }, [text, value]);
  return (
    <SearchBox className="search">
      <SearchBox.Icon />
      <SearchBox.Input
        type="search"
        placeholder={label}
        aria-label={label}
        value={text}
        maxLength={255}
        onChange={({ currentTarget }) => setText(currentTarget.value)}
      />
      {text !== '' && (
        <SearchBox.Button
          label={t('common.clear')}
          onClick={() => {
            setText('');
            if (value !== '') send('');
          }}
        >
          <SvgCloseSmall />
        </SearchBox.Button>
      )}
    </SearchBox>
  );
}
