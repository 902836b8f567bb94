// A sweep: the trade between sparsity and error, and what a larger dictionary brings.

const SWEEP_ERRORS = [['nmse', 'NMSE'], ['kl', 'KL']];
const SWEEP_COSTS = [['dead_share', 'Dead share'], ['tokens_per_second', 'Tokens per second']];

function sweepSection(page, sweep, isOnly) {
  const {data} = sweep;
  const count = counted(data.points.length);
  section(
      page, isOnly ? 'Sweep' : `Sweep ${sweep.name}`,
      `${count} points in ${sweep.name}. Points on the front are those that no other beats in both figures.`);
  page.append(...recommendation(data));
  const points = data.points.flatMap(
      (point, index) => [{...point, index, layer: String(point.layer)}, ...rowsOfLayers(point)]);
  const [fronts, scaling, rows] = [element('div.charts.pair'), element('div.charts'), element('div')];
  const show = (layer) => {
    const chosen = points.filter((point) => point.layer === layer);
    const errors = SWEEP_ERRORS.filter(([key]) => chosen.some((point) => typeof point[key] === 'number'));
    fronts.replaceChildren(...errors.map(([key, title]) => frontCard(data, chosen, key, title)));
    const cards = [...errors, ...SWEEP_COSTS].map(([key, title]) => scalingCard(data, chosen, key, title));
    scaling.replaceChildren(...cards.filter(Boolean));
    rows.replaceChildren(pointsTable(data, chosen));
  };
  const layers = layersOf(points);
  const layerPicker = picker('layer', layers, (index) => {
    show(layers[index]);
    drawAll();
  });
  if (layers.length > 1) page.append(element('div.bar', layerPicker));
  const [sizes, weights] = [dictionariesOf(data.points), weightsOf(data.points)];
  page.append(depthEntries(sizes, (size) => `${counted(size)} features`), fronts);
  page.append(depthEntries(weights, (weight) => `λ ${shown(weight)}`), scaling);
  page.append(...fitsTable(data), details('All points', rows));
  show(layers[0]);
}

/** What a point says of its layers, as points of their own; what only the whole has is not theirs. */
const rowsOfLayers = (point) => (point.layers || []).map((layer) => ({
                                                           ...point,
                                                           kl: null,
                                                           tokens_per_second: null,
                                                           seconds: null,
                                                           ...layer,
                                                           index: -1,
                                                           layer: String(layer.layer),
                                                         }));

/** All layers together first, then layer by layer. */
const layersOf = (points) =>
    traineeNames([points.map((point) => point.layer)]).sort((one, other) => (other === 'all') - (one === 'all'));

const depthEntries = (values, label) =>
    legend(values.map((value, i) => ({label: label(value), color: depthOf(i, values.length)})));

function recommendation(data) {
  const point = data.points[data.recommended];
  if (!point) return [];
  const figures = [`L0 ${shown(point.l0)}`, `NMSE ${shown(point.nmse)}`];
  if (typeof point.kl === 'number') figures.push(`KL ${shown(point.kl)}`);
  const what = `${counted(point.dictionary)} features, λ ${shown(point.l1)}, seed ${point.seed}`;
  const where = point.run ? ` (${point.run})` : '';
  return [element('ul.findings', element('li.good', `Recommended: ${what}: ${figures.join(', ')}${where}.`))];
}

const dictionariesOf = (chosen) => unique(chosen.map((point) => point.dictionary)).sort((one, other) => one - other);
const weightsOf = (chosen) => unique(chosen.map((point) => point.l1)).sort((one, other) => one - other);

/**
 * L0 against an error, coloured by dictionary size; the front as a line through its points, the recommended one
 * ringed.
 */
function frontCard(data, chosen, key, title) {
  const sizes = dictionariesOf(data.points);
  const usable = chosen.filter((point) => typeof point[key] === 'number');
  const spot = (point) => ({x: point.l0, y: point[key], point});
  const logarithmic = forLogarithm(usable.map((point) => point[key]), 5);
  const front = frontOf(data, usable, key);
  return chartCard(
      {
        title: `L0 against ${title}`,
        about: 'left and below is better; the line joins the front, the ring is the recommended point',
        height: 320,
      },
      () => ({
        type: 'scatter',
        data: {
          datasets: [
            ...sizes.map((size, i) => ({
                           label: counted(size),
                           data: usable.filter((point) => point.dictionary === size).map(spot),
                           backgroundColor: depthOf(i, sizes.length),
                           pointRadius: 4.5,
                           order: 1,
                         })),
            lineOf(
                'front', front.map(spot), styleColor('quiet'),
                {showLine: true, silent: true, pointRadius: 0, borderWidth: 1.2, order: 2}),
            {
              label: 'recommended',
              data: usable.filter((point) => point.index === data.recommended).map(spot),
              silent: true,
              pointRadius: 9,
              borderWidth: 2,
              borderColor: styleColor('text'),
              backgroundColor: 'transparent',
              order: 0,
            },
          ],
        },
        options: {
          interaction: {mode: 'nearest', axis: 'xy', intersect: true},
          scales: {
            x: axis('L0: active features per token', {logarithmic: forLogarithm(usable.map((point) => point.l0), 5)}),
            y: axis(title, {logarithmic}),
          },
          plugins: {tooltip: {callbacks: {label: ({raw}) => sweepLabel(raw.point, key, title)}}},
        },
      }));
}

