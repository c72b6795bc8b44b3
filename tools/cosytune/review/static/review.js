// The page: which clips are shown, which one is current, what keys and buttons do.

import { forget, player, position, replay, seek, stop, toggle } from "./player.js";
import { makeRow, reasonName, update } from "./row.js";
import { fill, getClips, postText, postVerdict, words } from "./server.js";

const PAGE = 50;
const $ = (id) => document.getElementById(id);
const list = $("clips");
const done = []; // changes that can be taken back, the last one at the end
let clips = [];
let shown = []; // those that pass the filters, in order
let current = 0; // index in `shown`

const GROUPS = {
  all: () => true,
  kept: (clip) => clip.kept,
  quarantined: (clip) => !clip.kept,
  edited: (clip) => clip.edited,
  decided: (clip) => clip.verdict !== null,
};
const KEYS = {
  id: (clip) => clip.utt || null,
  duration: (clip) => clip.duration_s,
  snr: (clip) => clip.quality.snr_db,
  loudness: (clip) => clip.quality.loudness_lufs,
  cer: (clip) => clip.cer,
  reason: (clip) => clip.reasons[0] && reasonName(clip.reasons[0].reason),
};

let fading;
function say(text, isBad = false) {
  const status = $("status");
  status.textContent = text;
  status.classList.toggle("bad", isBad);
  clearTimeout(fading);
  fading = setTimeout(() => { status.textContent = ""; }, isBad ? 8000 : 2500);
}
player.onerror = (message) => say(message, true);

// ---- what is shown

function filter() {
  const now = shown[current];
  const group = GROUPS[new FormData($("filters")).get("group")];
  const reason = $("reason").value, wanted = $("search").value.normalize("NFC").trim().toLowerCase();
  shown = clips.filter((clip) => group(clip)
    && (!reason || clip.reasons.some((one) => one.reason === reason))
    && (!wanted || [clip.text, clip.written, clip.utt, clip.source].some((text) => text?.toLowerCase().includes(wanted))));
  const key = KEYS[$("sort").value], sign = $("descending").checked ? -1 : 1;
  const compare = (a, b) => (typeof a === "number" ? a - b : a < b ? -1 : Number(a > b));
  shown.sort((one, other) => {
    const a = key(one) ?? null, b = key(other) ?? null; // a clip without the number comes last, whatever the order
    if (a === null || b === null) return Number(a === null) - Number(b === null);
    return sign * compare(a, b);
  });
  current = Math.max(0, shown.indexOf(now));
  showPage();
}

const pageOf = (index) => Math.floor(index / PAGE);

function showPage() {
  const page = pageOf(current), pages = Math.max(1, pageOf(shown.length - 1) + 1);
  forget();
  const rows = shown.slice(page * PAGE, (page + 1) * PAGE).map(makeRow);
  list.replaceChildren(...rows);
  if (!rows.length) list.append(Object.assign(document.createElement("li"), { className: "empty", textContent: words.nothing }));
  $("pages").hidden = pages === 1;
  $("page").textContent = fill(words.page, { n: page + 1, all: pages });
  $("previous").disabled = page === 0;
  $("next").disabled = page === pages - 1;
  mark();
}

const rowOf = (clip) => [...list.children].find((row) => row.dataset.source === clip?.source);

function mark() {
  for (const row of list.children) {
    row.removeAttribute("aria-current");
    row.tabIndex = -1;
  }
  const row = rowOf(shown[current]);
  row?.setAttribute("aria-current", "true");
  if (row) row.tabIndex = 0;
}

function count() {
  const numbers = Object.fromEntries(Object.entries(GROUPS).map(([name, test]) => [name, clips.filter(test).length]));
  for (const place of document.querySelectorAll("[data-count]")) place.textContent = numbers[place.dataset.count];
  $("sum").textContent = fill(words.sum, numbers);
  const pending = clips.filter((clip) => clip.pending).length;
  const sentence = ["pending_none", "pending_one"][pending] ?? "pending";
  $("pending-words").textContent = fill(words[sentence], { n: pending });
  $("pending").classList.toggle("some", pending > 0);
  $("command").hidden = pending === 0;
}

function listReasons() {
  const counts = new Map();
  for (const { reason } of clips.flatMap((clip) => clip.reasons)) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const named = [...counts].sort((one, other) => other[1] - one[1]);
  $("reason").append(...named.map(([reason, n]) => new Option(`${reasonName(reason)} (${n})`, reason)));
}

// ---- going about

function go(index, { focus = true } = {}) {
  if (index < 0 || index >= shown.length) return;
  const turns = pageOf(index) !== pageOf(current);
  const moves = index !== current;
  current = index;
  if (turns) showPage();
  else mark();
  if (moves) stop();
  if (!focus) return; // the pointer is there already: a page that scrolls between press and release loses the click
  const row = rowOf(shown[current]);
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
  if (moves && $("autoplay").checked) replay(shown[current]);
}

function goTo(clip) {
  if (!shown.includes(clip)) {
    document.querySelector("input[name=group][value=all]").checked = true;
    $("reason").value = $("search").value = "";
    filter();
  }
  go(shown.indexOf(clip));
}

// ---- changes

let turn = Promise.resolve(); // one change after the other: each one says what it saw

