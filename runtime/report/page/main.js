// The page: one section after the other; one that fails says so and leaves the others alone.

const report = JSON.parse(document.getElementById('data').textContent);
const page = document.getElementById('page');

function build(name, make) {
  try {
    make();
  } catch (error) {
    page.append(element('ul.findings', element('li.problem', `${name} cannot be shown: ${error.message}`)));
    console.error(error);
  }
}

const {runs, sweeps, options} = report;
view.runs = runs.length;
document.title = `${[...sweeps, ...runs].map((subject) => subject.name).join(', ')} – tadapt`;
if (sweeps.length) page.append(element('h1', sweeps.map((sweep) => sweep.name).join(', ')));
sweeps.forEach((sweep) => build(`Sweep ${sweep.name}`, () => sweepSection(page, sweep, sweeps.length === 1)));
if (runs.length) {
  build('The summary', () => summarySection(page, runs, sweeps, options));
  build('Training', () => trainingSection(page, runs));
  build('Layers', () => layersSection(page, runs));
  build('Faithfulness', () => faithfulnessSection(page, runs));
  build('Benchmark', () => benchmarkSection(page, runs));
  build('Speed', () => speedSection(page, runs));
  build('Configuration', () => configurationSection(page, runs, options));
  build('Provenance', () => provenanceSection(page, runs, report.made_by));
}
build('Charts', drawAll);
document.documentElement.dataset.charts = String(charts.length);
document.documentElement.dataset.ready = 'true';