const sweepLabel = (point, key, title) => ` ${counted(point.dictionary)} features, λ ${shown(point.l1)}, seed ${
    point.seed}: L0 ${shown(point.l0)}, ${title} ${shown(point[key])}`;

/** Points that no other beats in L0 and in this error, by L0; those of whole runs are the sweep's to say. */
function frontOf(data, usable, key) {
  const sorted = [...usable].sort((one, other) => one.l0 - other.l0 || one[key] - other[key]);
  const said = data.pareto && data.pareto[key];
  if (said && sorted.some((point) => said.includes(point.index)))
    return sorted.filter((point) => said.includes(point.index));
  let best = Infinity;
  return sorted.filter((point) => {
    const isBetter = point[key] < best;
    best = Math.min(best, point[key]);
    return isBetter;
  });
}

/** A figure against dictionary size, one colour per λ, with the fitted power laws where there are any. */
function scalingCard(data, chosen, key, title) {
  const usable = chosen.filter((point) => typeof point[key] === 'number');
  const weights = weightsOf(data.points);
  const sizes = dictionariesOf(usable);
  if (sizes.length < 2) return null;
  const fits = (data.fits || []).filter((fit) => fit.metric === key && weights.includes(fit.l1));
  const logarithmic = logarithmFor(key, usable.map((point) => point[key]), fits.length ? 1 : 5);
  return chartCard(
      {
        title: `${title} over dictionary size`,
        about: fits.length ? 'lines: fitted power laws; shade: the interval of the exponent' : 'one point per run',
        height: 280,
      },
      () => ({
        type: 'scatter',
        data: {
          datasets: weights.flatMap((weight, i) => {
            const color = depthOf(i, weights.length);
            const spots = usable.filter((point) => point.l1 === weight)
                              .map((point) => ({x: point.dictionary, y: point[key], point}));
            return [
              {label: `λ ${shown(weight)}`, data: spots, backgroundColor: color, pointRadius: 4},
              ...fits.filter((fit) => fit.l1 === weight).flatMap((fit) => fitDatasets(fit, sizes, color)),
            ];
          }),
        },
        options: {
          interaction: {mode: 'nearest', axis: 'xy', intersect: true},
          scales: {
            x: axis('features', {
              type: 'logarithmic',
              min: sizes[0] / 1.2,
              max: sizes[sizes.length - 1] * 1.2,
              format: counted,
              afterBuildTicks: (scale) => {
                scale.ticks = sizes.map((value) => ({value}));
              },
            }),
            y: axis('', {logarithmic, fromZero: !logarithmic, format: (value) => tickAs(key, value)}),
          },
          plugins: {tooltip: {callbacks: {label: ({raw}) => sweepLabel(raw.point, key, title)}}},
        },
      }));
}

/** amplitude · F^exponent, and its exponent's interval as a shade that turns about the middle size. */
function fitDatasets(fit, sizes, color) {
  const steps = 24;
  const [first, last] = [sizes[0], sizes[sizes.length - 1]];
  const middle = Math.sqrt(first * last);
  const places = Array.from({length: steps + 1}, (_, i) => first * (last / first) ** (i / steps));
  const law = (exponent) =>
      places.map((x) => ({x, y: fit.amplitude * middle ** fit.exponent * (x / middle) ** exponent}));
  const plain = {showLine: true, silent: true, pointRadius: 0, pointHoverRadius: 0};
  const [low, high] = bandOf(law(fit.low), law(fit.high), color);
  return [
    {...low, ...plain}, {...high, ...plain}, lineOf('fit', law(fit.exponent), color, {...plain, borderWidth: 1.4})
  ];
}

const signed = (value) => value.toFixed(3).replace('-', '−');

function fitsTable(data) {
  if (!(data.fits || []).length) return [];
  const columns = [
    {title: 'metric', name: true}, ...['λ', 'amplitude', 'exponent', '95 %'].map((title) => ({title, number: true}))
  ];
  return [
    element('h3', 'Power laws: amplitude · F', element('sup', 'exponent'), ', F features'),
    table(
        columns,
        data.fits.map(
            (fit) =>
                [titled(fit.metric), shown(fit.l1), shown(fit.amplitude), signed(fit.exponent),
                 element('span.interval', `${signed(fit.low)} to ${signed(fit.high)}`)]))
  ];
}

function pointsTable(data, chosen) {
  const titles = ['features', 'λ', 'seed', 'L0', 'NMSE', 'KL', 'dead', 'tokens/s', 'time'];
  const columns = [...titles.map((title) => ({title, number: true})), {title: 'front'}, {title: 'run', name: true}];
  return table(
      columns,
      chosen.map((point) => ({
                   chosen: point.index === data.recommended,
                   cells: [
                     counted(point.dictionary), shown(point.l1), String(point.seed), shown(point.l0), shown(point.nmse),
                     shown(point.kl), percent(point.dead_share, 2), shown(point.tokens_per_second),
                     typeof point.seconds === 'number' ? duration(point.seconds) : '–',
                     Object.values(data.pareto || {}).some((front) => front.includes(point.index)) ? '●' : '',
                     point.run || ''
                   ],
                 })));
}
