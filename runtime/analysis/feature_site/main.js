// Routes and keys: every view has an address.

const root = document.documentElement;
const page = document.getElementById('page'), listView = document.getElementById('list');
const view = {kind: 'list', turn: 0, feature: null};

function show(kind) {
  if (view.kind === 'list' && kind !== 'list') list.top = list.scroll.scrollTop;
  view.kind = kind;
  listView.hidden = kind !== 'list';
  page.hidden = kind === 'list';
}

function showPage(name, title, children) {
  page.replaceChildren(...children.filter((child) => child));
  document.title = `${title} – features`;
  root.dataset.view = name;
}

function showList(query) {
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

// Another view may have been asked for while this one was read: only the last is shown.
async function showFeature(layer, id, query) {
  const turn = ++view.turn;
  if (queryText(query) !== queryText(list.query)) {
    list.query = query;
    refreshList();
  }
  show('page');
  try {
    index.vocabulary = await chunk('vocabulary');
    const feature = await readFeature(layer, id);
    const children = await featurePage(feature);
    if (turn !== view.turn) return;
    view.feature = feature;
    list.chosen = stepsFrom(feature).at;
    showPage(`feature/${layer}/${id}`, nameOf(feature), children);
    scrollTo(0, 0);
  } catch (error) {
    if (turn === view.turn) showPage('problem', 'not there', [element('nav', link('#/', '← all features')), element('p.problem', error.message)]);
  }
}

function route() {
  const [path, asked = ''] = location.hash.replace(/^#\/?/, '').split(/\?(.*)/s);
  const query = parseQuery(asked);
  const feature = path.match(/^feature\/(\d+)\/(\d+)$/);
  ++view.turn;
  view.feature = null;
  if (feature) return void showFeature(Number(feature[1]), Number(feature[2]), query);
  if (path === 'graphs') {
    show('page');
    return showPage('graphs', 'attribution graphs', graphsPage());
  }
  showList(query);
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
    if (view.feature) page.querySelector('nav').replaceWith(navigation(view.feature));
    root.dataset.index = 'whole';
  } catch (error) {
    list.status.textContent = error.message;
    root.dataset.index = 'failed';
  }
}));
