// One way to draw: a card with a Chart.js chart in the page's colours.

const RUN_COLORS = ['#2f6f9f', '#d9822b', '#3c9466', '#b4517e', '#7a62b5', '#a58d1f', '#4aa3b8', '#8a5a44'];
const RUN_COLORS_DARK = ['#6fb0dd', '#f0a65c', '#6cc596', '#e088b2', '#a996e0', '#d6bf57', '#74cbdd', '#c0917b'];
const DEPTH_COLORS = [[59, 111, 182], [42, 157, 143], [138, 177, 80], [233, 160, 59], [209, 73, 91]];

const dark = window.matchMedia('(prefers-color-scheme: dark)');
const styleColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const faded = (color, share) => `${color}${Math.round(255 * share).toString(16).padStart(2, '0')}`;

/** A colour for a place from 0 to 1: the first layer to the last. */
function depthColor(place) {
  const at = Math.min(Math.max(place, 0), 1) * (DEPTH_COLORS.length - 1);
  const low = Math.min(Math.floor(at), DEPTH_COLORS.length - 2);
  const mixed = DEPTH_COLORS[low].map((part, i) => Math.round(part + (DEPTH_COLORS[low + 1][i] - part) * (at - low)));
  return `#${mixed.map((part) => part.toString(16).padStart(2, '0')).join('')}`;
}

/** A run's colour: one of its own while there are enough of these, else by its place among them all. */
function runColor(index) {
  if (view.runs > RUN_COLORS.length) return depthColor(index / (view.runs - 1));
  return (dark.matches ? RUN_COLORS_DARK : RUN_COLORS)[index];
}

/** Every chart of the page: {card, canvas, settings, chart}. */
let charts = [];

/**
 * A card with a chart. `settings()` gives {type, data, options} afresh, so that colours and hidden runs follow the
 * page. options: {title, about, height, wide, legend}
 */
function chartCard(options, settings) {
  const canvas = element('canvas');
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', options.title);
  const holder = element('div.canvas', canvas);
  holder.style.height = `${options.height || 230}px`;
  const card = element(
      options.wide ? 'div.card.wide' : 'div.card', element('h4', options.title),
      options.about ? element('p.about', options.about) : null, options.legend || null, holder);
  card.dataset.chart = options.title;
  charts.push({card, canvas, settings});
  return card;
}

/** Draws or redraws a chart; its card says whether that worked. */
function draw(entry) {
  if (entry.chart) entry.chart.destroy();
  const {type, data, options} = entry.settings();
  const rendered = {
    id: 'rendered',
    afterRender: () => {
      entry.card.dataset.rendered = 'true';
    },
  };
  entry.chart = new Chart(entry.canvas, {type, data, options: withDefaults(options), plugins: [rendered]});
}

function drawAll() {
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  Chart.defaults.font.size = 12;
  Chart.defaults.color = styleColor('quiet');
  Chart.defaults.borderColor = styleColor('grid');
  charts.filter((entry) => !entry.card.isConnected && entry.chart).forEach((entry) => entry.chart.destroy());
  charts = charts.filter((entry) => entry.card.isConnected);
  charts.forEach(draw);
}
dark.addEventListener('change', () => window.location.reload());

function withDefaults(options) {
  const {plugins, ...rest} = options;
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    normalized: true,
    interaction: {mode: 'nearest', axis: 'x', intersect: false},
    ...rest,
    plugins: {
      legend: {display: false},
      ...plugins,
      tooltip: {
        backgroundColor: styleColor('text'),
        titleColor: styleColor('card'),
        bodyColor: styleColor('card'),
        footerColor: styleColor('card'),
        padding: 9,
        boxPadding: 4,
        filter: (item) => !item.dataset.silent,
        ...(plugins && plugins.tooltip),
      },
    },
  };
}

