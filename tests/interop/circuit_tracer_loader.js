// circuit_tracer_loader.js ASSETS FOLDER NUMBER…: circuit-tracer's own front-end code, from its package, loads features of
// these numbers from packed files below FOLDER, as it loads them from the hub. Prints a JSON array of them.
'use strict'
const fs = require('fs')
const path = require('path')
const vm = require('vm')
const zlib = require('zlib')

const [assets, folder, ...numbers] = process.argv.slice(2)

// Answers anything, with itself: what the page draws is of no interest here.
const anything = new Proxy(function () {}, { get: (_, key) => (key === 'then' ? undefined : anything), apply: () => anything })

async function fetchFile(url, { headers = {}, method = 'GET' } = {}) {
  const file = path.join(folder, url.replace(/^https:\/\/huggingface\.co\/some\/adapters\/resolve\/main\//, ''))
  if (!fs.existsSync(file)) return { ok: false, status: 404 }
  if (method === 'HEAD') return { ok: true, status: 200 }
  let bytes = fs.readFileSync(file)
  if (headers.Range) {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers.Range)
    bytes = bytes.subarray(Number(first), Number(last) + 1)  // a range holds its last byte too
  }
  return { ok: true, status: 200, arrayBuffer: async () => Uint8Array.from(bytes).buffer, json: async () => JSON.parse(bytes) }
}

const page = { d3: anything, fetch: fetchFile, URL, URLSearchParams, console, Uint8Array, TextEncoder, TextDecoder,
  pako: { inflate: (bytes) => zlib.gunzipSync(Buffer.from(bytes)).toString('utf8') } }
page.window = page
page.location = { hostname: 'test', search: '', href: 'http://test/' }
vm.createContext(page)
for (const script of ['util.js', 'feature_examples/init-feature-examples.js'])
  vm.runInContext(fs.readFileSync(path.join(assets, script), 'utf8'), page, { filename: script })

async function main() {
  const { loadFeature } = page.initFeatureExamples({ containerSel: anything, showLogits: false, showExamples: false })
  const features = []
  for (const number of numbers) features.push(await loadFeature('some/adapters', Number(number)))
  process.stdout.write(JSON.stringify(features, (key, value) => (key === 'colorScale' ? undefined : value)))
}
main().catch((error) => { console.error(error); process.exit(1) })
