// Attribution graphs: their pages, and what stands beside a feature in them.

const graphPage = (graph) => `graphs/${encodeURIComponent(graph.slug)}.html`;

function graphLink(number, position) {
  const graph = data.graphs[number];
  const made = link(graphPage(graph), oneLine(graph.slug));
  made.title = `in this graph, where the feature is active at token ${position}`;
  return made;
}

function nodeText([kind, layer, id, position, probability]) {
  if (kind === 't') return [element('span.quiet', 'token '), chip(tokenOf(id)), element('span.quiet', ` at ${position}`)];
  if (kind === 'l') return [element('span.quiet', 'says '), chip(tokenOf(id)), element('span.quiet', ` (p = ${amount(probability)})`)];
  const place = isWhole() ? placeOf(layer, id) : -1;
  const row = place < 0 ? null : rowAt(place);
  const said = !row ? [] : row.description ? [element('span', ` ${oneLine(row.description)}`)] : [' ', ...row.promoted.slice(0, 3).map((text) => chip(text))];
  return [link(addressOf({layer, id}, list.query), nameOf({layer, id})), ...said, element('span.quiet', ` at ${position}`)];
}

function edgeTable(title, edges) {
  const rows = edges.map((edge) => {
    const weight = edge[5];
    return element('tr', element(`td.number.${weight < 0 ? 'down' : 'up'}`, `${weight < 0 ? '' : '+'}${amount(weight)}`),
        element('td', ...nodeText(edge)), element('td.quiet', graphLink(edge[6], edge[7])));
  });
  return element('section', element('h2', title), rows.length ? element('table.edges', element('tbody', ...rows)) : element('p.quiet', 'nothing that was kept'));
}

function neighbourSections(feature) {
  if (!data.graphs.length || !feature.edges) return [];
  return [element('div.edges', edgeTable('What leads to it', feature.edges.in), edgeTable('What it leads to', feature.edges.out))];
}

async function graphsPage() {
  const prompts = await chunk('prompts');
  const cards = data.graphs.map((graph, i) => element('article.example',
      element('header', link(graphPage(graph), oneLine(graph.slug)), element('span.quiet', ` ${noun(graph.tokens, 'token')} · ${noun(graph.features, 'feature')} · ${noun(graph.edges, 'edge')}`)),
      element('p.context', readable(prompts[i]))));
  return [
    element('nav', link(`#/${queryText(list.query)}`, '← all features')),
    element('header.title', element('h1', 'Attribution graphs')),
    ...cards,
    keyHints(['u', 'all features']),
  ];
}