/** An axis with a title. `logarithmic`: the numbers it shows, when they call for such an axis; else nothing. */
function axis(title, {logarithmic = null, fromZero = false, format = shown, ...rest} = {}) {
  return {
    type: logarithmic ? 'logarithmic' : 'linear',
    title: {display: Boolean(title), text: title},
    grid: {drawTicks: false, drawBorder: false},
    beginAtZero: fromZero,
    ...(logarithmic ? logarithmicRange(logarithmic) : {}),
    ...rest,
    ticks: {padding: 6, maxTicksLimit: 7, callback: (value) => format(value), ...rest.ticks},
  };
}

/** From 1, 2 or 5 · 10ⁿ to another, with ticks there; over many powers of ten only at these. */
function logarithmicRange(numbers) {
  const positive = numbers.filter((value) => value > 0);
  const [low, high] = [Math.min(...positive), Math.max(...positive)];
  const powers =
      Array.from({length: Math.ceil(Math.log10(high / low)) + 3}, (_, i) => Math.floor(Math.log10(low)) - 1 + i);
  const rounds = powers.flatMap((power) => [1, 2, 5].map((lead) => Number(`${lead}e${power}`)));
  const min = Math.max(...rounds.filter((value) => value < low * 0.98));
  const max = Math.min(...rounds.filter((value) => value > high * 1.02));
  const lead = Math.log10(max / min) > 2.5 ? ['1'] : ['1', '2', '5'];
  const ticks = rounds.filter((value) => value >= min && value <= max && lead.includes(value.toExponential()[0]));
  return {
    min,
    max,
    afterBuildTicks: (scale) => {
      scale.ticks = ticks.map((value) => ({value}));
    },
  };
}

/**
 * The numbers, when they are best shown on a logarithmic axis: none negative, hardly any 0, over more than a factor of
 * `factor`; else null.
 */
function forLogarithm(values, factor = 10) {
  const numbers = values.filter((value) => value !== null && value !== undefined);
  const positive = numbers.filter((value) => value > 0);
  const suits = positive.length > 1 && positive.length >= 0.9 * numbers.length && numbers.every((value) => value >= 0);
  return suits && Math.max(...positive) / Math.min(...positive) > factor ? positive : null;
}

/** As forLogarithm, of a metric; some are read by their differences from 0. */
const logarithmFor = (metric, values, factor) =>
    (['learning_rate', 'dead_share'].includes(metric) ? null : forLogarithm(values, factor));

/** Bars on a logarithmic axis begin somewhere below the smallest of them. */
const withRoom = (numbers) => numbers && [...numbers, Math.min(...numbers) / 3];

/** Points of a curve; 0 has no place on a logarithmic axis. */
const points = (xs, ys, logarithmic) =>
    xs.map((x, i) => ({x, y: ys[i] === undefined || (logarithmic && ys[i] <= 0) ? null : ys[i]}));

/** A line through points, without marks where there are many. */
function lineOf(label, data, color, more = {}) {
  return {
    label,
    data,
    borderColor: color,
    backgroundColor: color,
    borderWidth: 1.8,
    pointRadius: data.length > 12 ? 0 : 2.5,
    pointHoverRadius: 4,
    tension: 0,
    spanGaps: true,
    clip: 8,
    ...more,
  };
}

/** Bars, one for each label. */
function barsOf(label, data, color) {
  return {label, data, backgroundColor: color, maxBarThickness: 34, borderRadius: 2};
}

/** Two datasets that shade what lies between two curves. */
function bandOf(low, high, color) {
  const edge = {borderWidth: 0, pointRadius: 0, pointHoverRadius: 0, silent: true, backgroundColor: faded(color, 0.16)};
  return [{...edge, label: 'low', data: low, fill: false}, {...edge, label: 'high', data: high, fill: '-1'}];
}

const tooltipLabel = (format) => ({
  callbacks: {label: (item) => ` ${item.dataset.label}: ${format(item.parsed.y)}`},
});