/** Ask the server, show the clip as it is then; false if it was refused, and the row says why. */
function change(clip, request) {
  turn = turn.then(async () => {
    try {
      Object.assign(clip, { problem: null }, await request());
    } catch (failure) {
      clip.problem = failure.message;
      say(failure.message, true);
    }
    const row = rowOf(clip);
    if (row) update(row, clip);
    count();
    return !clip.problem;
  });
  return turn;
}

async function decide(clip, verdict) {
  const before = clip.verdict;
  if (verdict === before || !(await change(clip, () => postVerdict(clip, verdict)))) return;
  done.push({ clip, undo: () => postVerdict(clip, before) });
  say(verdict ? words[`said_${verdict}`] : words.said_nothing);
}

async function save(clip) {
  const sent = clip.draft ?? clip.text;
  let before;
  clip.draft = undefined;
  const isSaved = await change(clip, () => {
    before = clip.text;
    return sent === before ? {} : postText(clip, sent);
  });
  if (!isSaved) {
    clip.draft ??= sent;
    return false;
  }
  if (clip.draft === undefined) setField(clip); // nobody has typed on meanwhile
  if (clip.text === before) return true;
  done.push({ clip, undo: () => postText(clip, before || null) });
  say(words.saved);
  return true;
}

function setField(clip) {
  const row = rowOf(clip);
  if (row) row.querySelector("textarea").value = clip.text;
}

async function takeBack() {
  const last = done.pop();
  if (!last) {
    const clip = shown[current];
    if (clip?.verdict) return decide(clip, null).then(() => done.pop());
    return say(words.nothing_to_undo);
  }
  goTo(last.clip);
  if (!(await change(last.clip, last.undo))) return void done.push(last);
  setField(last.clip);
  say(words.undone);
}

// ---- events

const clipOf = (target) => {
  const row = target.closest?.(".clip");
  return row ? shown.find((clip) => clip.source === row.dataset.source) : null;
};

list.addEventListener("click", (event) => {
  const clip = clipOf(event.target), button = event.target.closest("button");
  if (!clip) return;
  go(shown.indexOf(clip), { focus: false });
  if (button?.matches(".play")) toggle(clip);
  for (const verdict of ["keep", "drop"]) {
    if (button?.matches(`.${verdict}`)) decide(clip, clip.verdict === verdict ? null : verdict);
  }
});
list.addEventListener("focusin", (event) => {
  const clip = clipOf(event.target);
  if (clip && shown.indexOf(clip) !== current) go(shown.indexOf(clip), { focus: false });
});
list.addEventListener("input", (event) => { clipOf(event.target).draft = event.target.value; });
list.addEventListener("focusout", (event) => {
  if (event.target.matches("textarea") && clipOf(event.target)?.draft !== undefined) save(clipOf(event.target));
});

function onKeyInText(event) {
  const clip = clipOf(event.target);
  if (event.isComposing || event.keyCode === 229) return; // Enter and Esc belong to the input method
  if (event.key === "Escape") {
    Object.assign(clip, { draft: undefined, problem: null });
    setField(clip);
    update(rowOf(clip), clip);
    rowOf(clip).focus();
  } else if (event.key === "Enter") {
    event.preventDefault();
    const isNext = event.ctrlKey || event.metaKey;
    save(clip).then((isSaved) => {
      if (!isSaved) return;
      if (isNext && current + 1 < shown.length) go(shown.indexOf(clip) + 1);
      else rowOf(clip).focus();
    });
  }
}

const ON_KEY = {
  " ": (clip) => toggle(clip),
  r: (clip) => replay(clip),
  j: () => go(current + 1), ArrowDown: () => go(current + 1),
  k: () => go(current - 1), ArrowUp: () => go(current - 1),
  ArrowLeft: (clip) => seek(clip, position(clip) - 1),
  ArrowRight: (clip) => seek(clip, position(clip) + 1),
  Enter: (clip) => {
    const field = rowOf(clip).querySelector("textarea");
    if (field.hidden) return;
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  },
  y: (clip) => decide(clip, "keep"),
  n: (clip) => decide(clip, "drop"),
};
const ANYWHERE = {
  u: takeBack,
  "/": () => $("search").focus(),
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if ($("help").open) return;
  if (event.target.matches("textarea")) return onKeyInText(event);
  if (event.target.matches("#search") && event.key === "Escape") return void rowOf(shown[current])?.focus();
  if (event.target.matches("input, select") || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.matches("button, a") && ["Enter", " "].includes(event.key)) return; // they press it
  const act = ANYWHERE[event.key] ?? (shown.length ? ON_KEY[event.key] : undefined);
  if (!act) return;
  event.preventDefault();
  act(shown[current]);
});

$("filters").addEventListener("input", (event) => { if (event.target.id !== "autoplay") filter(); });
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("previous").addEventListener("click", () => go((pageOf(current) - 1) * PAGE));
$("next").addEventListener("click", () => go((pageOf(current) + 1) * PAGE));
$("help-button").addEventListener("click", () => $("help").showModal());
addEventListener("beforeunload", (event) => { if (clips.some((clip) => clip.draft !== undefined)) event.preventDefault(); });

getClips().then((answer) => {
  clips = answer;
  listReasons();
  count();
  filter();
}, (failure) => {
  list.replaceChildren();
  say(failure.message, true);
});
