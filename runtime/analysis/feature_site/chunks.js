// Chunks: scripts beside the page that hand it columns of numbers, since a page in a folder may load nothing else.

const data = JSON.parse(document.getElementById('data').textContent);
const kKeptChunks = 200;
const arrived = new Map(), kept = new Map();
window.tadapt = (name, content) => arrived.set(name, content);

function load(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script');
    const fail = () => {
      script.remove();
      kept.delete(name);
      reject(new Error(`data/${name}.js cannot be read`));
    };
    script.src = `data/${name}.js`;
    script.onerror = fail;
    script.onload = () => {
      if (!arrived.has(name)) return fail();
      script.remove();
      resolve(arrived.get(name));
      arrived.delete(name);
    };
    document.head.append(script);
  });
}

// What `decode` makes of a chunk; the last ones asked for stay in memory.
function chunk(name, decode = (content) => content) {
  const found = kept.get(name) ?? load(name).then(decode);
  kept.delete(name);
  kept.set(name, found);
  if (kept.size > kKeptChunks) kept.delete(kept.keys().next().value);
  return found;
}

const kTypes = {u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array, f64: Float64Array};

function numbers(column) {
  if (typeof column !== 'string') return column;
  const mark = column.indexOf(':'), text = atob(column.slice(mark + 1));
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; ++i) bytes[i] = text.charCodeAt(i);
  return new kTypes[column.slice(0, mark)](bytes.buffer);
}

const padded = (number, width) => String(number).padStart(width, '0');
