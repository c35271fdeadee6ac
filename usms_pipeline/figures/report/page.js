"use strict";
// Draws the page of the counts that it holds; see periods.py for what they are and embedded.py for
// how they are written. Texts get in by textContent and attributes alone, so no name can act.
(async () => {
const page = JSON.parse(document.getElementById("figures").textContent);
const tables = await unpacked();
const $ = (id) => document.getElementById(id);
const DAY = 24, END = DAY * page.days, FIRST = Date.parse(page.lastDay) - (page.days - 1) * 864e5;
const LAST_HOUR = tables.counts.hour.reduce((a, b) => Math.max(a, b), 0);
const FIRST_HOUR = tables.counts.hour.reduce((a, b) => Math.min(a, b), END);
// only: column → place of its value; brushed: the hours that were drawn over in the chart
const LANGUAGE = navigator.language.startsWith("zh") ? "zh" : "en";
const state = { period: page.period, by: 0, only: new Map(), brushed: null, lang: "en" };

async function unpacked() {
  const raw = Uint8Array.from(atob(document.getElementById("packed").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const made = {};
  let at = 0;
  for (const [name, { rows, columns }] of Object.entries(page.tables)) {
    made[name] = { rows };
    for (const column of columns) { made[name][column] = new Uint32Array(buffer, at, rows); at += 4 * rows; }
  }
  return made;
}

// ---- elements -------------------------------------------------------------------------------
const SVG = new Set("svg g path line rect circle text title polyline".split(" "));
function el(tag, given = {}, ...children) {
  const made = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((one) => one !== null && one !== ""));
  return made;
}
const svg = (width, height, label, ...parts) =>
  el("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label }, ...parts);
const label = (x, y, text, given = {}) => el("text", { x, y, ...given }, text);
const line = (x1, y1, x2, y2, kind) => el("line", { x1, y1, x2, y2, class: kind });
const path = (points, kind) => el("path", { d: points.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""), class: kind });

// ---- words ----------------------------------------------------------------------------------
// A text in the reader's language: its English is its key in chinese.toml.
const t = (text, given = {}) => ((state.lang === "zh" && page.zh[text]) || text).replace(/\{(\w+)\}/g, (_, name) => given[name]);
const count = (n) => Math.round(n).toLocaleString("en-US");
const percent = (rate) => {
  if (rate === null || Number.isNaN(rate)) return "–";
  if (rate === 0 || rate === 1) return `${100 * rate}%`;
  if (rate > 0.9995 && rate < 1) return ">99.9%";
  if (rate < 0.0005 && rate > 0) return "<0.1%";
  return (100 * rate).toFixed(1) + "%";
};
const target = () => `${Number((100 * page.target).toFixed(2))}%`;
const points = (change) => {
  const written = Math.abs(100 * change).toFixed(1);
  return written === "0.0" ? "0.0" : (change < 0 ? "−" : "+") + written;
};
const messages = (n) => t(n === 1 ? "{n} message" : "{n} messages", { n: count(n) });
const nameOf = (column, place) => {
  const { values, unknown } = page.columns[column];
  return place === 0 || place === unknown ? t(values[place]) : values[place];
};
const date = (hour) => new Date(FIRST + hour * 36e5);
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
const day = (hour) => {
  const d = date(hour).getUTCDate(), m = date(hour).getUTCMonth();
  return state.lang === "zh" ? `${m + 1}月${d}日` : `${d} ${MONTHS[m]}`;
};
const clock = (hour) => `${day(hour)} ${String(date(hour).getUTCHours()).padStart(2, "0")}:00`;
const periodName = () => {
  const [from, to] = span(false), hours = to - from;
  return hours % DAY || hours === DAY ? t(hours === 1 ? "hour" : "{n} hours", { n: hours }) : t("{n} days", { n: hours / DAY });
};
const theOneBefore = () => t("the {period} before", { period: periodName() });
const usually = () => (state.period === 7 ? t("weeks") : t("spans of {period}", { period: periodName() }));

// ---- counting -------------------------------------------------------------------------------
function span(isBefore) {
  const end = state.brushed ? state.brushed[1] : state.period === 1 ? LAST_HOUR + 1 : END;
  const length = state.brushed ? end - state.brushed[0] : state.period * DAY;
  return isBefore ? [end - 2 * length, end - length] : [end - length, end];
}
const nothing = () => ({ messages: 0, delivered: 0, lost: 0, waiting: 0, fast: 0 });
function starts(table, hour) {  // rows ascend by hour
  let low = 0, high = table.rows;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (table.hour[middle] < hour) low = middle + 1; else high = middle;
  }
  return low;
}
let matched = new Map();  // of one drawing, in which the same spans are counted several times
function matching(table, [from, to]) {
  const key = `${table === tables.counts} ${from} ${to}`;
  if (!matched.has(key)) {
    const only = [...state.only].map(([column, place]) => [table["v" + column], place]), rows = [];
    for (let n = starts(table, from), end = starts(table, to); n < end; n++) {
      if (only.every(([column, place]) => column[n] === place)) rows.push(n);
    }
    matched.set(key, rows);
  }
  return matched.get(key);
}
function counted(hours, keyOf) {
  const made = new Map(), { messages, delivered, lost, waiting, fast } = tables.counts;
  for (const n of matching(tables.counts, hours)) {
    const key = keyOf(n);
    let sums = made.get(key);
    if (!sums) made.set(key, (sums = nothing()));
    sums.messages += messages[n];
    sums.delivered += delivered[n];
    sums.lost += lost[n];
    sums.waiting += waiting[n];
    sums.fast += fast[n];
  }
  return made;
}
const total = (hours) => counted(hours, () => 0).get(0) ?? nothing();
const known = (c) => c.delivered + c.lost;
const rate = (c) => (known(c) ? c.delivered / known(c) : null);
const worst = (c) => (c.messages ? c.delivered / c.messages : null);
const best = (c) => (c.messages ? (c.messages - c.lost) / c.messages : null);

// What SQL has made for the selection: of everything or of a single value. A country beside one of
// its operators says nothing more: operators are named with their country.
function single(extra = null) {
  if (state.brushed) return null;
  const only = new Map(state.only);
  if (extra) only.set(...extra);
  const operator = page.columns.findIndex((one) => one.name === "operator");
  const place = only.get(operator);
  if (place > 0 && place !== page.columns[operator].unknown) only.delete(page.columns.findIndex((one) => one.name === "country"));
  if (only.size > 1) return null;
  const [[column, value]] = only.size ? only : [[-1, 0]];
  return `${column}:${value}`;
}
function expected(isBefore, c, extra = null) {
  const cohort = single(extra), made = cohort && page.guesses[`${state.period}:${isBefore ? 1 : 0}:${cohort}`];
  if (!made) return { rate: rate(c), low: null, high: null, chanceLow: null, chanceHigh: null, isMade: false };
  const [value, low, high, chanceLow, chanceHigh] = made;
  return { rate: value, low, high, chanceLow, chanceHigh, isMade: c.waiting === 0 || value !== null };
}

// ---- the answer -----------------------------------------------------------------------------
function said(now, before, guess, former) {
  const [from, to] = span(false), isHours = to - from <= DAY || from % DAY || to % DAY;
  const when = isHours ? t("from {from} to {to}", { from: clock(from), to: clock(to) }) : `${day(from)} – ${day(to - 1)}`;
  const whom = state.only.size ? t(" for {names}", { names: chosen().join(", ") }) : "";
  const begun = t("Of {messages} sent {when}{whom}", { messages: messages(now.messages), when, whom });
  if (now.messages < page.floor) return t("{begun}: too few to judge.", { begun });
  if (guess.rate === null) return t("{begun}, no final status is in yet.", { begun });
  const given = { begun, rate: percent(guess.rate), than: theOneBefore() };
  given.told = now.waiting > 0 && guess.low !== null
    ? t("{begun}, we expect {rate} to be delivered in the end", given)
    : t("{begun}, {rate} of those with a final status were delivered", given);
  if (!isComparable(before) || former.rate === null) return t("{told}. {more}", { ...given, more: noBefore(before) });
  const change = guess.rate - former.rate, written = points(change);
  const [first] = groups(before).rows, isWhere = first?.extra >= 5 && first.guess.chanceHigh !== null && first.former.rate > first.guess.chanceHigh;
  given.n = written.slice(1);
  const verdict = judged();
  given.more = (written === "0.0" && verdict.is === "usual" ? "" : verdict.text) + (isWhere && !state.only.has(state.by)
    ? t(" Most extra failures: {name} (+{n}).", { name: nameOf(state.by, first.place), n: count(first.extra) }) : "");
  if (written === "0.0") return t("{told}, the same as in {than}. {more}", given);
  return change < 0 ? t("{told}, {n} points less than in {than}. {more}", given) : t("{told}, {n} points more than in {than}. {more}", given);
}
// A day late is none: nobody sends at every hour.
const isWhole = () => FIRST_HOUR < span(true)[0] + Math.min(DAY, (span(true)[1] - span(true)[0]) / 4);
const isComparable = (before) => before.messages >= page.floor && isWhole();
const noBefore = (before) => (before.messages >= page.floor
  ? t("The data begin on {day}: too late to compare with {than}.", { day: day(FIRST_HOUR), than: theOneBefore() })
  : before.messages
  ? t("Only {messages} in {than}: too few to compare.", { messages: messages(before.messages), than: theOneBefore() })
  : t("There is nothing from {than} to compare with.", { than: theOneBefore() }));
function judged() {
  if (state.period === 1 && !state.brushed) return { text: t("We do not compare single days; the alerts watch each hour."), is: "" };
  const cohort = single();
  if (cohort === null) return { text: t("For this selection we did not compute whether that is unusual."), is: "" };
  const [, low, high] = page.changes[`${state.period}:0:${cohort}`] ?? [];
  if (low == null) return { text: t("There are too few days to tell whether that is unusual."), is: "" };
  if (low <= 0 && high >= 0) return { text: t("It is normal for {spans} to differ this much.", { spans: usually() }), is: "usual" };
  return { text: t("That is more than {spans} usually differ by.", { spans: usually() }), is: high < 0 ? "worse" : "better" };
}
const chosen = () => [...state.only].map(([column, place]) => nameOf(column, place));

function tile(title, value, remark, change, verdict, spark, aim = "") {
  return el("div", { class: "tile" },
    el("dt", {}, title),
    el("dd", {}, el("strong", {}, value), spark ?? "", el("span", { class: `change ${verdict}` }, change), aim, el("span", {}, remark)));
}
function changed(now, former, before, verdict = "") {
  if (!isComparable(before) || now === null || former == null) return t("nothing before to compare with");
  const written = points(now - former), than = theOneBefore();
  if (written === "0.0") return t("≈ as in {than}", { than });
  const unusual = t("; more than usual"), told = { usual: t("; {spans} often differ this much", { spans: usually() }), worse: unusual, better: unusual }[verdict] ?? "";
  return `${written.startsWith("−") ? "▼" : "▲"} ${t("{n} points on {than}", { n: written.slice(1), than })}${told}`;
}
function tiles(now, before, guess, former, buckets) {
  const verdict = judged().is, share = (c, name) => (c.messages ? c[name] / c.messages : null), young = now.waiting > 0;
  const given = { so: percent(rate(now)), low: percent(guess.low), high: percent(guess.high), worst: percent(worst(now)), best: percent(best(now)) };
  let remark = !young && guess.chanceLow !== null
    ? t("of those with a final status; chance alone: {low}–{high}", { low: percent(guess.chanceLow), high: percent(guess.chanceHigh) })
    : t("so far {so}; at worst {worst}, at best {best} of all", given);
  if (young && guess.low !== null) remark = t("expected, {low}–{high} (19 times in 20); so far {so}", given);
  else if (young && single() === null) remark += t("; no forecast for this selection");
  const isMissed = guess.rate < page.target, aim = !page.target || guess.rate === null || now.messages < page.floor ? ""
    : el("span", { class: `change ${isMissed ? "worse" : "better"}` }, isMissed ? t("target {rate}: missed", { rate: target() }) : t("target {rate}: met", { rate: target() }));
  const row = (title, name, value, remarks, told = changed(share(now, name), share(before, name), before)) =>
    tile(title, value, remarks, told, "", sparkline(buckets, (c) => share(c, name), title));
  const isAll = !state.only.size && !state.brushed, costs = isAll ? page.costs[state.period] : [];
  return [
    tile(t("Delivery rate"), percent(guess.rate), remark, changed(guess.rate, former.rate, before, verdict), verdict,
      sparkline(buckets, rate, t("Delivery rate"), page.target), aim),
    row(t("Within {n} s", { n: page.fastSeconds }), "fast", percent(share(now, "fast")), t("of all messages; people waiting for a code give up after that")),
    row(t("Still waiting"), "waiting", count(now.waiting), t("{share} of all have no receipt yet", { share: percent(share(now, "waiting")) }), ""),  // those before are settled by now
    row(t("Not delivered"), "lost", count(now.lost), t("{share} of all: failed, rejected or expired", { share: percent(share(now, "lost")) })
      + (costs.length ? t("; they cost {costs}", { costs: costs.join(", ") }) : "")),
  ];
}
function sparkline(buckets, valueOf, title, target = null) {
  const width = 120, height = 28;
  const seen = buckets.map((b, n) => [n, b.c.messages >= page.floor ? valueOf(b.c) : null]).filter(([, v]) => v !== null);
  if (seen.length < 2) return null;
  const values = [...seen.map(([, v]) => v), ...(target ? [target] : [])], low = Math.min(...values), high = Math.max(...values);
  const at = ([n, v]) => [2 + (n / (buckets.length - 1)) * (width - 4), height - 3 - ((v - low) / (high - low || 1)) * (height - 6)];
  return svg(width, height, t("{title} over time, from {low} to {high}", { title, low: percent(low), high: percent(high) }),
    target ? path([at([0, target]), at([buckets.length - 1, target])], "line target") : "", path(seen.map(at), "line thin"));
}

// ---- over time ------------------------------------------------------------------------------
function bucketed(hours) {
  const [from, to] = hours;
  const made = (step) => {
    const found = counted(hours, (n) => Math.floor((tables.counts.hour[n] - from) / step));
    return Array.from({ length: Math.ceil((to - from) / step) }, (_, n) => ({ at: from + n * step, step, c: found.get(n) ?? nothing() }));
  };
  const days = (to - from) / DAY, isDays = days > 30 || from < END - DAY * page.hourlyDays;
  const steps = isDays ? [24] : days <= 1 ? [1, 3, 6] : days <= 7 ? [1, 3, 6, 24] : [6, 24];
  let buckets;
  for (const step of steps) {  // the shortest of which half have enough messages to be drawn firmly
    buckets = made(step);
    const sizes = buckets.map((b) => b.c.messages).filter((n) => n).sort((a, b) => a - b);
    if (sizes[Math.floor(sizes.length / 2)] >= 5 * page.floor) break;
  }
  return buckets;
}
function overTime(buckets, former, before, width) {
  const height = 230, below = 46, left = 44, right = 8, [from] = [buckets[0].at];
  const step = buckets[0].step, to = from + buckets.length * step;
  const x = (hour) => left + ((hour - from) / (to - from)) * (width - left - right);
  const firm = (b) => known(b.c) >= page.floor;
  const cohort = single();
  const guesses = [];
  for (let d = Math.floor(from / DAY); d < Math.ceil(to / DAY); d++) {
    const made = cohort && page.daily[`day:${d}:${cohort}`];
    const c = counted([Math.max(from, d * DAY), Math.min(to, (d + 1) * DAY)], () => 0).get(0);
    if (made && made[0] !== null && c && c.messages >= page.floor && c.waiting > 0.02 * c.messages) guesses.push([d * DAY, made]);
  }
  const seen = [...buckets.filter(firm).map((b) => rate(b.c)), ...guesses.map(([, made]) => made[0])];
  if (isComparable(before) && former.rate !== null) seen.push(former.rate);
  if (!seen.length) return el("p", {}, t("Nothing to draw: at no time are there {n} messages with a final status.", { n: page.floor }));
  if (page.target) seen.push(page.target);
  const low = Math.max(0, Math.floor((Math.min(0.95, ...seen) - 0.01) * 20) / 20);
  const y = (r) => 28 + ((1 - Math.max(low, r)) / (1 - low)) * (height - 38);
  const parts = [];
  for (const alert of page.alerts) {  // shaded, where the alert is of what is shown
    const isOurs = alert.column < 0 || !state.only.has(alert.column) || state.only.get(alert.column) === alert.place;
    if (alert.kind === "mix" || !isOurs || alert.to <= from || alert.from >= to) continue;
    const begin = x(Math.max(from, alert.from));
    parts.push(el("rect", { x: begin, y: 24, width: Math.max(3, x(Math.min(to, alert.to)) - begin), height: height - 30, class: "alerted" },
      el("title", {}, `${whoIs(alert)}, ${whenIs(alert)}`)));
  }
  for (const tick of ticks(low)) {
    parts.push(line(left, y(tick), width - right, y(tick), "grid"), label(left - 8, y(tick) + 4, `${Math.round(100 * tick)}%`, { "text-anchor": "end" }));
  }
  const levels = [];  // named above the plot: on it their names would hide points
  if (isComparable(before) && former.rate !== null) levels.push(["before", former.rate, t("before: {rate}", { rate: percent(former.rate) })]);
  if (page.target) levels.push(["target", page.target, t("target: {rate}", { rate: target() })]);
  levels.forEach(([kind, value, text], n) => {
    const at = left + 150 * n;
    parts.push(line(left, y(value), width - right, y(value), kind), line(at, 9, at + 24, 9, kind), label(at + 30, 13, text));
  });
  const isYoung = (b) => b.c.waiting > 0.02 * b.c.messages;
  const drawn = (keep, kind) => {  // lines over gaps would say what nobody counted
    let run = [];
    for (const b of [...buckets, null]) {
      if (b && firm(b) && keep(b)) run.push([x(b.at + step / 2), y(rate(b.c))]);
      else { if (run.length > 1) parts.push(path(run, kind)); run = []; }
    }
  };
  drawn(() => true, "line young");
  drawn((b) => !isYoung(b), "line");
  for (const [at, [value, lowest, highest]] of guesses) {
    const begin = x(Math.max(from, at)), end = x(Math.min(to, at + DAY));
    parts.push(el("rect", { x: begin, width: end - begin, y: y(highest), height: Math.max(2, y(lowest) - y(highest)), class: "guess" },
      el("title", {}, t("{day}: {rate} expected, {low}–{high}", { day: day(at), rate: percent(value), low: percent(lowest), high: percent(highest) }))));
  }
  const most = Math.max(...buckets.map((b) => b.c.messages), 1);
  for (const b of buckets) {
    if (!b.c.messages) continue;
    const name = step === 24 ? day(b.at) : clock(b.at);
    const tip = el("title", {}, t("{name}: {rate} delivered of {messages} with a final status", { name, rate: percent(rate(b.c)), messages: messages(known(b.c)) }) +
      (b.c.waiting ? t("; {n} waiting", { n: count(b.c.waiting) }) : "") + (firm(b) ? "" : t("; too few to judge")));
    if (rate(b.c) !== null) {
      parts.push(el("circle", { cx: x(b.at + step / 2), cy: y(rate(b.c)), r: buckets.length > 60 ? 2.2 : 3.5, class: firm(b) ? (isYoung(b) ? "dot young" : "dot") : "dot faint" }, tip));
    }
    const tall = (b.c.messages / most) * (below - 8), wide = x(b.at + step) - x(b.at);
    parts.push(el("rect", { x: x(b.at) + wide * 0.1, width: wide * 0.8, y: height + below - tall, height: tall, class: "volume" },
      el("title", {}, `${name}: ${messages(b.c.messages)}`)));
  }
  parts.push(label(left - 8, height + 14, count(most), { "text-anchor": "end" }));
  const every = Math.max(1, Math.ceil((to - from) / DAY / (width / 80)));
  for (let hour = Math.ceil(from / DAY) * DAY; hour < to; hour += every * DAY) {
    if (x(hour) < width - (state.lang === "zh" ? 54 : 40)) parts.push(label(x(hour), height + below + 16, day(hour), {}));
  }
  if (to - from <= 24) for (let hour = from; hour < to; hour += 6) {
    if (hour % 24 && Math.abs(x(hour) - x(Math.ceil(from / DAY) * DAY)) > 50) parts.push(label(x(hour), height + below + 16, clock(hour).slice(-5), {}));
  }
  const drawing = svg(width, height + below + 24, t("Delivery rate over time, from {low} to {high}", { low: percent(Math.min(...seen)), high: percent(Math.max(...seen)) }), ...parts);
  brushable(drawing, width, height + below, (at) => from + Math.round(Math.min(1, Math.max(0, (at - left) / (width - left - right))) * buckets.length) * step);
  return drawing;
}
function brushable(drawing, width, height, hourAt) {  // hours that are drawn over become the period
  const shade = el("rect", { y: 0, height, class: "brushing", width: 0 });
  let begun = null;
  const at = (event) => {
    const { left, width: shown } = drawing.getBoundingClientRect();
    return ((event.clientX - left) / shown) * width;
  };
  drawing.append(shade);
  drawing.addEventListener("pointerdown", (event) => { if (event.button === 0 && event.pointerType !== "touch") begun = at(event); });
  drawing.addEventListener("pointermove", (event) => {
    if (begun === null) return;
    shade.setAttribute("x", Math.min(begun, at(event)));
    shade.setAttribute("width", Math.abs(at(event) - begun));
  });
  drawing.addEventListener("pointerleave", () => { begun = null; shade.setAttribute("width", 0); });
  drawing.addEventListener("pointerup", (event) => {
    const [from, to] = [hourAt(begun), hourAt(at(event))].sort((a, b) => a - b);
    if (begun === null || to <= from) { begun = null; return; }
    state.brushed = [from, to];
    store();
  });
}
const ticks = (low) => {
  const step = low >= 0.8 ? 0.05 : low >= 0.5 ? 0.1 : 0.2;
  return Array.from({ length: 1 + Math.round((1 - Math.ceil(low / step) * step) / step) }, (_, n) => 1 - n * step);
};

// ---- what changed ---------------------------------------------------------------------------
function groups(before) {
  const at = tables.counts["v" + state.by];
  const lately = counted(span(false), (n) => at[n]), formerly = counted(span(true), (n) => at[n]);
  const rows = [...lately].map(([place, c]) => {
    const b = formerly.get(place) ?? nothing(), guess = expected(false, c, [state.by, place]), former = expected(true, b, [state.by, place]);
    const hasBoth = known(c) >= page.floor && known(b) >= page.floor;
    return { place, c, b, guess, former, hasBoth, extra: hasBoth ? (former.rate - guess.rate) * (known(c) + c.waiting) : null };
  });
  const enough = rows.filter((row) => known(row.c) >= page.floor && row.guess.rate !== null);
  if (isComparable(before)) enough.sort((a, b) => (b.extra ?? 0) - (a.extra ?? 0) || b.c.messages - a.c.messages);
  else enough.sort((a, b) => b.c.lost - a.c.lost);
  return { rows: enough.slice(0, 12), hidden: Math.max(0, enough.length - 12), small: rows.length - enough.length };
}
function whatChanged(before) {
  const { rows, hidden, small } = groups(before), compares = isComparable(before);
  const column = page.columns[state.by];
  $("by").replaceChildren(...page.columns.map((one, n) => el("button", {
    type: "button", "aria-pressed": String(n === state.by), onclick: () => { state.by = n; store(); },
  }, t(one.label))));
  $("changed-title").textContent = compares ? t("What changed") : t("Where messages are not delivered");
  $("changed-note").textContent = (compares
    ? t("Sorted by extra failures: how many more than at the earlier rate. Grey: before. ")
    : t("{more} Sorted by how many were not delivered. ", { more: noBefore(before) })) +
    (single([state.by, 1]) === null ? t("Line: the rate if none, to the rate if all, of those without a final status were delivered.") : t("Line: the range that chance alone explains (19 times in 20)."));
  if (!rows.length) return $("changed").replaceChildren(el("p", {}, t("No {column} has at least {n} messages with a final status.", { column: t(column.label), n: page.floor })));
  const shown = rows.map((row) => ({ ...row, low: row.guess.chanceLow ?? worst(row.c), high: row.guess.chanceHigh ?? best(row.c) }));
  const seen = shown.flatMap((row) => [row.low, row.guess.rate, row.hasBoth ? row.former.rate : null]).filter((v) => v !== null);
  const low = Math.max(0, Math.floor((Math.min(0.95, ...seen) - 0.005) * 20) / 20);
  const narrow = innerWidth < 640, width = narrow ? 110 : 160, x = (r) => 6 + ((Math.max(low, r) - low) / (1 - low)) * (width - 12);
  const body = shown.map((row) => {
    const name = nameOf(state.by, row.place), dots = [line(x(0), 11, x(1), 11, "grid"), line(x(row.low), 11, x(row.high), 11, "range")];
    if (row.hasBoth) dots.push(el("circle", { cx: x(row.former.rate), cy: 11, r: 4.5, class: "dot before" }));
    dots.push(el("circle", { cx: x(row.guess.rate), cy: 11, r: 5, class: "dot" }));
    const told = t("{rate} now", { rate: percent(row.guess.rate) }) + (row.hasBoth ? t(", {rate} before", { rate: percent(row.former.rate) }) : "");
    const pick = () => { only(state.by, row.place); store(); };
    return el("tr", {},
      el("th", { scope: "row" }, el("button", { type: "button", class: "drill", onclick: pick, title: t("Only {name}", { name }) }, el("bdi", {}, name))),
      el("td", { class: "dots" }, svg(width, 22, told, ...dots)),
      el("td", { class: "figure" }, percent(row.guess.rate)),
      el("td", { class: "figure wide-only" }, row.hasBoth ? percent(row.former.rate) : "–"),
      el("td", { class: "figure wide-only" }, count(row.c.messages)),
      el("td", { class: "figure" }, compares ? (row.extra === null ? "–" : (row.extra > 0.5 ? "+" : row.extra < -0.5 ? "−" : "") + count(Math.abs(row.extra))) : count(row.c.lost)));
  });
  const scale = el("th", { scope: "col", class: "dots" }, svg(width, 14, t("Scale from {low} to 100%", { low: percent(low) }), label(6, 11, `${Math.round(100 * low)}%`), label(width - 6, 11, "100%", { "text-anchor": "end" })));
  const head = el("tr", {}, el("th", { scope: "col" }, t(column.label)), scale, el("th", { scope: "col", class: "figure" }, t("Rate")),
    el("th", { scope: "col", class: "figure wide-only" }, t("Before")), el("th", { scope: "col", class: "figure wide-only" }, t("Messages")),
    el("th", { scope: "col", class: "figure" }, compares ? t("Extra failures") : t("Not delivered")));
  const left = [hidden ? t("{n} more with less change", { n: count(hidden) }) : "", small ? t("{n} with under {floor} messages", { n: count(small), floor: page.floor }) : ""].filter((one) => one);
  $("changed").replaceChildren(
    el("table", {}, el("caption", { class: "unseen" }, t("Delivery by {column}", { column: t(column.label) })), el("thead", {}, head), el("tbody", {}, ...body)),
    left.length ? el("p", { class: "aside" }, t("Not shown: {groups}.", { groups: left.join(", ") })) : "");
}

// ---- reasons, hours -------------------------------------------------------------------------
function reasonsOf(hours) {
  const table = tables.failures, found = page.families.map(() => ({ n: 0, by: new Map() }));
  let all = 0;
  for (const n of matching(table, hours)) {
    const [, family] = page.reasons[table.reason[n]], one = found[family];
    one.n += table.messages[n];
    all += table.messages[n];
    one.by.set(table.reason[n], (one.by.get(table.reason[n]) ?? 0) + table.messages[n]);
  }
  return { all, found };
}
function reasons(now, before) {
  const lately = reasonsOf(span(false)), formerly = reasonsOf(span(true)), compares = isComparable(before);
  const ranked = lately.found.map((one, n) => [n, one]).filter(([, one]) => one.n).sort((a, b) => b[1].n - a[1].n);
  if (!ranked.length) return $("reasons").replaceChildren(el("p", {}, t("No message has failed, been rejected or expired.")));
  $("reasons").replaceChildren(el("ul", { class: "families" }, ...ranked.map(([n, one]) => {
    const family = page.families[n], was = formerly.found[n].n / before.messages;
    const most = [...one.by].sort((a, b) => b[1] - a[1]).slice(0, 3).map(([reason, times]) => `${t(page.reasons[reason][0])} (${count(times)})`);
    return el("li", {},
      el("h3", {}, t(family.name), el("span", { class: "figure" }, ` ${count(one.n)} · ${percent(one.n / lately.all)}`)),
      el("div", { class: "share" }, el("div", { style: `width:${(100 * one.n) / ranked[0][1].n}%` })),
      el("p", {}, t(family.meaning) + (state.lang === "zh" ? "" : " ") + t(family.remedy)),
      el("p", { class: "aside" }, t("{whose}. ", { whose: t(family.whose) }),
        compares ? t("{share} of messages, before {was}. ", { share: percent(one.n / now.messages), was: percent(was) }) : "", t("Mostly: "), el("bdi", {}, most.join(", ")), t(".")));
  })));
}
function heatmap(width) {
  const begin = END - DAY * Math.min(page.hourlyDays, Math.max(7, state.period)), to = END;
  const found = counted([begin, to], (n) => { const h = tables.counts.hour[n]; return ((date(h).getUTCDay() + 6) % 7) * 24 + (h % 24); });
  const firm = [...found.values()].filter((c) => known(c) >= page.floor).map((c) => 1 - rate(c));
  if (firm.length < 12) return el("p", { class: "aside" }, t("Too few hours have at least {n} messages.", { n: page.floor }));
  const low = Math.min(...firm), high = Math.max(...firm), left = 34, cell = (width - left) / 24, tall = Math.min(26, Math.max(16, cell)), parts = [];
  t("Mon Tue Wed Thu Fri Sat Sun").split(" ").forEach((name, d) => {
    parts.push(label(0, 14 + d * tall + tall * 0.65, name));
    for (let h = 0; h < 24; h++) {
      const c = found.get(d * 24 + h), isFirm = c && known(c) >= page.floor, lost = c && 1 - rate(c);
      parts.push(el("rect", { x: left + h * cell, y: 14 + d * tall, width: cell - 1.5, height: tall - 1.5, class: isFirm ? "heat" : "few",
        "fill-opacity": isFirm ? (0.12 + 0.88 * ((lost - low) / (high - low || 1))).toFixed(2) : null },
        el("title", {}, `${name} ${h}:00: ` + (c ? t("{rate} delivered of {messages}", { rate: percent(rate(c)), messages: messages(c.messages) }) : t("no messages")) + (isFirm ? "" : t("; too few to judge")))));
    }
  });
  for (let h = 0; h < 24; h += 6) parts.push(label(left + h * cell, 10, `${h}:00`));
  const given = { low: percent(low), high: percent(high), n: page.floor, days: (END - begin) / DAY, zone: page.zone };
  $("heat-note").textContent = t("Darker: more not delivered, from {low} to {high} of those with a final status. Pale grey: fewer than {n} messages. The latest {days} days, {zone}.", given);
  return svg(width, 14 + 7 * tall, t("Not delivered by weekday and hour, from {low} to {high}", given), ...parts);
}
function matrix() {  // operators by one of the other columns: where the two together make the difference
  const across = page.columns.findIndex((one) => one.name === "operator"), down = state.by !== across && state.by > 0 ? state.by : across + 1;
  const cells = page.columns[down] && counted(span(false), (n) => `${tables.counts["v" + across][n]} ${tables.counts["v" + down][n]}`);
  const most = (column, limit) => [...counted(span(false), (n) => tables.counts["v" + column][n])].sort((a, b) => b[1].messages - a[1].messages).slice(0, limit).map(([place]) => place);
  const columns = cells ? most(down, innerWidth < 640 ? 3 : 5) : [], firm = [...(cells?.values() ?? [])].filter((c) => known(c) >= page.floor).map((c) => 1 - rate(c));
  $("matrix").hidden = columns.length < 2 || firm.length < 4;
  if ($("matrix").hidden) return;
  const high = Math.max(...firm), pick = (place, value) => () => { state.only.set(across, place); state.only.set(down, value); store(); };
  $("matrix-title").textContent = t("By operator and {column}", { column: t(page.columns[down].label) });
  $("matrix-table").replaceChildren(el("table", {}, el("caption", { class: "unseen" }, $("matrix-title").textContent),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("operator")), ...columns.map((value) => el("th", { scope: "col", class: "figure" }, el("bdi", {}, ...nameOf(down, value).split(/(?<=_)/).flatMap((part) => [part, el("wbr")])))))),
    el("tbody", {}, ...most(across, 6).map((place) => el("tr", {}, el("th", { scope: "row" }, el("bdi", {}, nameOf(across, place))), ...columns.map((value) => {
      const c = cells.get(`${place} ${value}`), isFirm = c && known(c) >= page.floor;
      if (!isFirm) return el("td", { class: "figure", title: c ? messages(c.messages) : t("no messages") }, c ? "·" : "");
      const heat = Math.round(45 * (1 - rate(c)) / (high || 1));
      return el("td", { class: "figure", style: `background:color-mix(in srgb, var(--lost) ${heat}%, transparent)`, title: messages(c.messages) },
        el("button", { type: "button", class: "drill", onclick: pick(place, value) }, percent(rate(c))));
    }))))));
}

