"""The page of `predict --explain`: its HTML, style and script. `page` fills them."""

from string import Template

POSITIVE, NEGATIVE, READ = (103, 169, 218), (240, 134, 134), (255, 206, 46)  # red, green, blue of the darkest shades
BLACK, GREY = (26, 26, 26), (89, 89, 89)  # of text; GREY only on white

PAGE = Template("""<!DOCTYPE html>
<html lang="en" class="no-script">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; base-uri 'none'; form-action 'none'; \
style-src 'unsafe-inline'; script-src 'sha256-$script_hash'">
<title>$label, $probability</title>
<style>$style</style>
</head>
<body>
<main>
<h1><span class="$label">$label</span>, $probability</h1>
<div class="scale" role="img" aria-label="probability of positive: $positive">
<div class="track" aria-hidden="true"><i class="marker" style="left: $positive"></i></div>
<div class="ends" aria-hidden="true"><span>negative</span><span>undecided</span><span>positive</span></div>
</div>
$warnings

<h2>What each word changes</h2>
<div class="legend"><span>more negative −$strongest</span><i class="bar"></i>\
<span>+$strongest more positive</span></div>
<p class="small">The logit of this text is $logit; 0 is undecided. The number of a word is this logit minus the logit
of the text without the word.$marks</p>
<div id="text" dir="auto" role="group" aria-label="the text, with the number of each word">$words</div>
<div id="panel" aria-live="polite">
<div id="hint">Point at a word, or tap it, to see its number<span class="scripted"> and what it reads (attention).
Keyboard: Tab, then the arrow keys</span>.</div>
<div id="detail" hidden>
<p><bdi id="word"></bdi> <b id="number" dir="ltr"></b> <span id="meaning"></span></p>
<p id="reads"></p>
<div class="legend" id="shades"><span>yellow: what it reads, 0%</span><i class="bar read"></i><span id="most"></span>\
<span class="wide">stripe: what each word changes</span></div>
</div>
$blocks</div>
$ngrams
<h2>The network</h2>
<dl>
$facts
</dl>
</main>
<script type="application/json" id="data">$data</script>
<script>$script</script>
</body>
</html>
""")

NGRAMS = Template("""<h2>What the n-grams say</h2>
<p class="small">Besides the words, this network reads a value for each n-gram (one to three successive words), learned
from labelled reviews. The sum over the $number n-grams of this text is $total. It is an input of the network, not
its logit. These are the strongest:</p>
<div class="columns">
<table><caption>negative</caption>
$negative
</table>
<table><caption>positive</caption>
$positive
</table>
</div>
""")


def css(colour):
    """Return a colour as CSS."""
    return "rgb({}, {}, {})".format(*colour)


STYLE = Template("""
:root { color-scheme: light; print-color-adjust: exact; scroll-padding: 3rem 0 9rem; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; background: #fff; color: $black; font: 17px/1.5 system-ui, sans-serif; }
main { max-width: 50rem; margin: 0 auto; padding: 1.5rem; }
h1 { margin: 0 0 0.6rem; font-size: 1.9rem; line-height: 1.2; }
h2 { margin: 1.8rem 0 0.4rem; font-size: 1.15rem; }
p { margin: 0.3rem 0; }
.small, .ends, .legend, dl { font-size: 0.88rem; }
.positive { color: #1b5e93; }
.negative { color: #a8202e; }
.warning { padding: 0.3rem 0.7rem; margin: 0.6rem 0; border-left: 4px solid #8a6d00; background: #fff6d6; }
.track { position: relative; height: 0.9rem; border: 1px solid #888; border-radius: 0.5rem;
  background: linear-gradient(90deg, $neg, #fff, $pos); }
.marker { position: absolute; top: -0.35rem; bottom: -0.35rem; width: 6px; margin-left: -3px; border-radius: 3px;
  background: $black; }
.ends { display: flex; justify-content: space-between; margin-top: 0.3rem; color: $grey; }
.scale { max-width: 30rem; }
.legend { display: flex; align-items: center; gap: 0.5rem; line-height: 1.3; }
.bar { flex: none; width: 7rem; height: 0.9rem; border: 1px solid #888;
  background: linear-gradient(90deg, $neg, #fff, $pos); }
.bar.read { background: linear-gradient(90deg, #fff, $read); }
#text { margin: 0.8rem 0; font-size: 1.3rem; line-height: 2; overflow-wrap: anywhere; }
.w { position: relative; padding: 0.15em 0; border-radius: 0.2em; background: var(--effect); cursor: default; }
.reading .w { background: var(--read, #fff); box-shadow: 0 0.28em var(--effect); }
.cut { font-size: 0.75em; }
.neg { text-decoration: underline dotted 2px; text-underline-offset: 0.2em; }
.unk { font-style: italic; outline: 1px dashed #777; outline-offset: -1px; }
.w:focus, .w.on { outline: 2px solid $black; outline-offset: 0; z-index: 1; }
.w.on::after, .no-script .w:hover::after, .no-script .w:focus::after { content: attr(data-v); position: absolute;
  left: 50%; bottom: 100%; transform: translateX(-50%); padding: 0 0.4em; border-radius: 0.3em; background: $black;
  color: #fff; font: 0.9rem/1.5 system-ui, sans-serif; white-space: nowrap; direction: ltr; unicode-bidi: isolate; }
.no-script .scripted { display: none; }
#panel { position: sticky; bottom: 0; min-height: 6.6rem; padding: 0.6rem 0.9rem; border: 1px solid #999;
  border-radius: 0.5rem; background: #fafafa; font-size: 0.94rem; z-index: 2; }
.no-script #panel { min-height: 0; }
#word { font-weight: bold; overflow-wrap: anywhere; }
fieldset { margin: 0.3rem 0 0; padding: 0; border: 0; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 0.5rem 2rem; }
table { width: 100%; table-layout: fixed; align-self: start; border-spacing: 0 2px; }
caption { text-align: left; font-weight: bold; }
th { padding: 0; text-align: left; font-weight: normal; overflow-wrap: anywhere; }
td { width: 4.5rem; padding: 0 0.4rem; text-align: right; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.15rem 1rem; margin: 0; }
dt { color: $grey; }
dd { margin: 0; overflow-wrap: anywhere; }
#shades { white-space: nowrap; }
@media (max-width: 40rem) { .wide { display: none; } main { padding: 1.2rem; } }
@media print { #panel { display: none; } }
""").substitute(black=css(BLACK), grey=css(GREY), pos=css(POSITIVE), neg=css(NEGATIVE), read=css(READ))

