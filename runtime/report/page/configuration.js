// What the runs were told, and where their numbers come from.

const written = (value) => (typeof value === 'string' ? value || '(empty)' : JSON.stringify(value));

/** Options whose values differ between runs; a run's own directory always does. */
function differingOptions(runs, options) {
  return options.filter(
      ({key}) => key !== 'run.dir' && unique(runs.map((run) => JSON.stringify(run.configuration[key]))).length > 1);
}

const changedOptions = (run, options) =>
    options.filter((option) => JSON.stringify(run.configuration[option.key]) !== JSON.stringify(option.default));

function configurationSection(page, runs, options) {
  section(page, 'Configuration');
  if (runs.length > 1) {
    const differing = differingOptions(runs, options);
    page.append(
        element('p.quiet', differing.length ? 'Options in which the runs differ.' : 'The runs have the same options.'));
    if (differing.length)
      page.append(table(
          [{title: 'option', name: true}, ...runs.map((run) => ({title: run.name}))],
          differing.map(({key}) => [element('code', key), ...runs.map((run) => written(run.configuration[key]))])));
  }
  runs.forEach((run) => {
    const content = [
      optionTable(run, changedOptions(run, options)),
      details('All options', optionTable(run, options)),
      details(
          'As a configuration file',
          element(
              'p.quiet',
              'Saved as tadapt.yaml, this trains the same again: tadapt-dist train --config tadapt.yaml --run NEW'),
          element('pre', yamlOf(run, options))),
    ];
    if (runs.length > 1)
      page.append(details(`${run.name}: options that are not the defaults`, ...content));
    else
      page.append(element('p.quiet', 'Options that are not the defaults.'), ...content);
  });
}

function optionTable(run, options) {
  return table(
      [{title: 'option', name: true}, {title: 'value'}, {title: 'default'}, {title: 'meaning'}],
      options.map(
          (option) =>
              [element('code', option.key), written(run.configuration[option.key]), written(option.default),
               element('span.quiet', option.unit ? `${option.description} [${option.unit}]` : option.description)]));
}

/** JSON is YAML. */
function yamlOf(run, options) {
  const lines = [];
  let section = '';
  changedOptions(run, options).filter(({key}) => key !== 'run.dir').forEach(({key}) => {
    const [of, name] = key.split('.');
    if (of !== section) lines.push(`${of}:`);
    section = of;
    lines.push(`  ${name}: ${JSON.stringify(run.configuration[key])}`);
  });
  return lines.join('\n');
}

function provenanceSection(page, runs, madeBy) {
  section(page, 'Provenance', 'Fingerprints and versions as of the newest checkpoint.');
  const keys = unique(runs.flatMap((run) => Object.keys(run.provenance)));
  const isSame = (key) => runs.length > 1 && unique(runs.map((run) => written(run.provenance[key]))).length === 1;
  const shared = keys.filter(isSame);
  const value = (run, key) => (key in run.provenance ? element('code', written(run.provenance[key])) : '–');
  if (shared.length)
    page.append(
        element('p.quiet', 'The same for all runs:'),
        table([{title: '', name: true}, {title: ''}], shared.map((key) => [titled(key), value(runs[0], key)])));
  runs.forEach((run) => {
    if (runs.length > 1) page.append(element('h3', run.name));
    page.append(table(
        [{title: '', name: true}, {title: ''}],
        keys.filter((key) => !shared.includes(key)).map((key) => [titled(key), value(run, key)])));
    page.append(details('Commands', element('pre', commandsOf(run))));
  });
  page.append(element('footer', `Made by ${madeBy} report.`));
}

/** A word as a shell takes it. */
function quoted(word) {
  const isPlain = /^[\w./:@%+=-]+$/.test(word);
  return isPlain ? word : `'${word.split('\'').join('\'\\\'\'')}'`;
}

function commandsOf(run) {
  const path = quoted(run.provenance['run directory']);
  const isFinished = run.total_steps > 0 && run.step >= run.total_steps;
  return [
    ...(isFinished ? [] :
                     [
                       '# go on training, with the configuration file above',
                       `tadapt-dist train --config tadapt.yaml --run ${path}`
                     ]),
    '# check every byte',
    `tadapt-dist verify ${path}`,
    '# compare the models again',
    `tadapt-dist eval ${path}`,
    '# this page',
    `tadapt-dist report ${path}`,
  ].join('\n');
}
