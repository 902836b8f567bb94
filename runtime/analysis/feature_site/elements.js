// Parts that several views have.

const addressOf = (feature, query) => `#/feature/${feature.layer}/${feature.id}${queryText(query)}`;
const nameOf = (feature) => `${feature.layer} / ${feature.id}`;

// A token as a small label. `title` says more about it.
function chip(text, marked, title) {
  const made = element(marked ? 'span.chip.marked' : 'span.chip', tokenText(text));
  if (title) made.title = title;
  return made;
}

// Those that are looked for first, since there may be no room for all.
function chips(texts, marks) {
  const marked = texts.map((text) => [text, marks(text)]);
  return [...marked.filter(([, is]) => is), ...marked.filter(([, is]) => !is)].map(([text, is]) => chip(text, is));
}

function option(value, text) {
  const made = element('option', text);
  made.value = value;
  return made;
}

// A menu of [value, text].
function menu(label, options, onChange) {
  const made = element('select', ...options.map(([value, text]) => option(value, text)));
  made.setAttribute('aria-label', label);
  made.onchange = () => onChange(made.value);
  return made;
}

function button(text, title, onClick) {
  const made = element('button', text);
  made.type = 'button';
  made.title = title;
  made.onclick = onClick;
  return made;
}

function key(name) {
  return element('kbd', name);
}

// What stands under every view.
function keyHints(...hints) {
  return element('footer.hints', ...hints.flatMap(([keys, text]) => [
    element('span', ...keys.split(' ').map(key), ` ${text}`)]));
}