SCRIPT = """
'use strict';
const find = id => document.getElementById(id);
const data = JSON.parse(find('data').textContent);
const text = find('text'), words = [...text.querySelectorAll('.w')];
const numbers = new Map(words.map((word, i) => [word, i]));
const rows = new Map(data.read.map((word, row) => [word, row]));  // place in the text -> row of the weights
const blocks = data.weights.map(code => Uint8Array.from(atob(code), letter => letter.charCodeAt(0)));
const percent = share => (100 * share).toFixed(share < 0.1 ? 1 : 0) + '%';
const shorten = name => name.length > 40 ? [...name].slice(0, 30).join('') + '…' : name;
let block = 0, shown = null;

function show(number) {  // of the word that is pointed at, or null
  if (shown !== null) words[shown].classList.remove('on');
  shown = number;
  find('hint').hidden = number !== null;
  find('detail').hidden = number === null;
  const isRead = number !== null && blocks.length > 0 && rows.has(number);
  text.classList.toggle('reading', isRead);
  if (number === null) return;
  words[number].classList.add('on');
  describe(words[number], number);
  find('shades').hidden = !isRead;
  if (isRead) shade(rows.get(number));
  else find('reads').textContent = blocks.length ? 'The attention does not read this word.' : '';
}

function describe(word, number) {
  find('word').textContent = shorten(word.textContent);
  find('number').textContent = word.dataset.v;
  const parts = ['Without it: ' + data.without[number] + '.'];
  if (word.classList.contains('neg')) parts.push('Negated.');
  if (word.classList.contains('unk')) parts.push('Not in the vocabulary.');
  find('meaning').textContent = parts.join(' ');
}

function shade(row) {
  const T = data.read.length, shares = blocks[block].subarray(row * T, row * T + T);
  const largest = data.largest[block][row];
  shares.forEach((share, i) => words[data.read[i]].style.setProperty('--read', `rgba(${data.colour}, ${share / 255})`));
  const strongest = [...shares.keys()].sort((a, b) => shares[b] - shares[a]).slice(0, 5);
  const list = strongest.flatMap((i, rank) => {
    const name = document.createElement('bdi');
    name.textContent = shorten(words[data.read[i]].textContent);
    return [rank ? ', “' : '“', name, `”\u00a0${percent(shares[i] / 255 * largest)}`];
  });
  const equal = `. Equal shares of ${T} tokens would be ${percent(1 / T)} each.`;
  find('reads').replaceChildren('It reads most: ', ...list, equal);
  find('most').textContent = percent(largest);
}

function focused() {
  const number = numbers.get(document.activeElement);
  return number === undefined ? null : number;
}

function move(event) {
  const forward = getComputedStyle(text).direction === 'rtl' ? 'ArrowLeft' : 'ArrowRight';
  const back = forward === 'ArrowLeft' ? 'ArrowRight' : 'ArrowLeft';
  const last = words.length - 1;
  const targets = {[forward]: Math.min(shown + 1, last), [back]: Math.max(shown - 1, 0), Home: 0, End: last};
  if (event.key === 'Escape') document.activeElement.blur();
  if (!(event.key in targets) || focused() === null) return;
  event.preventDefault();
  words[targets[event.key]].focus();
}

document.documentElement.classList.remove('no-script');
words.forEach((word, i) => { word.tabIndex = i ? -1 : 0; });  // Tab reaches the text once; arrow keys move in it
text.addEventListener('pointerover', event => {
  const word = event.target.closest('.w');
  if (word) show(numbers.get(word));
});
text.addEventListener('pointerleave', () => show(focused()));
text.addEventListener('click', event => event.target.closest('.w')?.focus());
text.addEventListener('focusin', event => {
  words.forEach(word => { word.tabIndex = word === event.target ? 0 : -1; });
  show(numbers.get(event.target));
});
text.addEventListener('focusout', () => show(null));
text.addEventListener('keydown', move);
document.querySelectorAll('fieldset').forEach(chooser => {
  chooser.hidden = false;
  chooser.addEventListener('change', event => { block = Number(event.target.value); });
});
"""
