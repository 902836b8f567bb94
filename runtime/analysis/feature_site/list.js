// The list of features: a toolbar, and rows of which only those in sight exist.

const kTallest = 8e6;  // pixels; browsers draw no elements that are much taller
const kBeyond = 6;     // rows kept above and below what is in sight
const kColumns = [['layer', 'feature', 'by layer'], ['active', 'active on', 'most often active'], ['largest', 'strongest', 'strongest activation'],
  ['region', 'region', 'most in one region'], ['domain', 'domain', 'most in one domain']];

const list = {query: {...kAny}, rows: firstRows, places: null, chosen: -1, top: 0, marks: () => false};
const rowCount = () => (list.places ? list.places.length : list.rows.length);
const rowNumber = (number) => (list.places ? rowAt(list.places[number]) : list.rows[number]);

function change(part) {
  list.query = {...list.query, ...part};
  list.chosen = -1;
  history.replaceState(null, '', `#/${queryText(list.query)}`);
  refreshList();
  list.scroll.scrollTop = 0;
}

const isDefault = (query) => queryText(query) === '';

function refreshList() {
  const {query} = list;
  const whole = isWhole();
  list.places = whole ? select(query) : null;
  list.rows = isDefault(query) ? firstRows : [];
  list.marks = marker(query);
  for (const [name, control] of Object.entries(list.controls)) if (control !== document.activeElement) control.value = query[name];
  markLayer(list.overview, query.layer);
  for (const header of list.headers) header.setAttribute('aria-sort', header.dataset.sort !== query.sort ? 'none' : query.up ? 'ascending' : 'descending');
  list.status.textContent = !whole ? `reading layer ${index.loaded + 1} of ${data.layers.length} …` :
      rowCount() === total ? noun(total, 'feature') : `${count(rowCount())} of ${noun(total, 'feature')}`;
  list.nothing.hidden = !whole || rowCount() > 0;
  document.documentElement.dataset.found = whole ? rowCount() : '';
  drawRows();
}

function statistic(text, share) {
  const made = element('span.number', text);
  made.style.setProperty('--share', `${100 * share}%`);
  return made;
}

const part = (name, share) => element('span.part', element('span.name', name), element('span.quiet', ` ${share} %`));

function listRow(number) {
  const row = rowNumber(number);
  const share = row.active / (data.totals.tokens || 1);
  const dead = row.active === 0;
  const made = link(addressOf(row, list.query),
      element('span.address', nameOf(row)),
      dead ? element('span.number.quiet', 'dead') : statistic(percent(share), Math.max(0, 1 + Math.log10(share) / 5)),
      element('span.number', dead ? '' : amount(row.largest)),
      dead ? element('span') : part(regionName(row.region), row.regionPercent),
      dead ? element('span') : part(domainName(row.domain), row.domainPercent),
      element('span.chips', ...chips(row.promoted, list.marks)),
      data.labels ? element('span.said', row.kind ? element('span.kind', className(row.kind)) : null, oneLine(row.description)) : null);
  made.className = number === list.chosen ? 'row chosen' : 'row';
  return made;
}

function drawRows() {
  const {scroll, spacer, body} = list;
  if (!scroll.clientHeight) return;
  const each = parseFloat(getComputedStyle(scroll).getPropertyValue('--row'));
  const rows = rowCount(), height = Math.min(rows * each, kTallest);
  spacer.style.height = `${height}px`;
  const inSight = Math.ceil(scroll.clientHeight / each) + 1;
  const way = height - scroll.clientHeight;
  const exact = height < kTallest || way <= 0 ? scroll.scrollTop / each : (scroll.scrollTop / way) * (rows - inSight + 1);
  const first = Math.max(0, Math.min(Math.floor(exact) - kBeyond, rows - 1)), end = Math.min(rows, Math.floor(exact) + inSight + kBeyond);
  body.style.transform = `translateY(${scroll.scrollTop - (exact - first) * each}px)`;
  body.replaceChildren(...Array.from({length: Math.max(0, end - first)}, (_, i) => listRow(first + i)));
}

