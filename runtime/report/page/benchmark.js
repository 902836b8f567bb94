// What `tadapt-dist benchmark` wrote: accuracy with intervals, what the adapters recover, length and hesitation.

function benchmarkSection(page, runs) {
  const names = unique(runs.flatMap((run) => run.benchmarks.map((benchmark) => benchmark.name)));
  if (!names.length) return;
  section(page, 'Benchmark', 'What the models answer to questions. Intervals are 95 %, bootstrap over questions.');
  names.forEach((name) => {
    const entries = runs.flatMap(
        (run, index) => run.benchmarks.filter((benchmark) => benchmark.name === name)
                            .map((benchmark) => ({run, index, data: benchmark.data})));
    const {data} = entries[0];
    page.append(element('h3', name));
    page.append(element(
        'p.quiet',
        `${counted(data.questions)} questions (${data.question_file || 'unknown file'}), ` +
            `${numbered(data.samples, 'sample')} each, temperature ${shown(data.temperature)}, ` +
            `top-p ${shown(data.top_p)}, seed ${data.seed}.`));
    const bars = scoreBars(entries, runs.length > 1);
    page.append(element(
        'div.charts',
        intervalCard(
            'Accuracy', 'share of correct answers', bars.map((bar) => ({...bar, estimate: bar.model.accuracy}))),
        ...recoveryCards(entries, runs.length > 1, barsHeight(bars.length)),
        barsCard('Length', 'mean tokens of a response', bars, 'mean_tokens'),
        barsCard('“Wait”', 'per 1,000 tokens of all responses', bars, 'wait_rate'),
        barsCard('Hesitation', 'wait, hmm, but, alternatively; per 1,000 tokens', bars, 'hesitation_rate')));
    page.append(scoreTable(bars), ...[recoveryTable(entries)].filter(Boolean));
  });
}

/** base, hybrid, the adapter model of every run, target; what is the same for all runs stands once. */
function scoreBars(entries, many) {
  const bars = [];
  const order = ['base', 'hybrid', 'adapter', 'target'];
  entries.forEach(({run, index, data}) => (data.models || []).forEach((model) => {
    if (bars.some((bar) => JSON.stringify(bar.model) === JSON.stringify(model))) return;
    const isAdapter = model.model === 'adapter';
    bars.push({
      model,
      label: many && isAdapter ? run.name : model.model,
      color: () => (isAdapter ? runColor(index) : faded(styleColor('quiet'), 0.6)),
    });
  }));
  return bars.sort((one, other) => order.indexOf(one.model.model) - order.indexOf(other.model.model));
}

const barsHeight = (count) => Math.max(150, 60 + 30 * count);

function horizontal(bars, datasets, scale, format) {
  return {
    type: 'bar',
    data: {labels: bars.map((bar) => shortened(bar.label)), datasets},
    options: {
      indexAxis: 'y',
      interaction: {mode: 'index', axis: 'y', intersect: false},
      scales: {x: scale, y: {grid: {display: false}, ticks: {autoSkip: false}}},
      plugins: {tooltip: {callbacks: {label: format}}},
    },
  };
}

const barStyle = (bars) =>
    ({backgroundColor: bars.map((bar) => bar.color()), maxBarThickness: 22, borderRadius: 2, grouped: false});

/** Bars with the ends of their intervals. bars: {label, color(), estimate} */
function intervalCard(title, about, bars, height = barsHeight(bars.length), format = percent) {
  return chartCard(
      {title, about, height},
      () => horizontal(
          bars,
          [
            {data: bars.map((bar) => bar.estimate.value), ...barStyle(bars)},
            {
              data: bars.map((bar) => (bar.estimate.low === null ? null : [bar.estimate.low, bar.estimate.high])),
              backgroundColor: styleColor('text'),
              barThickness: 3,
              grouped: false,
              silent: true,
            },
          ],
          axis('', {fromZero: true, format: (value) => format(value, format === percent ? 0 : 3)}), (item) => {
            const {estimate} = bars[item.dataIndex];
            return ` ${format(estimate.value)} [${format(estimate.low)} to ${format(estimate.high)}]`;
          }));
}

function recoveryCards(entries, many, height) {
  return [['recovery_from_hybrid', 'Recovered from the hybrid'], ['recovery_from_base', 'Recovered from the base']]
      .map(([key, title]) => {
        const bars =
            entries.filter(({data}) => data[key] && data[key].value !== null).map(({run, index, data}) => ({
                                                                                    label: many ? run.name : 'adapter',
                                                                                    color: () => runColor(index),
                                                                                    estimate: data[key],
                                                                                  }));
        return bars.length && many ? intervalCard(title, 'share of the way to the target’s accuracy', bars, height) :
                                     null;
      })
      .filter(Boolean);
}

function barsCard(title, about, bars, key) {
  return chartCard(
      {title, about, height: barsHeight(bars.length)},
      () => horizontal(
          bars,
          [
            {data: bars.map((bar) => bar.model[key]), ...barStyle(bars)},
          ],
          axis('', {fromZero: true}), (item) => ` ${shown(item.parsed.x)}`));
}

function scoreTable(bars) {
  const columns = [
    {title: 'model', name: true},
    ...['responses', 'accuracy', '95 %', 'mean length', 'median', 'wait / 1k', 'hesitation / 1k', 'degenerate',
        'unfinished']
        .map((title) => ({title, number: true}))
  ];
  return table(
      columns,
      bars.map(
          ({label, model}) =>
              [label, counted(model.responses), interval(model.accuracy),
               element('span.interval', intervalRange(model.accuracy)), shown(model.mean_tokens),
               shown(model.median_tokens), shown(model.wait_rate), shown(model.hesitation_rate),
               percent(model.degenerate_share), percent(model.unfinished_share)]));
}

function recoveryTable(entries) {
  const columns = [
    {title: 'accuracy recovered by', name: true}, {title: 'from the hybrid', number: true},
    {title: '95 %', number: true}, {title: 'from the base', number: true}, {title: '95 %', number: true}
  ];
  const cells = (estimate) => [interval(estimate), element('span.interval', intervalRange(estimate))];
  const rows =
      entries.filter(({data}) => data.recovery_from_hybrid && data.recovery_from_hybrid.value !== null)
          .map(({run, data}) => [run.name, ...cells(data.recovery_from_hybrid), ...cells(data.recovery_from_base)]);
  return rows.length ? table(columns, rows) : null;
}
