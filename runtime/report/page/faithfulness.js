// What `tadapt-dist eval` wrote: the models against the target, by layer, and with only some layers replaced.

const TOKEN_GROUPS = ['response', 'uncertain', 'all'];

function faithfulnessSection(page, runs) {
  const names = unique(runs.flatMap((run) => run.evaluations.map((evaluation) => evaluation.name)));
  if (!names.length) return;
  section(
      page, 'Faithfulness',
      'How close base, hybrid (the target with the base’s MLPs) and adapter model come to the ' +
          'target. Response: tokens of the response; uncertain: those of them where the target itself hesitates.');
  names.forEach((name) => {
    const entries = runs.flatMap(
        (run, index) => run.evaluations.filter((evaluation) => evaluation.name === name)
                            .map((evaluation) => ({run, index, data: evaluation.data})));
    const {data} = entries[0];
    page.append(element('h3', `${name}.json`));
    page.append(element(
        'p.quiet',
        `${counted(data.sequences)} sequences, ${counted(data.tokens)} tokens` +
            `${data.corpus ? `, corpus ${data.corpus}` : ''}; step ${
                unique(entries.map((entry) => entry.data.step)).join(', ')}.`));
    const many = runs.length > 1;
    const cards = [
      ...agreementCards(entries, many),
      residualCard(entries, many),
      ...evaluatedLayerCards(entries),
      ...replacementCards(entries, many),
    ].filter(Boolean);
    page.append(legend(modelBars(entries, many)), ...withZeros(cards), agreementTable(entries, many));
  });
}

/** Models as bars: those that are the same for all runs once, the adapter model of each run. */
function modelBars(entries, many) {
  const bars = [];
  entries.forEach(({run, index, data}) => (data.models || []).forEach((model) => {
    if (model.model === 'target') return;
    if (bars.some((bar) => JSON.stringify(bar.model) === JSON.stringify(model))) return;
    const isAdapter = model.model === 'adapter';
    bars.push({
      model,
      label: many && isAdapter ? run.name : model.model,
      color: () => (isAdapter ? runColor(index) : faded(styleColor('quiet'), model.model === 'base' ? 0.4 : 0.75)),
    });
  }));
  return bars;
}

function agreementCards(entries, many) {
  const bars = modelBars(entries, many);
  const charts = [
    ['token_kl', 'Token KL', 'nats per token, KL(target ‖ model)'],
    ['top1_disagreement', 'Top-1 disagreement', 'tokens whose likeliest next token is another than the target’s']
  ];
  return charts.map(([key, title, about]) => {
    const value = (bar, group) => (bar.model[group] || {})[key];
    const numbers = bars.flatMap((bar) => TOKEN_GROUPS.map((group) => value(bar, group)));
    if (!numbers.some((number) => number > 0)) return null;
    const logarithmic = withRoom(forLogarithm(numbers));
    const datasets = () =>
        bars.map((bar) => barsOf(bar.label, TOKEN_GROUPS.map((group) => value(bar, group)), bar.color()));
    const options = {
      interaction: {mode: 'index', intersect: false},
      scales: {
        x: {grid: {display: false}},
        y: axis('', {logarithmic, fromZero: true, format: (number) => tickAs(key, number)}),
      },
      plugins: {tooltip: tooltipLabel((number) => shownAs(key, number))},
    };
    return chartCard(
        {title, about}, () => ({type: 'bar', data: {labels: TOKEN_GROUPS, datasets: datasets()}, options}));
  });
}