// Chooses the row so many further on, and brings it into sight.
function moveInList(step) {
  const {scroll} = list;
  const each = parseFloat(getComputedStyle(scroll).getPropertyValue('--row'));
  const rows = rowCount(), height = Math.min(rows * each, kTallest), way = height - scroll.clientHeight;
  if (!rows) return;
  list.chosen = Math.max(0, Math.min(rows - 1, list.chosen + step));
  if (height < kTallest || way <= 0) {
    const top = list.chosen * each;
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    if (top + each > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + each - scroll.clientHeight;
  } else {
    scroll.scrollTop = (way * list.chosen) / rows;
  }
  drawRows();
}

function openChosen() {
  if (0 <= list.chosen && list.chosen < rowCount()) location.hash = addressOf(rowNumber(list.chosen), list.query);
}

function searchField() {
  const made = element('input');
  Object.assign(made, {type: 'search', placeholder: data.labels ? 'promoted token, description, 3/17' : 'promoted token, or 3/17', spellcheck: false, autocomplete: 'off'});
  made.setAttribute('aria-label', 'search');
  made.oninput = () => change({q: made.value});
  made.onkeydown = (event) => {
    if (event.key === 'Escape') made.blur();
    if (event.key !== 'Enter' && event.key !== 'ArrowDown') return;
    event.preventDefault();
    made.blur();
    if (event.key === 'Enter' && rowCount() === 1) list.chosen = 0, openChosen();
    else moveInList(1);
  };
  return made;
}

// Classes, and those that others are parts of.
function classMenu() {
  const names = new Set(data.classes.filter((name) => name).flatMap((name) => [name.split('/')[0], name]));
  return [...names].map((name) => [name, oneLine(name)]);
}

function toolbar() {
  const numbered = (names) => names.map((name, number) => [String(number), name]);
  const controls = {
    q: searchField(),
    layer: menu('layer', [['', 'all layers'], ...data.layers.map(({layer}) => [String(layer), `layer ${layer}`])], (layer) => change({layer})),
    region: menu('region', [['', 'all regions'], ...numbered(data.regions.map((_, region) => regionName(region)))], (region) => change({region})),
    domain: menu('domain', [['', 'all domains'], ...numbered(data.domains.map((_, domain) => domainName(domain)))], (domain) => change({domain})),
    kind: menu('class', [['', 'all classes'], ...classMenu(), ['none', 'no class']], (kind) => change({kind})),
    alive: menu('live or dead', [['', 'live and dead'], ['live', 'live'], ['dead', 'dead']], (alive) => change({alive})),
    sort: menu('order', kColumns.map(([sort, , text]) => [sort, text]), (sort) => change({sort, up: ''})),
  };
  controls.sort.className = 'order';
  if (data.classes.length < 2) delete controls.kind;
  return controls;
}

function sortHeader([sort, text, title]) {
  const made = element('span', button(text, `${title}; again: the other way round`, () =>
      change(list.query.sort === sort ? {up: list.query.up ? '' : '1'} : {sort, up: ''})));
  made.dataset.sort = sort;
  return made;
}

function makeList() {
  list.controls = toolbar();
  list.headers = kColumns.map(sortHeader);
  list.overview = overview((layer) => change({layer: list.query.layer === String(layer) ? '' : String(layer)}));
  list.status = element('span.status.quiet');
  list.status.setAttribute('role', 'status');
  list.spacer = element('div.spacer');
  list.body = element('div.rows');
  list.nothing = element('p.nothing', 'No feature is like that.');
  list.scroll = element('div.scroll', list.spacer, list.body, list.nothing);
  list.scroll.tabIndex = 0;
  list.scroll.onscroll = drawRows;
  const subject = data.subject === 'adapters' ? 'Features' : `Features: ${data.subject}`;
  document.getElementById('list').append(
      element('header.head', element('div', element('h1', subject), summary(),
          data.graphs.length ? element('p.quiet', link('#/graphs', noun(data.graphs.length, 'attribution graph'))) : null), list.overview),
      element('div.toolbar', list.controls.q, element('div.filters', ...Object.values(list.controls).slice(1)), list.status),
      element(data.labels ? 'div.table.labelled' : 'div.table', element('div.columns', ...list.headers, element('span', 'promotes'), data.labels ? element('span', 'label') : null), list.scroll),
      keyHints(['/', 'search'], ['j k', 'move'], ['Enter', 'open']));
  addEventListener('resize', drawRows);
}
