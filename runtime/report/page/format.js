// Numbers and names as people read them.

/** Three significant digits or so, without exponents where they can be spared. */
function shown(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size >= 1e6) return `${trimmed(value / 1e6, digits)} M`;
  if (size >= 1e4) return `${trimmed(value / 1e3, digits)} k`;
  if (size < 1e-4) return value.toExponential(digits - 1).replace('-', '−');
  return trimmed(value, digits);
}

function trimmed(value, digits) {
  return String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(Math.abs(value) + 1))))));
}

function percent(value, digits = 1) {
  if (value === null || value === undefined) return '–';
  if (value === 0) return '0 %';
  const text = (100 * value).toFixed(digits);
  return `${Number(text) === 0 && value > 0 ? `<${10 ** -digits}` : text} %`;
}

/** 918, 12,000. */
function counted(value) {
  return value === null || value === undefined ? '–' : value.toLocaleString('en-US');
}

/** "1 job", "12,000 steps". */
const numbered = (count, what) => `${counted(count)} ${what}${count === 1 ? '' : 's'}`;

function duration(seconds) {
  if (seconds < 120) return `${trimmed(seconds, 3)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** "residual_nmse" as "Residual NMSE". */
function titled(metric) {
  const words = metric.split(/[_\s]+/).map((word) => (/^(kl|nmse|l0)$/.test(word) ? word.toUpperCase() : word));
  const text = words.join(' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** What a metric counts, for those that are known; others are drawn all the same. */
const MEANINGS = {
  l0: 'active features per token',
  dead_share: 'share of the features that are dead',
  nmse: 'squared error / mean ‖Δ‖²',
  delta_nmse: 'squared error / Σ‖Δ‖²',
  residual_nmse: 'squared error of the residual states, relative',
  gradient_norm: 'before clipping',
  learning_rate: 'of AdamW',
  sparsity: 'before its weight',
  sparsity_weight: 'λ of this step',
  kl_adapter: 'nats per token, adapter model against the target',
  kl_a2r: 'nats per token, adapter layers first',
  kl_r2a: 'nats per token, target layers first',
  layer_passes: 'passes of one layer per step',
};

const isShare = (metric) => metric.endsWith('_share') || metric.endsWith('disagreement');
const shownAs = (metric, value) => (isShare(metric) ? percent(value, 2) : shown(value));
/** As short as an axis needs it. */
const tickAs = (metric, value) => (isShare(metric) ? `${shown(100 * value)} %` : shown(value));

/** "layer-003" as "layer 3"; other names stay. */
function traineeTitle(trainee) {
  const layer = /^layer-0*(\d+)(.*)$/.exec(trainee);
  return layer ? `layer ${layer[1]}${layer[2]}` : trainee;
}

/** A name cut in its middle where it is long. */
function shortened(name, longest = 24) {
  return name.length <= longest ? name : `${name.slice(0, longest / 2 - 1)}…${name.slice(-longest / 2)}`;
}

function interval(estimate) {
  if (!estimate || estimate.value === null) return '–';
  return percent(estimate.value);
}

function intervalRange(estimate) {
  if (!estimate || estimate.low === null || estimate.low === undefined) return '';
  return `${(100 * estimate.low).toFixed(1)} to ${(100 * estimate.high).toFixed(1)}`.replaceAll('-', '−');
}
