// Curves of the run as a whole, those of several runs in one chart.

function trainingSection(page, runs) {
  section(
      page, 'Training',
      'Each figure over the whole model; where the objective has none, the mean over layers. A point is the mean of ' +
          'a few steps where there are many; a shade reaches from their lowest to their highest. Dashed: held out.');
  const chosen = (what) => (value) => {
    view[what] = value;
    drawAll();
  };
  const bar = element(
      'div.bar', choice('against', ['step', 'tokens'], chosen('axis')),
      choice('smooth', ['no', 'a little', 'a lot'], chosen('smooth')));
  if (runs.length > 1) bar.append(runLegend(runs));
  page.append(bar);

  const metrics = orderedMetrics(runs.flatMap(
      (run) => [...run.training.series, ...run.held_out.series].filter(isOverall).map((series) => series.metric)));
  const constant = metrics.filter((metric) => isConstant(runs, metric));
  const grid = element('div.charts');
  metrics.filter((metric) => !constant.includes(metric)).forEach((metric) => grid.append(metricCard(runs, metric)));
  page.append(grid);
  if (constant.length)
    page.append(
        element('p.quiet', `The same at every step: ${constant.map((metric) => valueOf(runs, metric)).join(', ')}.`));
}

/** A metric that never changes, with its value. */
function valueOf(runs, metric) {
  const value = numbersOf(curvesOf(runs, metric)).find((number) => number !== null);
  return `${titled(metric)} ${shownAs(metric, value)}`;
}

function runLegend(runs) {
  return legend(runs.map((run, index) => ({label: run.name, color: runColor(index), kind: 'line'})), (index, on) => {
    if (on)
      view.hidden.delete(index);
    else
      view.hidden.add(index);
    drawAll();
  });
}

const curvesOf = (runs, metric) =>
    runs.flatMap((run) => [overall(run.training, metric), overall(run.held_out, metric)]).filter(Boolean);

function isConstant(runs, metric) {
  const numbers = unique(numbersOf(curvesOf(runs, metric)).filter((number) => number !== null));
  return numbers.length <= 1;
}

function metricCard(runs, metric) {
  const logarithmic = logarithmFor(metric, numbersOf(curvesOf(runs, metric)));
  const mean =
      runs.some((run) => (overall(run.training, metric) || overall(run.held_out, metric) || {}).trainee === '*');
  const about = [MEANINGS[metric], mean ? 'mean over layers' : null].filter(Boolean).join('; ');
  return chartCard(
      {title: titled(metric), about: about || ' '},
      () => ({
        type: 'line',
        data: {
          datasets: runs.flatMap(
              (run, index) => (
                  view.hidden.has(index) ? [] : runDatasets(run, index, {metric, logarithmic, many: runs.length > 1}))),
        },
        options: {
          scales: {
            x: stepAxis(runs.filter((run) => curvesOf([run], metric).length > 0)),
            y: axis(
                '', {logarithmic, fromZero: !logarithmic && isShare(metric), format: (value) => tickAs(metric, value)})
          },
          plugins: {tooltip: tooltipLabel((value) => shownAs(metric, value))},
        },
      }));
}

function runDatasets(run, index, {metric, logarithmic, many}) {
  const color = runColor(index);
  const datasets = [];
  const training = overall(run.training, metric);
  if (training) {
    const xs = places(run, run.training);
    if (training.low && !many)
      datasets.push(...bandOf(points(xs, training.low, logarithmic), points(xs, training.high, logarithmic), color));
    datasets.push(lineOf(many ? run.name : 'training', points(xs, smoothed(training.mean), logarithmic), color));
  }
  const heldOut = overall(run.held_out, metric);
  if (heldOut) {
    const label = many ? `${run.name}, held out` : 'held out';
    // One run's held-out curve has a colour of its own.
    datasets.push(lineOf(
        label, points(places(run, run.held_out), heldOut.mean, logarithmic), many ? color : runColor(1),
        {borderDash: [5, 4],
         pointRadius: heldOut.mean.length > 40 ? 0 :
             heldOut.mean.length > 8           ? 1.8 :
                                                 3}));
  }
  return datasets;
}
