// The layers at a glance: how many features are active on a token; a click shows one layer alone.

function overview(onChoose) {
  const tokens = data.totals.tokens || 1;
  const most = Math.max(...data.layers.map((layer) => layer.active), 1);
  const bars = data.layers.map((layer) => {
    const bar = element('span.fill');
    bar.style.height = `${layer.active ? Math.max(2, (100 * layer.active) / most) : 0}%`;
    const dead = layer.features - layer.live;
    const made = button(bar, `layer ${layer.layer}: ${amount(layer.active / tokens)} active on a token, ` +
        `${count(dead)} of ${noun(layer.features, 'feature')} dead`, () => onChoose(layer.layer));
    made.className = 'layer';
    made.dataset.layer = layer.layer;
    return made;
  });
  const all = data.layers.reduce((sum, layer) => sum + layer.active, 0) / tokens;
  return element('section.overview',
      element('div.layers', ...bars),
      element('p.quiet', `Active on a token, by layer; in all ${all < 100 ? amount(all) : count(Math.round(all))}`));
}

function markLayer(section, layer) {
  for (const bar of section.querySelectorAll('.layer')) bar.setAttribute('aria-pressed', bar.dataset.layer === layer);
}

function summary() {
  const live = data.layers.reduce((sum, layer) => sum + layer.live, 0);
  const facts = [
    `${noun(total, 'feature')} in ${noun(data.layers.length, 'layer')}`,
    `${count(total - live)} of them dead`,
    `${noun(data.totals.tokens, 'token')} of ${noun(data.sequences, 'conversation')}`,
    data.subject === 'adapters' ? `step ${count(data.step)}` : null,
  ];
  return element('p.quiet', facts.filter((fact) => fact).join(' · '));
}
