// Examples: the tokens around an activation, those on which the feature is active in colour.

function decodeSequences(chunk) {
  return {number: numbers(chunk.number), line: numbers(chunk.line), domain: numbers(chunk.domain), begin: numbers(chunk.begin)};
}

// Ids [begin, end) of all conversations, one after another.
async function idsOf(begin, end) {
  const size = data.tokens_a_chunk, ids = [];
  for (let part = Math.floor(begin / size); part * size < end; ++part) {
    const all = await chunk(`tokens/${padded(part, 5)}`, numbers);
    ids.push(...all.slice(Math.max(0, begin - part * size), Math.max(0, end - part * size)));
  }
  return ids;
}

async function contextOf(example) {
  const sequences = await chunk('sequences', decodeSequences);
  const [begin, end] = [sequences.begin[example.sequence], sequences.begin[example.sequence + 1]];
  const first = Math.max(0, example.position - data.records.tokens_before);
  const last = Math.min(end - begin, example.position + data.records.tokens_after + 1);
  return {
    number: sequences.number[example.sequence],
    line: sequences.line[example.sequence],
    domain: sequences.domain[example.sequence],
    length: end - begin,
    first,
    cutAfter: last < end - begin,
    ids: await idsOf(begin + first, begin + last),
  };
}

// Marks of line breaks, less loud than the text.
function withBreaks(text) {
  return text.split(/(⏎)/).map((piece) => (piece === '⏎' ? element('span.break', piece) : piece));
}

function contextText(example, context, largest) {
  const heat = new Map(example.near.map(({offset, activation}) => [example.position + offset, activation]));
  const made = element('p.context');
  let quiet = context.first > 0 ? '… ' : '';
  context.ids.forEach((id, i) => {
    const position = context.first + i, activation = heat.get(position) ?? 0, text = oneLine(index.vocabulary[id] ?? '') || `token ${id}`;
    if (!activation && position !== example.position) {
      quiet += text;
      return;
    }
    const mark = element(position === example.position ? 'mark.own' : 'mark', ...withBreaks(text));
    mark.style.setProperty('--heat', `${Math.round(100 * Math.min(1, activation / (largest || 1)))}%`);
    mark.title = `activation ${amount(activation)} at token ${position}`;
    made.append(...withBreaks(quiet), mark);
    quiet = '';
  });
  made.append(...withBreaks(quiet + (context.cutAfter ? ' …' : '')));
  return made;
}

async function exampleCard(example, largest) {
  const context = await contextOf(example);
  const place = `${regionName(example.region)} · token ${count(example.position)} of ${count(context.length)}`;
  const from = data.domains.length > 1 || data.domains[0] ? ` · ${domainName(context.domain)}` : '';
  return element('article.example',
      element('header', element('b', amount(example.activation)), element('span.quiet', ` ${place}${from} · conversation ${context.number}, line ${context.line}`)),
      contextText(example, context, largest));
}

async function exampleSection(title, examples, largest) {
  if (!examples.length) return null;
  return element('section', element('h2', title), ...await Promise.all(examples.map((example) => exampleCard(example, largest))));
}