// ---- alerts ---------------------------------------------------------------------------------
const whoIs = (alert) => {
  const name = alert.by === "everything" ? t(alert.name) : `${t(alert.by)} ${alert.name}`;
  return name[0].toUpperCase() + name.slice(1);
};
const whenIs = (alert) => t("{from} to {to}", { from: clock(alert.from), to: day(alert.from) === day(alert.to) ? clock(alert.to).slice(-5) : clock(alert.to) });
function alertCards() {
  if (!page.alerts.length) return $("alerts").replaceChildren(el("p", { class: "fine" }, t("✓ Nothing worse than usual in the last 72 hours.")));
  const cards = page.alerts.slice(0, 6).map((alert) => {
    const isMix = alert.kind === "mix", rows = [];
    const given = { share: percent(alert.share), usual: percent(alert.usual), affected: count(alert.affected), messages: count(alert.messages), n: count(Math.max(0, alert.extra)) };
    const much = isMix ? t("{share} of all messages, usually {usual}.", given)
      : alert.kind === "failing" ? t("{share} failed ({affected} of {messages}), usually {usual}.", given)
      : t("{share} had no final status in time ({affected} of {messages}), usually {usual}.", given);
    const extra = alert.kind === "failing" ? t("About {n} extra failures.", given) : t("About {n} extra late ones.", given);
    const mostly = isMix || alert.kind !== "failing" ? "" : mainReason(alert);
    const pick = () => { state.only = new Map(); state.by = alert.column; only(alert.column, alert.place); state.period = state.period > 7 ? 7 : state.period; state.brushed = null; store(); };
    return el("li", { class: isMix ? "" : "trouble" },
      el("div", {}, el("h3", {}, el("bdi", {}, whoIs(alert))), el("p", { class: "aside" }, t("sent {when}", { when: whenIs(alert) }))),
      el("p", {}, much, " ", isMix ? "" : el("strong", {}, extra)), mostly ? el("p", {}, mostly) : "",
      alert.place ? el("button", { type: "button", onclick: pick }, t("Show only these messages")) : "");
  });
  $("alerts").replaceChildren(el("ul", { class: "cards" }, ...cards),
    page.alerts.length > 6 ? el("p", { class: "aside" }, t("and {n} more: usms alerts lists them.", { n: page.alerts.length - 6 })) : "");
}
function mainReason(alert) {
  const table = tables.failures, by = new Map(), column = table["v" + alert.column];
  for (let n = 0; n < table.rows; n++) {
    if (table.hour[n] < Math.floor(alert.from) || table.hour[n] >= alert.to || (column && column[n] !== alert.place)) continue;
    by.set(table.reason[n], (by.get(table.reason[n]) ?? 0) + table.messages[n]);
  }
  const [most] = [...by].sort((a, b) => b[1] - a[1]);
  if (!most) return "";
  const [text, family] = page.reasons[most[0]];
  return t("Mostly {reason}. {remedy}", { reason: t(text), remedy: t(page.families[family].remedy) });
}

