// Layer by layer: curves of one run, and final figures of all.

function layersSection(page, runs) {
  const shownRuns = runs.filter((run) => ofTrainees(run.training).length > 0);
  if (!shownRuns.length) return;
  section(page, 'Layers', 'How each layer’s adapter went, and where it ended.');
  page.append(element('h3', 'At the end'));
  page.append(element('p.quiet', 'On held-out data where the run measures it there, else the mean of the last steps.'));
  if (shownRuns.length > 1)
    page.append(legend(shownRuns.map((run) => ({label: run.name, color: runColor(runs.indexOf(run))}))));
  page.append(...withZeros(finalCards(shownRuns, runs)));

  page.append(element('h3', 'Over time'));
  const grid = element('div');
  const bar = element('div.bar');
  const show = (run) => {
    grid.replaceChildren(...withZeros(layerCurveCards(run)));
    bar.replaceChildren(...(shownRuns.length > 1 ? [list] : []), depthLegend(run));
  };
  const list = picker('run', shownRuns.map((run) => run.name), (index) => {
    show(shownRuns[index]);
    drawAll();
  });
  page.append(bar, grid);
  show(shownRuns[0]);
}

/** Final value of a metric for each trainee of a run: held out where there is that. */
function finalByTrainee(run, metric) {
  const heldOut = ofTrainees(run.held_out, metric);
  const from = heldOut.length ? heldOut : ofTrainees(run.training, metric);
  return new Map(from.map((series) => [series.trainee, heldOut.length ? lastNumber(series.mean) : series.last]));
}

function finalCards(shownRuns, runs) {
  const metrics = orderedMetrics(shownRuns.flatMap(
      (run) => [...ofTrainees(run.held_out), ...ofTrainees(run.training)].map((series) => series.metric)));
  return metrics.map((metric) => {
    const finals = shownRuns.map((run) => finalByTrainee(run, metric));
    const trainees = traineeNames(finals.map((values) => [...values.keys()]));
    const heldOut = shownRuns.some((run) => ofTrainees(run.held_out, metric).length > 0);
    return byLayerCard({
      title: titled(metric),
      about: [MEANINGS[metric], heldOut ? 'held out' : 'last steps'].filter(Boolean).join('; '),
      labels: trainees.map(traineeTitle),
      metric,
      sets: shownRuns.map((run, i) => ({
                            label: run.name,
                            color: () => runColor(runs.indexOf(run)),
                            values: trainees.map((trainee) => finals[i].get(trainee)),
                          })),
    });
  });
}

/** A grid of the cards, and a line that names those that would only show zeros. */
function withZeros(cards) {
  const zeros = cards.filter((card) => card.zero).map((card) => card.zero);
  const grid = element('div.charts', ...cards.filter((card) => !card.zero));
  return zeros.length ? [grid, element('p.quiet', `0 everywhere: ${unique(zeros).join(', ')}.`)] : [grid];
}

/** Bars by layer, of up to three sets; lines for more. sets: {label, color(), values}; {zero: title} when all are 0. */
function byLayerCard({title, about, labels, metric, sets}) {
  const numbers = sets.flatMap((set) => set.values).filter((value) => value !== null && value !== undefined);
  if (numbers.every((value) => value === 0)) return {zero: title};
  const bars = sets.length <= 3;
  const logarithmic = bars ? withRoom(logarithmFor(metric, numbers)) : logarithmFor(metric, numbers);
  return chartCard(
      {title: `${title} by layer`, about},
      () => ({
        type: bars ? 'bar' : 'line',
        data: {
          labels,
          datasets: sets.map((set) => (bars ? barsOf : lineOf)(set.label, set.values, set.color(), {pointRadius: 3})),
        },
        options: {
          interaction: {mode: 'index', intersect: false},
          scales: {
            x: {
              grid: {display: false},
              ticks: {autoSkip: true, maxRotation: 0, callback: (value) => shortLayer(labels[value], labels.length)},
              title: {display: labels.length > 8, text: 'layer'},
            },
            y: axis('', {logarithmic, fromZero: !logarithmic, format: (value) => tickAs(metric, value)}),
          },
          plugins: {tooltip: tooltipLabel((value) => shownAs(metric, value))},
        },
      }));
}

/** "layer 3", or "3" where there are many. */
const shortLayer = (label, count) => (count > 8 ? label.replace(/^layer /, '') : label);

function depthLegend(run) {
  const trainees = traineeNames([ofTrainees(run.training).map((series) => series.trainee)]);
  if (trainees.length <= 6)
    return legend(trainees.map((trainee, i) => ({
                                 label: traineeTitle(trainee),
                                 color: depthOf(i, trainees.length),
                                 kind: 'line',
                               })));
  const bar = element('span.depth');
  bar.style.background = `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map(depthColor).join(', ')})`;
  return element('div.legend', traineeTitle(trainees[0]), bar, traineeTitle(trainees[trainees.length - 1]));
}

const depthOf = (place, count) => depthColor(count > 1 ? place / (count - 1) : 0.2);

function layerCurveCards(run) {
  const metrics = orderedMetrics(ofTrainees(run.training).map((series) => series.metric));
  return metrics.map((metric) => {
    const list = ofTrainees(run.training, metric);
    const trainees = traineeNames([list.map((series) => series.trainee)]);
    const logarithmic = logarithmFor(metric, numbersOf(list));
    if (numbersOf(list).every((value) => value === 0)) return {zero: titled(metric)};
    return chartCard(
        {title: `${titled(metric)} of each layer`, about: MEANINGS[metric] || ' '},
        () => ({
          type: 'line',
          data: {
            datasets: trainees.map((trainee, i) => {
              const series = list.find((one) => one.trainee === trainee);
              return lineOf(
                  traineeTitle(trainee), points(places(run, run.training), smoothed(series.mean), logarithmic),
                  depthOf(i, trainees.length), {borderWidth: 1.4});
            }),
          },
          options: {
            interaction: trainees.length > 6 ? {mode: 'nearest', axis: 'xy', intersect: false} : undefined,
            scales: {
              x: stepAxis([run]),
              y: axis(
                  '',
                  {logarithmic, fromZero: !logarithmic && isShare(metric), format: (value) => tickAs(metric, value)}),
            },
            plugins: {tooltip: tooltipLabel((value) => shownAs(metric, value))},
          },
        }));
  });
}
