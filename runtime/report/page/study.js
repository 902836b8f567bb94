// What `tadapt-dist study hesitation` found: models without features, with them alone, and with them taken away.

const {studies, title} = JSON.parse(document.getElementById('data').textContent);
const page = document.getElementById('page');

const PARTS = [
  ['necessity', 'Necessity', 'The adapter model without a set of features.', ['target', 'hybrid', 'adapter']],
  ['sufficiency', 'Sufficiency', 'The hybrid with a set of features alone, without decoder bias.', ['hybrid', 'target']],
  ['transfer', 'Transfer', 'The target less half of what a set of features adds.', ['target']],
];
const METRICS = [
  ['hesitation_rate', 'Hesitation', 'wait, hmm, but, alternatively; per 1,000 tokens', shown],
  ['wait_rate', '“Wait”', 'per 1,000 tokens of all responses', shown],
  ['mean_tokens', 'Length', 'mean tokens of a response', shown],
  ['accuracy', 'Accuracy', 'share of correct answers', percent],
  ['degenerate_share', 'Degeneration', 'share of responses that repeat themselves', percent],
];

const isControl = (set) => set.startsWith('control');

function colorOf(row) {
  if (!row.set) return faded(styleColor('quiet'), 0.6);
  const place = isControl(row.set) ? 5 : {output: 0, template: 1, both: 3}[row.set] || 0;
  return (dark.matches ? RUN_COLORS_DARK : RUN_COLORS)[place];
}

function labelOf(row) {
  if (!row.set) return row.model;
  const how = {necessity: 'without', sufficiency: 'with', transfer: 'less'}[row.part];
  const set = isControl(row.set) ? `${row.set.replace('control-', '')} × random` : row.set;
  return `${how} ${set} (${counted(row.features)})`;
}

/** Bars of all models of a part, beside the models that they are read against. */
function partSection(study, [part, heading, about, beside]) {
  const rows = [
    ...beside.map((name) => study.models.find((row) => row.model === name)),
    ...study.models.filter((row) => row.part === part),
  ].filter(Boolean);
  const cards = METRICS.map(
      ([metric, name, what, format]) => intervalCard(
          `${heading}: ${name}`, what,
          rows.map((row) => ({label: labelOf(row), color: () => colorOf(row), estimate: row[metric].value})), undefined,
          format));
  return [element('h3', heading), element('p.quiet', about), element('div.charts', ...cards)];
}

/** Changes over the number of features removed: sets against random ones. */
function growthCard(study, metric, name) {
  const rows = study.models.filter((row) => row.part === 'necessity');
  const series = [
    ['random features', rows.filter((row) => isControl(row.set)), 5, true],
    ...['output', 'template', 'both'].map(
        (set, place) => [set, rows.filter((row) => row.set === set), [0, 1, 3][place], false]),
  ];
  const color = (place) => (dark.matches ? RUN_COLORS_DARK : RUN_COLORS)[place];
  const entries = series.map(([label, , place]) => ({label, color: () => color(place)}));
  return chartCard(
      {
        title: `${name}: change by number of features removed`,
        about: 'relative to the adapter model',
        legend: legend(entries),
      },
      () => ({
        type: 'line',
        data: {
          datasets: series.map(
              ([label, of, place, joined]) => lineOf(
                  label, of.map((row) => ({x: row.features, y: row[metric].relative_change.value})), color(place),
                  {pointRadius: 4, showLine: joined})),
        },
        options: {
          scales: {
            x: axis('features removed', {fromZero: true, format: counted}),
            y: axis('', {fromZero: true, format: (value) => percent(value, 0)}),
          },
          plugins: {tooltip: tooltipLabel(percent)},
        },
      }));
}

function claimsList(study) {
  return element('ul.findings', ...study.claims.map(({claim, found, holds}) => element(
      holds ? 'li' : 'li.problem', `${claim}: ${found} – ${holds ? 'holds' : 'does not hold'}`)));
}

function setsTable(study) {
  const columns = [
    {title: 'set', name: true},
    ...['features', 'of all', 'live', 'active per token'].map((heading) => ({title: heading, number: true})),
    {title: 'rule'},
  ];
  return table(
      columns,
      study.sets.map(
          (set) =>
              [set.name, counted(set.features), percent(set.features / study.features.all, 2), counted(set.live),
               shown(set.active_per_token), set.rule]));
}

function sensitivityCards(study) {
  return study.sensitivity.map(
      ({rule, counts}) => chartCard(
          {title: `Features meant by the rule of ${rule}`, height: 170},
          () => ({
            type: 'bar',
            data: {
              labels: counts.map(([number]) => String(number)),
              datasets: [barsOf('features', counts.map(([, count]) => count), (dark.matches ? RUN_COLORS_DARK : RUN_COLORS)[0])],
            },
            options: {scales: {x: {grid: {display: false}}, y: axis('', {fromZero: true, format: counted})}},
          })));
}

/** A number with its interval. */
function withRange(estimate, format) {
  if (!estimate || estimate.value === null) return '–';
  return `${format(estimate.value)} [${format(estimate.low)}, ${format(estimate.high)}]`;
}

const probability = (p) => (p < 0.001 ? 'p < 0.001' : `p ${p.toFixed(3)}`);

function modelsTable(study) {
  const columns = [
    {title: 'model', name: true},
    ...['features', ...METRICS.map(([, name]) => name), 'hesitation, change', 'length, change', 'accuracy, difference']
        .map((heading) => ({title: heading, number: true})),
  ];
  return table(columns, study.models.map((row) => {
    const change = (metric, kind) => (
        row.model === row.against ? '–' : `${withRange(row[metric][kind], percent)}, ${probability(row[metric].p)}`);
    return [
      row.model, row.set ? counted(row.features) : '',
      ...METRICS.map(([metric, , , format]) => withRange(row[metric].value, format)),
      change('hesitation_rate', 'relative_change'), change('mean_tokens', 'relative_change'),
      change('accuracy', 'difference')
    ];
  }));
}

function studySection({name, data}) {
  section(
      page, name,
      `${counted(data.features.all)} features, ${counted(data.features.live)} of them live; ` +
          `${counted(data.questions)} questions, ${numbered(data.samples, 'sample')} each, temperature ` +
          `${shown(data.temperature)}. Intervals are 95 %, bootstrap over questions; tests are paired by question.`);
  page.append(claimsList(data), setsTable(data), element('div.charts', ...sensitivityCards(data)));
  PARTS.forEach((part) => page.append(...partSection(data, part)));
  page.append(element('h3', 'Sets against random features'));
  page.append(element(
      'div.charts', growthCard(data, 'hesitation_rate', 'Hesitation'), growthCard(data, 'mean_tokens', 'Length')));
  page.append(element('h3', 'All models'), modelsTable(data));
}

document.title = `${title} – tadapt`;
page.append(element('h1', title));
studies.forEach((study) => {
  try {
    studySection(study);
  } catch (error) {
    page.append(element('ul.findings', element('li.problem', `${study.name} cannot be shown: ${error.message}`)));
    console.error(error);
  }
});
drawAll();
document.documentElement.dataset.charts = String(charts.length);
document.documentElement.dataset.ready = 'true';