// ---- controls, address, CSV -----------------------------------------------------------------
function controls() {
  $("periods").replaceChildren(...page.periods.map((days) => el("button", {
    type: "button", "aria-pressed": String(days === state.period && !state.brushed), onclick: () => { state.period = days; state.brushed = null; store(); },
  }, days === 1 ? t("24 h") : t("{n} days", { n: days }))));
  $("filters").replaceChildren(...page.columns.map((column, n) => {
    const order = column.values.map((name, place) => [place, nameOf(n, place)]).slice(1).sort((a, b) => a[1].localeCompare(b[1]));
    if (tables.counts["v" + n].includes(0)) order.push([0, t(column.values[0])]);
    return el("label", {}, el("span", {}, t(column.label)), el("select", {
      "data-column": column.name,
      onchange: (event) => { event.target.value === "" ? state.only.delete(n) : only(n, Number(event.target.value)); store(); },
    }, el("option", { value: "" }, t("all")), ...order.map(([place, name]) => el("option", { value: place, selected: state.only.get(n) === place ? "" : null }, name))));
  }));
  const clear = (column) => () => { column === null ? state.only.clear() : state.only.delete(column); store(); };
  const crumb = (name, onclick) => el("button", { type: "button", onclick, "aria-label": t("Remove {name}", { name }) }, el("bdi", {}, name), " ×");
  $("crumbs").replaceChildren(
    state.only.size ? el("button", { type: "button", onclick: clear(null) }, t("All messages")) : "",
    ...[...state.only].map(([column, place]) => crumb(nameOf(column, place), clear(column))),
    state.brushed ? crumb(t("{from} to {to}", { from: clock(state.brushed[0]), to: clock(state.brushed[1]) }), () => { state.brushed = null; store(); }) : "");
}
const unfiltered = (from) => page.columns.findIndex((_, n) => n >= from && !state.only.has(n));
function only(column, place) {  // and compare by the next column: of one value there is nothing to compare
  state.only.set(column, place);
  if (state.by !== column) return;
  const next = unfiltered(column);
  state.by = next >= 0 ? next : Math.max(0, unfiltered(0));
}
function store() {
  const said = new URLSearchParams({ period: state.period, by: page.columns[state.by]?.name ?? "" });
  if (state.brushed) said.append("hours", state.brushed.join("-"));
  if (state.lang !== LANGUAGE) said.append("lang", state.lang);
  for (const [column, place] of state.only) said.append("in." + page.columns[column].name, page.columns[column].values[place]);
  const hash = "#" + said;
  if (hash === location.hash) draw();
  else location.hash = hash;  // draws, by the event
}
function restore() {
  const said = new URLSearchParams(location.hash.slice(1));
  state.period = page.periods.includes(Number(said.get("period"))) ? Number(said.get("period")) : page.period;
  state.by = Math.max(0, page.columns.findIndex((one) => one.name === said.get("by")));
  state.lang = said.get("lang") ?? LANGUAGE;
  const hours = (said.get("hours") ?? "").split("-").map(Number);
  state.brushed = hours.length === 2 && hours.every(Number.isInteger) && 0 <= hours[0] && hours[0] < hours[1] && hours[1] <= END ? hours : null;
  state.only = new Map();
  page.columns.forEach((column, n) => {
    const place = column.values.indexOf(said.get("in." + column.name));
    if (place >= 0) state.only.set(n, place);
  });
  if (!said.get("by")) state.by = Math.max(0, unfiltered(0));
}
function csv() {
  const cell = (value) => {  // a spreadsheet must not take a name for a formula
    let text = value === null || value === undefined ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const figures = (c) => [c.messages, c.delivered, c.lost, c.waiting, c.messages - known(c) - c.waiting, c.fast, rate(c)];
  const rows = [["shown", "name", "messages", "delivered", "not_delivered", "waiting", "no_status", `within_${page.fastSeconds}_s`, "delivery_rate"]];
  const now = span(false);
  rows.push(["period", periodName(), ...figures(total(now))], ["period", theOneBefore(), ...figures(total(span(true)))]);
  for (const b of bucketed(now)) rows.push(["over time", date(b.at).toISOString().slice(0, 16).replace("T", " "), ...figures(b.c)]);
  page.columns.forEach((column, n) => {
    const at = tables.counts["v" + n];
    for (const [place, c] of [...counted(now, (m) => at[m])].sort((a, b) => b[1].messages - a[1].messages)) rows.push([column.name, column.values[place], ...figures(c)]);
  });
  reasonsOf(now).found.forEach((one) => one.by.forEach((times, reason) => rows.push(["reason", page.reasons[reason][0], times])));
  return "\ufeff" + rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}
function download() {
  const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  el("a", { href: address, download: `delivery-${page.lastDay}-${state.period}d.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

// ---- all of it ------------------------------------------------------------------------------
function draw() {
  restore();
  matched = new Map();
  const focus = document.activeElement?.textContent, kept = document.activeElement?.closest?.("[id]")?.id;
  const now = total(span(false)), before = total(span(true));
  const guess = expected(false, now), former = expected(true, before), buckets = bucketed(span(false));
  document.documentElement.lang = state.lang === "zh" ? "zh-CN" : "en";
  for (const one of document.querySelectorAll("[data-t]")) {
    one.dataset.t ||= one.getAttribute("aria-label") ?? one.textContent;
    if (one.hasAttribute("aria-label")) one.setAttribute("aria-label", t(one.dataset.t)); else one.textContent = t(one.dataset.t);
  }
  $("language").textContent = state.lang === "zh" ? "English" : "中文";
  controls();
  alertCards();
  $("said").textContent = said(now, before, guess, former);
  $("tiles").replaceChildren(...tiles(now, before, guess, former, buckets));
  $("over-time").replaceChildren(overTime(buckets, former, before, $("over-time").clientWidth || 700));
  whatChanged(before);
  reasons(now, before);
  $("heat-note").textContent = "";
  $("heat").replaceChildren(heatmap($("heat").clientWidth || 340));
  matrix();
  // what was pressed is made again: the focus stays where it was
  for (const one of $(kept)?.querySelectorAll?.("button") ?? []) if (one.textContent === focus) { one.focus(); break; }
}
$("live").hidden = false;
$("static").hidden = true;
$("csv").addEventListener("click", download);
$("language").addEventListener("click", () => { state.lang = state.lang === "zh" ? "en" : "zh"; store(); });
addEventListener("hashchange", draw);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
draw();
})();
