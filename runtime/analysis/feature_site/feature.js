// The page of one feature.

function decodeFeatures(chunk) {
  const decoded = (columns) => Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, numbers(column)]));
  const {edges, labels, promoted, suppressed, examples, ...counts} = chunk;
  return {...decoded(counts), promoted: decoded(promoted), suppressed: decoded(suppressed), examples: decoded(examples), edges, labels};
}

// Row i of a table of so many rows.
const tableRow = (table, i, rows) => Array.from(table.slice((i * table.length) / rows, ((i + 1) * table.length) / rows));

function exampleAt(columns, e) {
  const near = [];
  for (let n = columns.near_begin[e]; n < columns.near_begin[e + 1]; ++n)
    near.push({offset: columns.near_place[n] - data.records.tokens_before, activation: columns.near_activation[n]});
  return {sequence: columns.sequence[e], position: columns.position[e], region: columns.region[e], activation: columns.activation[e], near};
}

function lensTokens(lens, i, rows) {
  const logits = tableRow(lens.logit, i, rows);
  return tableRow(lens.id, i, rows).map((id, k) => ({id, text: tokenOf(id), logit: logits[k]}));
}

// Everything that is known of a feature; an Error that people can read when there is none such.
async function readFeature(layerNumber, id) {
  const layer = data.layers.find((one) => one.layer === layerNumber);
  if (!layer) throw new Error(`There is no layer ${layerNumber} here.`);
  const number = layer.begins.findLastIndex((begin) => begin <= id);
  const chunked = number < 0 ? null : await chunk(`features/${padded(layerNumber, 3)}/${padded(number, 4)}`, decodeFeatures);
  const i = chunked ? chunked.id.indexOf(id) : -1;
  if (i < 0) throw new Error(`Layer ${layerNumber} has no feature ${id}: ${noun(layer.features, 'feature is', 'features are')} known.`);
  const rows = chunked.id.length, {examples} = chunked;
  const all = [];
  for (let e = examples.begin[i]; e < examples.begin[i + 1]; ++e) all.push(exampleAt(examples, e));
  return {
    layer: layerNumber, id, active: chunked.active[i], label: chunked.labels[id], edges: chunked.edges[id],
    byDomain: tableRow(chunked.by_domain, i, rows), byRegion: tableRow(chunked.by_region, i, rows),
    byThinking: tableRow(chunked.by_thinking, i, rows), histogram: tableRow(chunked.histogram, i, rows),
    promoted: lensTokens(chunked.promoted, i, rows), suppressed: lensTokens(chunked.suppressed, i, rows),
    top: all.slice(0, examples.top[i]), sampled: all.slice(examples.top[i]),
  };
}

function facts(feature) {
  const tokens = data.totals.tokens;
  if (!feature.active) return element('p.dead', `This feature is dead: it is active on none of the ${noun(tokens, 'token')}.`);
  const share = feature.active / tokens;
  return element('p', element('b', percent(share)), ` of tokens: ${count(feature.active)} of ${count(tokens)}` +
      `${share < 0.5 ? `, one in ${count(Math.round(1 / share))}` : ''}. Strongest activation `, element('b', amount(feature.top[0]?.activation ?? 0)), '.');
}

function labelLine(label) {
  if (!label) return null;
  const scores = (label.detection ?? []).map((score, i) => (score === null ? null : `${percent(score)} ${['strongest', 'drawn'][i]}`)).filter((score) => score);
  return element('p.said', label.class ? element('span.kind', className(label.class)) : null, oneLine(label.description),
      scores.length ? element('span.quiet', ` Texts told apart by this description: ${scores.join(', ')}; 50 % is chance.`) : null);
}

// Where the list goes on from here; the features beside it in its layer while the list is not known.
function stepsFrom(feature) {
  const places = isWhole() ? list.places ?? [] : [];
  const place = isWhole() ? placeOf(feature.layer, feature.id) : -1;
  const at = place < 0 ? -1 : places.indexOf(place);
  const to = (other) => (other === undefined ? null : {layer: index.layer[other], id: index.id[other]});
  return {at, before: at > 0 ? to(places[at - 1]) : null, after: at >= 0 ? to(places[at + 1]) : null};
}

function navigation(feature) {
  const steps = stepsFrom(feature);
  const step = (other, text, title) => {
    const made = other ? link(addressOf(other, list.query), text) : element('span.quiet', text);
    made.title = title;
    return made;
  };
  const made = element('nav',
      link(`#/${queryText(list.query)}`, '← all features'),
      element('span.steps', step(steps.before, '‹ previous', 'k'), steps.at < 0 ? null : element('span.quiet', `${count(steps.at + 1)} of ${count(rowCount())}`), step(steps.after, 'next ›', 'j')));
  made.steps = steps;
  made.renew = () => made.replaceWith(navigation(feature));  // once the index is there
  return made;
}

async function featurePage(feature) {
  const largest = feature.top[0]?.activation ?? 0;
  const marks = list.marks;
  const [top, sampled] = await Promise.all([
    exampleSection('Strongest activations', feature.top, largest),
    exampleSection('Drawn at random from its activations', feature.sampled, largest)]);
  return [
    navigation(feature),
    element('header.title', element('h1', `Layer ${feature.layer}, feature ${feature.id}`), labelLine(feature.label), facts(feature)),
    element('div.columns',
        element('div.lens', lensTable('Promotes', feature.promoted, marks), lensTable('Suppresses', feature.suppressed, marks)),
        element('div.charts',
            feature.active ? activationBars(feature.histogram) : null,
            feature.active ? thinkingBars(feature.byThinking) : null,
            feature.active ? shareBars('Regions', feature.byRegion, data.totals.by_region, regionName) : null,
            feature.active ? shareBars('Domains', feature.byDomain, data.totals.by_domain, domainName) : null,
            feature.active ? element('p.quiet', 'The line across a bar is the share of all tokens.') : null),
        element('div.main', ...neighbourSections(feature), top, sampled)),
    keyHints(['j k', 'next, previous'], ['u', 'all features'], ['/', 'search']),
  ];
}