function residualCard(entries, many) {
  const withStates = entries.filter(({data}) => data.residual_nmse && data.residual_nmse.adapter);
  if (!withStates.length) return null;
  const numbers = withStates.flatMap(({data}) => [...data.residual_nmse.adapter, ...(data.residual_nmse.hybrid || [])]);
  const logarithmic = forLogarithm(numbers.filter((value) => value > 0));
  const usable = (values) => points(values.map((_, state) => state), values, logarithmic);
  return chartCard(
      {
        title: 'Residual NMSE',
        about: 'squared error of the residual state behind each layer',
      },
      () => ({
        type: 'line',
        data: {
          datasets: [
            ...(withStates[0].data.residual_nmse.hybrid ?
                    [lineOf(
                        'hybrid', usable(withStates[0].data.residual_nmse.hybrid), faded(styleColor('quiet'), 0.75))] :
                    []),
            ...withStates.map(
                ({run, index, data}) =>
                    lineOf(many ? run.name : 'adapter', usable(data.residual_nmse.adapter), runColor(index))),
          ],
        },
        options: {
          scales: {x: axis('layers done', {ticks: {precision: 0}}), y: axis('', {logarithmic, fromZero: !logarithmic})},
          plugins: {tooltip: tooltipLabel(shown)},
        },
      }));
}

function evaluatedLayerCards(entries) {
  const layers =
      unique(entries.flatMap(({data}) => (data.layers || []).map((layer) => layer.layer))).sort((a, b) => a - b);
  if (!layers.length) return [];
  const metrics =
      unique(entries.flatMap(({data}) => (data.layers || []).flatMap(Object.keys))).filter((key) => key !== 'layer');
  return metrics.map(
      (metric) => byLayerCard({
        title: titled(metric),
        about: metric === 'dead_share' ? 'features active on none of these tokens' : MEANINGS[metric] || ' ',
        labels: layers.map((layer) => `layer ${layer}`),
        metric,
        sets: entries.map(
            ({run, index, data}) => ({
              label: run.name,
              color: () => runColor(index),
              values: layers.map((layer) => ((data.layers || []).find((one) => one.layer === layer) || {})[metric]),
            })),
      }));
}

/** "only layer 3", "first 2", "last 4": a curve for every beginning, by the number behind it. */
function replacementCurves(data) {
  const curves = new Map();
  (data.partial_replacement || []).forEach((model) => {
    const parts = /^(.*?)\s*(\d+)$/.exec(model.model);
    const kl = model.response && model.response.token_kl;
    if (!parts || kl === undefined) return;
    if (!curves.has(parts[1])) curves.set(parts[1], []);
    curves.get(parts[1]).push({x: Number(parts[2]), y: kl});
  });
  return curves;
}

function replacementCards(entries, many) {
  const curves = entries.map(({data}) => replacementCurves(data));
  const kinds = unique(curves.flatMap((of) => [...of.keys()]));
  const all = curves.flatMap((of) => [...of.values()].flat()).map((point) => point.y);
  const logarithmic = forLogarithm(all);
  return kinds.map(
      (kind) => chartCard(
          {
            title: /layer/.test(kind) ? `Replacing ${kind} k of the target` :
                                        `Replacing the ${kind} k layers of the target`,
            about: 'token KL on response tokens; the other layers stay the target’s',
          },
          () => ({
            type: 'line',
            data: {
              datasets: entries.map(
                  ({run, index}, i) => lineOf(
                      many ? run.name : kind, curves[i].get(kind) || [], runColor(index),
                      {pointRadius: 3, showLine: !/layer/.test(kind) || (curves[i].get(kind) || []).length > 8})),
            },
            options: {
              scales: {x: axis('k', {ticks: {precision: 0}}), y: axis('nats', {logarithmic, fromZero: !logarithmic})},
              plugins: {tooltip: tooltipLabel(shown)},
            },
          })));
}

function agreementTable(entries, many) {
  const bars = modelBars(entries, many);
  const columns = [
    {title: 'model', name: true},
    ...TOKEN_GROUPS.flatMap(
        (group) => [{title: `KL, ${group}`, number: true}, {title: `top-1 differs, ${group}`, number: true}])
  ];
  return table(columns, bars.map(({label, model}) => [label, ...TOKEN_GROUPS.flatMap((group) => {
                                   const agreement = model[group] || {};
                                   return [shown(agreement.token_kl), percent(agreement.top1_disagreement, 2)];
                                 })]));
}
