// Routes and keys: every view has an address.

const root = document.documentElement;
const page = document.getElementById('page'), listView = document.getElementById('list');
const view = {kind: 'list', turn: 0};

function show(kind) {
  if (view.kind === 'list' && kind !== 'list') list.top = list.scroll.scrollTop;
  view.kind = kind;
  listView.hidden = kind !== 'list';
  page.hidden = kind === 'list';
}

function put(name, title, children) {
  page.replaceChildren(...children.filter((child) => child));
  document.title = `${title} – features`;
  root.dataset.view = name;
}

function showList(query) {
  ++view.turn;
  const same = queryText(query) === queryText(list.query);
  if (!same) list.chosen = -1;
  list.query = query;
  show('list');
  document.title = 'features';
  refreshList();
  list.scroll.scrollTop = same ? list.top : 0;
  drawRows();
  if (same && list.chosen >= 0) moveInList(0);
  root.dataset.view = 'list';
}

// Shows what `make` reads and builds, unless another view was asked for in the meantime.
async function showPage(name, title, make) {
  const turn = ++view.turn;
  show('page');
  try {
    const children = await make();
    if (turn !== view.turn) return;
    put(name, title, children);
    scrollTo(0, 0);
  } catch (error) {
    if (turn === view.turn) put('problem', 'not there', [element('nav', link('#/', '← all features')), element('p.problem', error.message)]);
  }
}

function showFeature(layer, id, query) {
  if (queryText(query) !== queryText(list.query)) {
    list.query = query;
    refreshList();
  }
  showPage(`feature/${layer}/${id}`, `${layer} / ${id}`, async () => {
    index.vocabulary = await chunk('vocabulary');
    const feature = await readFeature(layer, id);
    list.chosen = stepsFrom(feature).at;
    return featurePage(feature);
  });
}

function route() {
  const [path, asked = ''] = location.hash.replace(/^#\/?/, '').split(/\?(.*)/s);
  const query = parseQuery(asked);
  const feature = path.match(/^feature\/(\d+)\/(\d+)$/);
  if (feature) showFeature(Number(feature[1]), Number(feature[2]), query);
  else if (path === 'graphs') showPage('graphs', 'attribution graphs', graphsPage);
  else showList(query);
}

function step(name) {
  const to = page.querySelector('nav')?.steps?.[name];
  if (to) location.hash = addressOf(to, list.query);
}

function focusSearch() {
  list.controls.q.focus();
  list.controls.q.select();
}

const kKeys = {
  '/': () => {
    if (view.kind === 'list') return focusSearch();
    // The list is shown by the listener that was there before this one.
    addEventListener('hashchange', focusSearch, {once: true});
    location.hash = `#/${queryText(list.query)}`;
  },
  j: () => (view.kind === 'list' ? moveInList(1) : step('after')),
  k: () => (view.kind === 'list' ? moveInList(-1) : step('before')),
  u: () => (location.hash = `#/${queryText(list.query)}`),
  Enter: () => view.kind === 'list' && openChosen(),
};

addEventListener('keydown', (event) => {
  const on = event.target.tagName;
  if (event.ctrlKey || event.metaKey || event.altKey || on === 'INPUT' || on === 'SELECT') return;
  if (!(event.key in kKeys) || (event.key === 'Enter' && (on === 'A' || on === 'BUTTON'))) return;
  event.preventDefault();
  kKeys[event.key]();
});
addEventListener('hashchange', route);

makeList();
route();
root.dataset.firstRows = String(Math.round(performance.now()));

// The first rows are drawn before anything else is read.
requestAnimationFrame(() => setTimeout(async () => {
  try {
    await loadIndex(refreshList);
    page.querySelector('nav')?.renew?.();
    root.dataset.index = 'whole';
  } catch (error) {
    list.status.textContent = error.message;
    root.dataset.index = 'failed';
  }
}));
