// Texts as people can read them. Text only ever becomes a text node: nothing that the data says is read as HTML.

// Characters that show nothing, or turn the text around them, are named by their number.
const kUnseen =
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;
const readable = (text) => text.replace(kUnseen, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
const oneLine = (text) => readable(text).replaceAll('\n', '⏎').replaceAll('\t', '⇥');
// A token that stands alone, whose white space matters.
const tokenText = (text) => oneLine(text).replaceAll(' ', '·') || '∅';
// What a search compares.
const plain = (text) => text.trim().toLowerCase();

const count = (value) => value.toLocaleString('en-US');
const amount = (value) => (value === 0 ? '0' : Number(value.toPrecision(3)).toString().replace('-', '−'));

function percent(share) {
  const value = 100 * share;
  if (value === 0) return '0 %';
  if (value < 0.001) return '< 0.001 %';
  return `${value >= 9.95 ? value.toFixed(0) : value.toPrecision(2)} %`;
}

const noun = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
const regionName = (region) => (data.regions[region] ?? `region ${region}`).replaceAll('_', ' ');
const domainName = (domain) => (domain in data.domains ? oneLine(data.domains[domain]) || 'no domain' : `domain ${domain}`);
const className = (number) => oneLine(data.classes[number] ?? '');

function element(what, ...children) {
  const [name, ...classes] = what.split('.');
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(' ');
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function link(where, ...children) {
  const made = element('a', ...children);
  made.href = where;
  return made;
}
