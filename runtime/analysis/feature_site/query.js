// Queries: which features, in which order; as text they are the part of the address behind the question mark.

const kSorts = {
  active: (place) => index.active[place],
  largest: (place) => index.largest[place],
  layer: (place) => -place,
  region: (place) => index.regionPercent[place],
  domain: (place) => index.domainPercent[place],
};
const kAny = {q: '', layer: '', region: '', domain: '', kind: '', alive: '', sort: 'active', up: ''};

function parseQuery(text) {
  const query = {...kAny};
  for (const [key, value] of new URLSearchParams(text)) if (key in kAny) query[key] = value;
  if (!(query.sort in kSorts)) query.sort = kAny.sort;
  return query;
}

function queryText(query) {
  const asked = new URLSearchParams();
  for (const key of Object.keys(kAny)) if (query[key] !== kAny[key]) asked.set(key, query[key]);
  const text = asked.toString();
  return text ? `?${text}` : '';
}

const orders = new Map();

// All places, the largest first; equal ones layer by layer.
function orderBy(sort) {
  if (!orders.has(sort)) {
    const keys = Float64Array.from({length: total}, (_, place) => kSorts[sort](place));
    orders.set(sort, Uint32Array.from({length: total}, (_, place) => place).sort((a, b) => keys[b] - keys[a] || a - b));
  }
  return orders.get(sort);
}

// "3/17" and "layer 3 feature 17" mean a feature.
function addressIn(text) {
  const found = text.match(/^\s*(?:l|layer)?\s*(\d+)\s*(?:[/:.,·]|\s+f(?:eature)?)\s*(\d+)\s*$/i);
  return found ? placeOf(Number(found[1]), Number(found[2])) : -1;
}

let plainVocabulary = null;

// A word stands for the tokens that begin with it, in quotes for those that are it.
function wordsOf(text) {
  plainVocabulary ??= index.vocabulary.map(plain);
  return [...text.matchAll(/"([^"]*)"?|(\S+)/g)].map(([, quoted, word]) => {
    const wanted = plain(quoted ?? word);
    const fits = quoted === undefined ? (token) => token.startsWith(wanted) : (token) => token === wanted;
    return {wanted, tokens: Uint8Array.from(plainVocabulary, (token) => (fits(token) ? 1 : 0))};
  }).filter((word) => word.wanted);
}

function speaksOf(place, word) {
  const first = place * index.promotedEach;
  for (let i = first; i < first + index.promotedEach; ++i) if (word.tokens[index.promoted[i]]) return true;
  return index.description !== null && index.description[place].toLowerCase().includes(word.wanted);
}

// Places of the features that a query means, in its order.
function select(query) {
  const address = addressIn(query.q);
  if (address >= 0) return Uint32Array.of(address);
  const tests = [];
  const equals = (text, column) => {
    if (text !== '') tests.push((place) => column[place] === Number(text));
  };
  equals(query.layer, index.layer);
  equals(query.region, index.region);
  equals(query.domain, index.domain);
  if (query.kind !== '') {
    // "reasoning" means "reasoning/hesitation" too.
    const meant = data.classes.map((name) => name === query.kind || name.startsWith(`${query.kind}/`) || (query.kind === 'none' && !name));
    tests.push((place) => meant[index.kind[place]]);
  }
  if (query.region || query.domain) tests.push((place) => index.active[place] > 0);
  if (query.alive) tests.push((place) => index.active[place] > 0 === (query.alive === 'live'));
  for (const word of wordsOf(query.q)) tests.push((place) => speaksOf(place, word));
  const order = orderBy(query.sort);
  const found = tests.length ? order.filter((place) => tests.every((test) => test(place))) : order;
  return query.up ? found.slice().reverse() : found;
}

// Whether a token is what the query looks for.
function marker(query) {
  const words = [...query.q.matchAll(/"([^"]*)"?|(\S+)/g)].map(([, quoted, word]) => [plain(quoted ?? word), quoted !== undefined]);
  return (token) => words.some(([word, exactly]) => word && (exactly ? plain(token) === word : plain(token).startsWith(word)));
}
