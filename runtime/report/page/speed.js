// Throughput, and what the time of a run went to.

const PART_COLORS = {
  compute: '#3c9466',
  data_stall: '#d9822b',
  exchange_stall: '#3b78b8',
  checkpoint: '#7a62b5'
};
const PART_TITLES = {
  compute: 'compute',
  data_stall: 'waiting for data',
  exchange_stall: 'waiting for other ranks',
  checkpoint: 'checkpoints'
};
const partTitle = (part) => PART_TITLES[part] || titled(part).toLowerCase();

function speedSection(page, runs) {
  const timed = runs.map((run, index) => ({run, index})).filter(({run}) => run.timing.jobs.length > 0);
  if (!timed.length) return;
  section(
      page, 'Speed',
      'As the run wrote it with each checkpoint. What a job did behind its last checkpoint is not counted.');
  page.append(element('div.charts', throughputCard(timed, runs.length > 1), partsCard(timed)), jobsTable(timed));
}

function throughputCard(timed, many) {
  return chartCard(
      {title: 'Throughput', about: 'tokens per second since the checkpoint before'},
      () => ({
        type: 'line',
        data: {
          datasets: timed.filter(({index}) => !view.hidden.has(index))
                        .map(
                            ({run, index}) => lineOf(
                                many ? run.name : 'tokens/s',
                                run.timing.speed.map((point) => ({x: point.step, y: point.tokens_per_second})),
                                runColor(index), {pointRadius: 3})),
        },
        options: {
          scales: {x: axis('step'), y: axis('tokens/s', {fromZero: true})},
          plugins: {tooltip: tooltipLabel((value) => `${shown(value)} tokens/s`)},
        },
      }));
}

/** Seconds of each part over all jobs of a run. */
function partSeconds(run) {
  const parts = {};
  run.timing.jobs.forEach((job) => Object.entries(job.parts).forEach(([part, seconds]) => {
    parts[part] = (parts[part] || 0) + seconds;
  }));
  return parts;
}

function partsCard(timed) {
  const seconds = timed.map(({run}) => partSeconds(run));
  const parts = unique(['compute', ...seconds.flatMap(Object.keys)]);
  const sum = (of) => Object.values(of).reduce((one, other) => one + other, 0);
  const color = (part, place) => PART_COLORS[part] || depthColor(place / parts.length);
  return chartCard(
      {
        title: 'Where the time went',
        about: 'share of the time',
        height: barsHeight(timed.length),
        legend: legend(parts.map((part, place) => ({label: partTitle(part), color: color(part, place)}))),
      },
      () => ({
        type: 'bar',
        data: {
          labels: timed.map(({run}) => shortened(run.name)),
          datasets: parts.map((part, place) => ({
                                label: partTitle(part),
                                data: seconds.map((of) => (of[part] || 0) / sum(of)),
                                backgroundColor: color(part, place),
                                maxBarThickness: 26,
                              })),
        },
        options: {
          indexAxis: 'y',
          interaction: {mode: 'index', axis: 'y', intersect: false},
          scales: {
            x: {...axis('', {fromZero: true, max: 1, format: (value) => percent(value, 0)}), stacked: true},
            y: {stacked: true, grid: {display: false}},
          },
          plugins: {
            tooltip: {
              callbacks: {
                label: (item) => ` ${item.dataset.label}: ${percent(item.parsed.x, 2)}, ${
                    duration(seconds[item.dataIndex][parts[item.datasetIndex]] || 0)}`,
              }
            }
          },
        },
      }));
}

function jobsTable(timed) {
  const parts = unique(timed.flatMap(({run}) => run.timing.jobs.flatMap((job) => Object.keys(job.parts))));
  const columns = [
    {title: 'run', name: true},
    ...['job', 'ranks', 'up to step', 'time', 'tokens/s', ...parts.map(partTitle)].map(
        (title) => ({title, number: true}))
  ];
  return table(
      columns,
      timed.flatMap(
          ({run}) => run.timing.jobs.map(
              (job, place) =>
                  [run.name,
                   String(place + 1),
                   shown(job.ranks),
                   counted(job.step),
                   duration(job.seconds),
                   shown(job.tokens_per_second),
                   ...parts.map((part) => percent((job.parts[part] || 0) / job.seconds, 2)),
  ])));
}
