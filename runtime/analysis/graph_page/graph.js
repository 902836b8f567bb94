// One attribution graph: positions across, layers upwards, a click on a node lists what leads to it and where it leads.
// Text only ever becomes a text node: nothing that the data says is read as HTML.

const {graph, balances, feature_url: featureUrl, made_by: madeBy} = JSON.parse(document.getElementById('data').textContent);
const {metadata, nodes, links} = graph;
const byId = new Map(nodes.map((node) => [node.node_id, node]));
const balanceOf = new Map(balances.map((balance) => [balance.node, balance]));
for (const node of nodes) Object.assign(node, {into: [], out: []});
for (const link of links) {
  byId.get(link.target).into.push(link);
  byId.get(link.source).out.push(link);
}
const bySize = (a, b) => Math.abs(b.weight) - Math.abs(a.weight);
for (const node of nodes) [node.into, node.out].forEach((list) => list.sort(bySize));

function element(what, ...children) {
  const [name, ...classes] = what.split('.');
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(' ');
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const shortNumber = (value) => (value === 0 ? '0' : Number(value.toPrecision(3)).toString());
const visible = (token) => token.replaceAll('\n', '⏎').replaceAll('\t', '→').replaceAll(' ', '·') || '∅';
const cut = (text, length) => ([...text].length > length ? [...text].slice(0, length - 1).join('') + '…' : text);

function titleOf(node) {
  const token = visible(metadata.prompt_tokens[node.ctx_idx] ?? '');
  if (node.feature_type === 'embedding') return `token ${node.ctx_idx} “${token}”`;
  if (node.feature_type === 'logit') return node.clerp.replace(/^Output /, '');
  const [layer, feature] = node.node_id.split('_');
  return `feature ${feature} of layer ${layer} at ${node.ctx_idx} “${token}”`;
}

// Rows of the drawing: tokens, the layers that have features, logits.
const numbers = [...new Set(nodes.filter((node) => node.feature_type === 'cross layer transcoder').map((node) => Number(node.layer)))];
const layers = Array.from({length: numbers.length ? Math.max(...numbers) + 1 : 0}, (_, layer) => layer);
const rowOf = (node) => (node.feature_type === 'embedding' ? 0 : node.feature_type === 'logit' ? layers.length + 1 : Number(node.layer) + 1);
const rows = layers.length + 2;

function place() {
  const cells = new Map();
  for (const node of nodes) {
    const key = `${rowOf(node)} ${node.ctx_idx}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(node);
  }
  const widest = new Map();
  for (const [key, cell] of cells) {
    const column = Number(key.split(' ')[1]);
    widest.set(column, Math.max(widest.get(column) ?? 0, cell.length));
  }
  const columns = [...widest.keys()].sort((a, b) => a - b);
  const left = new Map();
  let x = 64;
  for (const column of columns) {
    left.set(column, x);
    x += Math.max(38, 12 * widest.get(column) + 10);
  }
  const height = Math.max(34, Math.min(100, 620 / rows));
  const yOf = (row) => 24 + (rows - 1 - row) * height;
  for (const cell of cells.values()) {
    cell.forEach((node, index) => {
      node.x = left.get(node.ctx_idx) + 8 + 12 * index;
      node.y = yOf(rowOf(node));
    });
  }
  return {columns, left, width: x + 30, height: rows * height + 76, yOf};
}

const layout = place();
const svg = drawn('svg', {width: layout.width, height: layout.height, role: 'img'});
const edges = drawn('g', {}), marked = drawn('g', {}), dots = drawn('g', {});

function path(link) {
  const from = byId.get(link.source), to = byId.get(link.target);
  const middle = (from.y + to.y) / 2;
  return `M${from.x},${from.y}C${from.x},${middle} ${to.x},${middle} ${to.x},${to.y}`;
}

function drawFrame() {
  for (let row = 0; row < rows; ++row) {
    const y = layout.yOf(row), name = row === 0 ? 'tokens' : row === rows - 1 ? 'logits' : `layer ${row - 1}`;
    svg.append(drawn('line', {class: 'rule', x1: 56, x2: layout.width, y1: y, y2: y}));
    svg.append(drawn('text', {x: 6, y: y + 4}, name));
  }
  for (const column of layout.columns) {
    const x = layout.left.get(column) + 8, y = layout.yOf(0) + 16;
    const label = drawn('text', {x, y, transform: `rotate(40 ${x} ${y})`}, cut(visible(metadata.prompt_tokens[column] ?? ''), 12));
    label.append(drawn('title', {}, `position ${column}`));
    svg.append(label);
  }
}

// All edges would be a grey cloud: the heaviest give the picture, a click shows those of a node.
const kShownEdges = 1500, kListed = 40;
const heaviest = links.reduce((most, link) => Math.max(most, Math.abs(link.weight)), 0) || 1;
const thickness = (link) => 0.5 + 3 * Math.sqrt(Math.abs(link.weight) / heaviest);

function drawGraph() {
  drawFrame();
  for (const link of [...links].sort(bySize).slice(0, kShownEdges))
    edges.append(drawn('path', {class: 'edge', d: path(link), 'stroke-width': thickness(link)}));
  for (const node of nodes) {
    const radius = node.feature_type === 'logit' ? 5.5 : 4.5;
    const dot = drawn('circle', {class: `node ${node.feature_type.split(' ')[0]}`, cx: node.x, cy: node.y, r: radius, 'data-node': node.node_id});
    dot.append(drawn('title', {}, titleOf(node)));
    dot.onclick = () => choose(node);
    node.dot = dot;
    dots.append(dot);
  }
  svg.append(edges, marked, dots);
  document.getElementById('drawing').append(svg);
}

function linkTable(list, end) {
  const lines = list.slice(0, kListed).map((link) => {
    const other = byId.get(link[end]);
    const button = element('button', titleOf(other));
    button.onclick = () => choose(other);
    return element('tr', element('td', button), element(`td.number.${link.weight < 0 ? 'down' : 'up'}`, shortNumber(link.weight)));
  });
  const rest = list.length - lines.length;
  return [element('table', element('tbody', ...lines)), rest > 0 ? element('p.quiet', `and ${rest} smaller ones`) : null];
}

function facts(node) {
  const lines = [];
  const add = (name, value) => lines.push(element('tr', element('td', name), element('td.number', value)));
  if (node.feature_type === 'cross layer transcoder') add('activation', shortNumber(node.activation));
  if (node.feature_type === 'logit') add('probability', shortNumber(node.token_prob));
  if (node.influence !== null) add('influence of it and greater ones', `${(100 * node.influence).toFixed(1)} %`);
  const balance = balanceOf.get(node.node_id);
  if (balance) {
    add('value to attribute', shortNumber(balance.value));
    add('edges before pruning', shortNumber(balance.edges));
    add('features that are no nodes', shortNumber(balance.left_out));
    add('biases', shortNumber(balance.biases));
    add('first position', shortNumber(balance.first_position));
    add('residual', shortNumber(balance.residual));
  }
  return element('table', element('tbody', ...lines));
}

function describedAt(node) {
  if (!featureUrl || node.feature_type !== 'cross layer transcoder') return null;
  const [layer, feature] = node.node_id.split('_');
  const link = element('a', 'what this feature is about');
  link.href = featureUrl.replaceAll('{layer}', layer).replaceAll('{feature}', feature).replaceAll('{index}', node.feature);
  return element('p', link);
}

let chosen = null;
function choose(node) {
  if (chosen) chosen.dot.classList.remove('chosen');
  dots.querySelectorAll('.beside').forEach((dot) => dot.classList.remove('beside'));
  chosen = node;
  node.dot.classList.add('chosen');
  edges.style.opacity = 0.25;
  marked.replaceChildren(...[...node.into, ...node.out].map((link) => drawn('path', {
    class: `edge ${link.weight < 0 ? 'down' : 'up'}`, d: path(link), 'stroke-width': thickness(link)})));
  for (const link of node.into) byId.get(link.source).dot.classList.add('beside');
  for (const link of node.out) byId.get(link.target).dot.classList.add('beside');
  document.getElementById('detail').replaceChildren(...[
    element('h1', titleOf(node)), describedAt(node), facts(node), element('h2', `${node.into.length} edges in`),
    ...linkTable(node.into, 'source'), element('h2', `${node.out.length} edges out`), ...linkTable(node.out, 'target'),
  ].filter((child) => child !== null));
}

document.title = `${metadata.slug} – attribution graph`;
const features = nodes.filter((node) => node.feature_type === 'cross layer transcoder').length;
document.getElementById('head').append(
    element('h1', metadata.slug),
    element('div.quiet', `${metadata.prompt_tokens.length} tokens, ${features} features, ${links.length} edges` +
        `${links.length > kShownEdges ? `, of which the ${kShownEdges} heaviest are drawn` : ''}. ` +
        `Green adds to what it leads to, red takes away. Made by ${madeBy}.`),
    element('p.prompt', metadata.prompt));
drawGraph();
const first = nodes.find((node) => node.is_target_logit);
if (first) choose(first);
document.documentElement.dataset.nodes = String(dots.childElementCount);
document.documentElement.dataset.ready = 'true';
