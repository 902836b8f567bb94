// Histograms, of plain elements: they follow the theme, and any reader can read them.

// Upright bars. `names` and `titles`: one each; only the names in `shown` stand below.
function uprightBars(title, values, names, shown) {
  const most = Math.max(...values, 1);
  const bars = values.map((value, i) => {
    const fill = element('span.fill');
    fill.style.height = `${value ? Math.max(2, (100 * value) / most) : 0}%`;
    const bar = element('span.bar', fill);
    bar.title = `${names[i]}: ${count(value)}`;
    return bar;
  });
  const drawn = element('div.upright', ...bars);
  drawn.setAttribute('role', 'img');
  drawn.setAttribute('aria-label', `${title}: ` + values.map((value, i) => `${names[i]}: ${count(value)}`).join('; '));
  return element('section.chart', element('h2', title), drawn, element('div.axis.quiet', ...shown.map((text) => element('span', text))));
}

// Shares of a whole, each beside its share of all tokens.
function shareBars(title, counts, tokens, nameOfPart) {
  const whole = counts.reduce((sum, value) => sum + value, 0) || 1;
  const all = tokens.reduce((sum, value) => sum + value, 0) || 1;
  const parts = Array.from(counts, (value, i) => ({i, share: value / whole, usual: tokens[i] / all}))
      .filter(({share, usual}) => share > 0 || usual > 0).sort((a, b) => b.share - a.share || a.i - b.i);
  const rows = parts.slice(0, 12).map(({i, share, usual}) => {
    const fill = element('span.fill'), mark = element('span.usual');
    fill.style.width = `${100 * share}%`;
    mark.style.left = `${100 * usual}%`;
    const row = element('div.share', element('span.name', nameOfPart(i)), element('span.track', fill, mark), element('span.number', percent(share)));
    row.title = `${percent(share)} of its activations, ${percent(usual)} of all tokens`;
    return row;
  });
  const rest = parts.length - rows.length;
  return element('section.chart', element('h2', title), ...rows, rest > 0 ? element('p.quiet', `and ${rest} with less`) : null);
}

// The edge below which bin i of the histogram of activations begins.
const histogramEdge = (bin) => 2 ** (Math.floor(bin / 2) - 16) * (bin % 2 ? 1.5 : 1);

function activationBars(histogram) {
  const used = Array.from(histogram.keys()).filter((bin) => histogram[bin] > 0);
  if (!used.length) return null;
  const first = used[0], end = used.at(-1) + 1;
  const names = Array.from({length: end - first}, (_, i) => `${amount(histogramEdge(first + i))} to ${amount(histogramEdge(first + i + 1))}`);
  return uprightBars('Activation', Array.from(histogram.slice(first, end)), names, [amount(histogramEdge(first)), amount(histogramEdge(end))]);
}

function thinkingBars(byThinking) {
  if (!byThinking.some((value) => value > 0)) return null;
  const bins = byThinking.length;
  const names = Array.from(byThinking, (_, i) => `${(100 * i) / bins} % to ${(100 * (i + 1)) / bins} % of the thinking`);
  return uprightBars('Place in the thinking', Array.from(byThinking), names, ['begin', 'end']);
}

// Tokens and their logits, as far as they go beside each other.
function lensTable(title, tokens, marks) {
  const most = Math.max(...tokens.map(({logit}) => Math.abs(logit)), 1e-30);
  const rows = tokens.map(({id, text, logit}) => {
    const fill = element('span.fill');
    fill.style.width = `${(100 * Math.abs(logit)) / most}%`;
    return element('div.share', element('span.name', chip(text, marks(text), `token ${id}`)), element('span.track', fill), element('span.number', amount(logit)));
  });
  return element('section.chart', element('h2', title), ...rows);
}
