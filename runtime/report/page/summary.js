// What a reader sees first: what was trained, how it ended, whether anything is wrong.

const LEVELS = ['problem', 'warning'];

function summarySection(page, runs, sweeps, options) {
  const heading = sweeps.length ? 'h2' : 'h1';
  if (runs.length === 1) {
    const [run] = runs;
    page.append(
        element(heading, run.name), element('p', sentence(run)), modelsLine(run), findingsList(runs), tiles(run));
    return;
  }
  page.append(element(heading, `${runs.length} runs`));
  page.append(element('p', unique(runs.map(kindOf)).join('; ')), findingsList(runs), finalTable(runs, options));
}

function kindOf(run) {
  const of = run.configuration;
  const layers = traineeNames([ofTrainees(run.training).map((series) => series.trainee)]).length;
  const adapters = `${titled(of['adapter.type'])} adapters of ${counted(of['adapter.features'])} features`;
  return `${adapters} for ${numbered(layers, 'layer')}, ${of['train.objective']} objective`;
}

function sentence(run) {
  const done =
      run.total_steps ? `${counted(run.step)} of ${numbered(run.total_steps, 'step')}` : numbered(run.step, 'step');
  return `${kindOf(run)}: ${done}, ${counted(run.tokens)} tokens, seed ${run.configuration['train.seed']}.`;
}

function modelsLine(run) {
  return element(
      'p.quiet', 'base ', element('code', run.configuration['model.base']), ', target ',
      element('code', run.configuration['model.target']));
}

function findingsList(runs) {
  const all = runs.flatMap((run) => run.findings.map((finding) => ({...finding, run: run.name})));
  all.sort((one, other) => LEVELS.indexOf(one.level) - LEVELS.indexOf(other.level));
  const many = runs.length > 1;
  const list = element(
      'ul.findings', ...all.map(({level, run, text}) => element(`li.${level}`, many ? `${run}: ${text}` : text)));
  if (!all.length)
    list.prepend(element(
        'li.good',
        many ? 'All runs are finished, and nothing is conspicuous.' : 'Finished, and nothing is conspicuous.'));
  return list;
}

/** [{name, value, note}] of one run: what it was trained for, how it did, how fast it was. */
function keyFigures(run) {
  const figures =
      finalFigures(run)
          .filter(({metric}) => !['learning_rate', 'gradient_norm', 'layer_passes', 'sparsity_weight'].includes(metric))
          .map(
              ({metric, value, heldOut}) =>
                  ({name: titled(metric), value: shownAs(metric, value), note: heldOut ? 'held out' : 'last steps'}));
  run.evaluations.forEach(({name, data}) => {
    const adapter = (data.models || []).find((model) => model.model === 'adapter');
    if (adapter && adapter.response && adapter.response.token_kl !== undefined)
      figures.push({name: 'Token KL', value: shown(adapter.response.token_kl), note: `responses, ${name}`});
  });
  run.benchmarks.forEach(({name, data}) => {
    const adapter = (data.models || []).find((model) => model.model === 'adapter');
    if (adapter)
      figures.push(
          {name: 'Accuracy', value: interval(adapter.accuracy), note: `${intervalRange(adapter.accuracy)}, ${name}`});
    const recovery = data.recovery_from_hybrid;
    if (recovery && recovery.value !== null)
      figures.push(
          {name: 'Recovered accuracy', value: interval(recovery), note: `${intervalRange(recovery)}, from the hybrid`});
  });
  const speed = run.timing.jobs.length ? run.timing.jobs[run.timing.jobs.length - 1] : null;
  if (speed) {
    const time = run.timing.jobs.reduce((sum, job) => sum + job.seconds, 0);
    figures.push({
      name: 'Tokens per second',
      value: shown(speed.tokens_per_second),
      note: numbered(speed.ranks, 'rank'),
    });
    figures.push({
      name: 'Time',
      value: duration(time),
      note: numbered(run.timing.jobs.length, 'job'),
    });
  }
  return figures;
}

function tiles(run) {
  return element(
      'div.tiles',
      ...keyFigures(run).map(
          ({name, value, note}) =>
              element('div.tile', element('div.name', name), element('div.value', value), element('div.note', note))));
}

/** Runs as rows: what they differ in, then what came out. */
function finalTable(runs, options) {
  const most = 4;
  // Of those that a run's results depend on; what a run trains comes before what its cache is like.
  const differing = differingOptions(runs, options)
                        .filter((option) => option.matters)
                        .sort((one, other) => one.key.startsWith('cache.') - other.key.startsWith('cache.'))
                        .slice(0, most);
  const figures =
      runs.map((run) => new Map(keyFigures(run).map(({name, value, note}) => [`${name}\n${noteOf(note)}`, value])));
  const isSpeed = (name) => /^(Tokens per second|Time)/.test(name);
  const names = unique(figures.flatMap((of) => [...of.keys()])).sort((one, other) => isSpeed(one) - isSpeed(other));
  const title = (name) =>
      element('span', ...name.split('\n').flatMap((line, i) => (i ? [element('br'), line] : [line])));
  const columns = [
    {title: 'run', name: true}, ...differing.map(({key}) => ({title: title(key.replace('.', '.\n'))})),
    {title: 'step', number: true}, ...names.map((name) => ({title: title(name), number: true}))
  ];
  return table(
      columns,
      runs.map(
          (run, index) =>
              [element('span', swatch(runColor(index)), ` ${run.name}`),
               ...differing.map(({key}) => written(run.configuration[key])),
               counted(run.step),
               ...names.map((name) => figures[index].get(name) || '–'),
  ]));
}

/** A note without the numbers of one run. */
const noteOf = (note) => note.split(', ').filter((part) => !/^[−\d]/.test(part)).join(', ');
