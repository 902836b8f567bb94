// The index: of every feature what a list shows and a search asks, in typed arrays, layer after layer.

const total = data.layers.reduce((sum, layer) => sum + layer.features, 0);
const index = {
  loaded: 0,  // layers
  layer: new Uint16Array(total),
  id: new Uint32Array(total),
  active: new Float64Array(total),
  largest: new Float32Array(total),
  region: new Uint8Array(total),
  regionPercent: new Uint8Array(total),
  domain: new Uint32Array(total),
  domainPercent: new Uint8Array(total),
  kind: new Uint32Array(total),
  description: data.labels ? new Array(total) : null,
  promotedEach: 0,
  promoted: null,
  vocabulary: null,
};
const isWhole = () => index.loaded === data.layers.length;

let begin = 0;
for (const layer of data.layers) {
  layer.first = begin;
  begin += layer.features;
}

function takeLayer(layer, columns) {
  const set = (to, column) => to.set(numbers(column), layer.first);
  index.layer.fill(layer.layer, layer.first, layer.first + layer.features);
  set(index.id, columns.id);
  set(index.active, columns.active);
  set(index.largest, columns.largest);
  set(index.region, columns.region);
  set(index.regionPercent, columns.region_percent);
  set(index.domain, columns.domain);
  set(index.domainPercent, columns.domain_percent);
  const promoted = numbers(columns.promoted);
  if (!index.promoted) {
    index.promotedEach = layer.features ? promoted.length / layer.features : 0;
    index.promoted = new Uint32Array(total * index.promotedEach);
  }
  index.promoted.set(promoted, layer.first * index.promotedEach);
  if (index.description) {
    set(index.kind, columns.class);
    columns.description.forEach((text, i) => (index.description[layer.first + i] = text));
  }
  ++index.loaded;
}

// One layer after the other, so that the page answers in between.
async function loadIndex(onProgress) {
  index.vocabulary = await chunk('vocabulary');
  for (const layer of data.layers) {
    takeLayer(layer, await load(`index/${padded(layer.layer, 3)}`));
    onProgress();
  }
}

// Nothing for a padding row of the model's vocabulary.
const tokenOf = (id) => index.vocabulary[id] ?? '';

function rowAt(place) {
  const first = place * index.promotedEach;
  return {
    layer: index.layer[place], id: index.id[place], active: index.active[place], largest: index.largest[place],
    region: index.region[place], regionPercent: index.regionPercent[place],
    domain: index.domain[place], domainPercent: index.domainPercent[place],
    kind: index.kind[place], description: index.description?.[place] ?? '',
    promoted: Array.from(index.promoted.subarray(first, first + index.promotedEach), tokenOf),
  };
}

// The rows that the page itself holds.
const firstRows = data.first.map(
    ([layer, id, active, largest, region, regionPercent, domain, domainPercent, kind, description, promoted]) =>
        ({layer, id, active, largest, region, regionPercent, domain, domainPercent, kind, description, promoted}));

// Where a feature stands in the index; −1: nowhere.
function placeOf(layerNumber, id) {
  const layer = data.layers.find((one) => one.layer === layerNumber);
  if (!layer) return -1;
  let low = layer.first, high = layer.first + layer.features;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (index.id[middle] < id) low = middle + 1;
    else high = middle;
  }
  return low < layer.first + layer.features && index.id[low] === id ? low : -1;
}
