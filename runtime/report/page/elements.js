// Building blocks of the page. Text only ever becomes a text node: nothing that a file says is read as HTML.

/** element('p.quiet', 'text', child, …) */
function element(what, ...children) {
  const [name, ...classes] = what.split('.');
  const node = document.createElement(name || 'div');
  if (classes.length) node.className = classes.join(' ');
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function section(page, title, about) {
  const id = title.toLowerCase().replace(/[^a-z]+/g, '-');
  const heading = element('h2', title);
  heading.id = id;
  const link = element('a', title);
  link.href = `#${id}`;
  document.getElementById('contents').append(link);
  page.append(heading);
  if (about) page.append(element('p.quiet', about));
  return page;
}

/** columns: {title, number, name}; rows: arrays of text or nodes, or {cells, chosen}. */
function table(columns, rows) {
  const kind = (column) => (column.number ? '.number' : column.name ? '.name' : '.words');
  const head = element('tr', ...columns.map((column) => element(`th${column.number ? '.number' : ''}`, column.title)));
  const body = rows.map((row) => {
    const line = element(row.chosen ? 'tr.chosen' : 'tr');
    (row.cells || row).forEach((cell, place) => line.append(element(`td${kind(columns[place])}`, cell)));
    return line;
  });
  return element('div.scroll', element('table', element('thead', head), element('tbody', ...body)));
}

function swatch(color, kind = '') {
  const mark = element(`span.swatch${kind ? `.${kind}` : ''}`);
  if (kind === 'dashed')
    mark.style.color = color;
  else
    mark.style.background = color;
  return mark;
}

/** entries: {label, color or color(), kind}; with `toggled`, each is a button that calls it with (index, on). */
function legend(entries, toggled) {
  return element('div.legend', ...entries.map((entry, index) => {
    const node = element(
        toggled ? 'button.entry' : 'span.entry',
        swatch(typeof entry.color === 'function' ? entry.color() : entry.color, entry.kind), entry.label);
    if (toggled) {
      node.title = 'hide or show';
      node.onclick = () => toggled(index, !node.classList.toggle('off'));
    }
    return node;
  }));
}

/** A row of buttons of which one is pressed; `chosen(value)` is called when another is. */
function choice(title, values, chosen) {
  const buttons = values.map((value) => {
    const button = element('button', value);
    button.onclick = () => {
      buttons.forEach((other) => other.setAttribute('aria-pressed', String(other === button)));
      chosen(value);
    };
    return button;
  });
  buttons.forEach((button, place) => button.setAttribute('aria-pressed', String(place === 0)));
  return element('span.choice', title, ...buttons);
}

/** A drop-down list; `chosen(index)` is called when another entry is picked. */
function picker(title, labels, chosen) {
  const list = element('select', ...labels.map((label) => element('option', label)));
  list.onchange = () => chosen(list.selectedIndex);
  return element('label.choice', title, list);
}

function details(title, ...children) {
  return element('details', element('summary', title), ...children);
}
