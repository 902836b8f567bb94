// Reading the curves of a run. A trainee called '' is the whole, '*' the mean over trainees.

/**
 * What the reader has chosen: the horizontal axis, smoothing, and runs that are hidden; and how many runs there are.
 */
const view = {axis: 'step', smooth: 'no', runs: 1, hidden: new Set()};

const isOverall = (series) => series.trainee === '' || series.trainee === '*';
const overall = (curves, metric) => curves.series.find((series) => isOverall(series) && series.metric === metric);
const ofTrainees = (curves, metric) =>
    curves.series.filter((series) => !isOverall(series) && (metric === undefined || series.metric === metric));
const unique = (values) => [...new Set(values)];

/** Names of metrics: loss first, the learning rate last, the others as they come. */
function orderedMetrics(names) {
  const place = (name) => (name === 'loss' ? 0 : name === 'learning_rate' ? 2 : 1);
  return unique(names).sort((one, other) => place(one) - place(other));
}

/** Where on the horizontal axis a curve's points lie. Held-out points have a step only. */
function places(run, curves) {
  if (view.axis === 'step') return curves.step;
  const {step, tokens} = run.training;
  return curves === run.training ? tokens : curves.step.map((wanted) => tokensAt(step, tokens, wanted));
}

function tokensAt(steps, tokens, wanted) {
  const next = steps.findIndex((step) => step >= wanted);
  if (next === -1) return Math.round(tokens[tokens.length - 1] * (wanted / steps[steps.length - 1]));
  if (next === 0) return tokens[0];
  const share = (wanted - steps[next - 1]) / (steps[next] - steps[next - 1]);
  return Math.round(tokens[next - 1] + share * (tokens[next] - tokens[next - 1]));
}

/** The horizontal axis of these runs' curves, from nothing to where the last of them is. */
function stepAxis(runs) {
  const max = Math.max(
      ...runs.flatMap((run) => [run.training, run.held_out].flatMap((curves) => places(run, curves).slice(-1))));
  return axis(view.axis, {min: 0, max, ticks: {maxTicksLimit: 6, includeBounds: false}});
}

/** Means over a window that is cut at the ends, as wide as the reader wants it. */
function smoothed(values) {
  const reach = {
    no: 0,
    'a little': Math.ceil(values.length / 100),
    'a lot': Math.ceil(values.length / 20)
  }[view.smooth];
  if (!reach) return values;
  return values.map((value, i) => {
    const window = values.slice(Math.max(0, i - reach), i + reach + 1).filter((number) => number !== null);
    return value === null ? null : window.reduce((sum, number) => sum + number, 0) / window.length;
  });
}

/** All numbers that a chart of these series will show. */
const numbersOf = (list) => list.flatMap((series) => [...series.mean, ...(series.low || [])]);

/** Figures at the end of a run: {metric, value, heldOut}, held-out ones first. */
function finalFigures(run) {
  const heldOut = run.held_out.series.filter(isOverall).map(
      (series) => ({metric: series.metric, value: lastNumber(series.mean), heldOut: true}));
  const training =
      run.training.series
          .filter((series) => isOverall(series) && !heldOut.some((figure) => figure.metric === series.metric))
          .map((series) => ({metric: series.metric, value: series.last, heldOut: false}));
  return [...heldOut, ...training];
}

function lastNumber(values) {
  for (let i = values.length - 1; i >= 0; --i)
    if (values[i] !== null) return values[i];
  return null;
}

/** Trainees of several runs in one order: by layer, then by name. */
function traineeNames(lists) {
  return unique(lists.flat()).sort((one, other) => one.localeCompare(other, 'en', {numeric: true}));
}
