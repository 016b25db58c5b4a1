/** What every page must keep to, whatever it shows. Each check returns what is wrong, in words. */
import type { Page } from 'playwright-core';

const helpers = `
  const nameOf = (e) => e.tagName.toLowerCase() + (e.id ? '#' + e.id : '') + ' "' +
    (e.getAttribute('aria-label') ?? e.textContent ?? '').trim().replace(/\\s+/g, ' ').slice(0, 60) + '"';
  const all = function* (root) {
    for (const e of root.querySelectorAll('*')) {
      yield e;
      if (e.shadowRoot) yield* all(e.shadowRoot);
    }
  };
`;

/** What makes the page scroll sideways, or stands outside of the window or of what contains it. */
export function sidewaysFaults(page: Page): Promise<string[]> {
  return page.evaluate<string[]>(`(() => {
    ${helpers}
    const faults = [];
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width) faults.push('the page scrolls sideways');
    // What scrolls can be reached; what ends with an ellipsis says that there is more.
    const mayGoOn = (e) => {
      for (let parent = e.parentElement; parent; parent = parent.parentElement) {
        const { overflowX, textOverflow } = getComputedStyle(parent);
        if (['auto', 'scroll'].includes(overflowX) || (overflowX !== 'visible' && textOverflow === 'ellipsis')) return true;
      }
      return false;
    };
    for (const e of document.body.querySelectorAll('*')) {
      if (!e.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      const { left, right, width: own, height } = e.getBoundingClientRect();
      // Texts for screen readers are a pixel large.
      if (own <= 1 || height <= 1) continue;
      if ((left < -1 || right > width + 1) && !mayGoOn(e)) faults.push(nameOf(e) + ' is outside of the window');
      const { overflowX, textOverflow } = getComputedStyle(e);
      const hasText = [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== '');
      if (hasText && ['hidden', 'clip'].includes(overflowX) && textOverflow !== 'ellipsis' && e.scrollWidth > e.clientWidth + 1)
        faults.push(nameOf(e) + ' is cut off');
    }
    return faults;
  })()`);
}

/** What moves although the user asked for reduced motion. What takes a hundredth of a millisecond is never seen. */
export function motionFaults(page: Page): Promise<string[]> {
  return page.evaluate<string[]>(`(() => {
    ${helpers}
    const moves = (style) => [style.animationName === 'none' ? '0s' : style.animationDuration, style.transitionDuration]
      .join().split(',').some((each) => parseFloat(each) * (each.trim().endsWith('ms') ? 1 : 1000) > 0.0101);
    return [...all(document)]
      .filter((e) => [undefined, '::before', '::after'].some((part) => moves(getComputedStyle(e, part))))
      .map((e) => nameOf(e) + ' moves');
  })()`);
}

/** Most stops of the Tab key on a page of the tests. */
const mostStops = 150;

interface Stop {
  name: string;
  end: boolean;
  faults: string[];
}

/** Elements that the Tab key does not reach in the order of the page, or that do not show that they have the focus. */
export async function focusFaults(page: Page): Promise<string[]> {
  await page.evaluate(`(() => {
    ${helpers}
    document.body.tabIndex = -1;
    document.body.focus();
    document.body.blur();
    document.body.removeAttribute('tabindex');
    scrollTo(0, 0);
    // The focus may show on a frame around the element, as on a card.
    const around = (e, levels) => e === null || e === document.body || levels === 0 ? [] : [e, ...around(e.parentElement, levels - 1)];
    const look = (e) => [...around(e, 7), ...e.children, ...(e.nextElementSibling === null ? [] : [e.nextElementSibling])]
      .flatMap((each) => [undefined, '::before', '::after'].map((part) => {
        const s = getComputedStyle(each, part);
        return [s.outlineStyle, s.outlineWidth, s.outlineColor, s.boxShadow, s.borderColor, s.backgroundColor, s.clipPath, s.inset].join(' ');
      })).join('; ');
    const seen = new Set();
    let before, lookBefore;
    globalThis.nextStop = () => {
      const faults = [];
      const e = document.activeElement;
      if (before?.isConnected && look(before) === lookBefore) faults.push(nameOf(before) + ' does not show its focus');
      const end = e === document.body || seen.has(e);
      if (end) {
        const wanted = 'a[href], button, input, select, textarea, [tabindex]';
        for (const each of document.querySelectorAll(wanted))
          if (each.tabIndex >= 0 && !each.disabled && each.checkVisibility({ visibilityProperty: true }) && each.closest('[inert]') === null && !seen.has(each))
            faults.push(nameOf(each) + ' is not reached');
        return { name: '', end, faults };
      }
      if (before?.isConnected && !(before.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING))
        faults.push(nameOf(e) + ' comes after ' + nameOf(before));
      const { top, bottom, left, right } = e.getBoundingClientRect();
      if (bottom <= 0 || top >= innerHeight || right <= 0 || left >= innerWidth) faults.push(nameOf(e) + ' has the focus outside of the window');
      seen.add(e);
      before = e;
      lookBefore = look(e);
      return { name: nameOf(e), end, faults };
    };
  })()`);
  const faults: string[] = [];
  for (let n = 0; n < mostStops; n++) {
    await page.keyboard.press('Tab');
    const stop = await page.evaluate<Stop>('nextStop()');
    faults.push(...stop.faults);
    if (stop.end) return faults;
  }
  return [...faults, `more than ${mostStops} stops`];
}
