// A clip -> its row.

import { attach } from "./player.js";
import { fill, words } from "./server.js";

const template = document.getElementById("row");
const number = (value, digits = 3) => (typeof value === "number" ? String(Number(value.toPrecision(digits))) : value);

export const reasonName = (reason) => words.reasons[reason]?.[0] ?? reason.replaceAll("_", " ");

/** "SNR 8 dB, under 12 dB": the sentence of a reason, or what there is of one. */
function reasonWords({ reason, value, threshold, meaning }) {
  if (!(reason in words.reasons) && meaning) return meaning;
  if (value === null || value === undefined) return "";
  const sentence = words.reasons[reason]?.[1] ?? (threshold === null ? "{value}" : words.reason_other);
  const share = (one) => (typeof one === "number" ? number(one * 100) : one);
  return sentence
    .replaceAll("{value%}", share(value)).replaceAll("{threshold%}", share(threshold))
    .replaceAll("{value}", number(value, 4)).replaceAll("{threshold}", number(threshold, 4));
}

function facts({ quality, cer }) {
  const known = [
    ["snr", quality.snr_db, 1], ["loudness", quality.loudness_lufs, 1], ["peak", quality.peak_dbfs, 1],
    ["band", quality.bandwidth_hz, 0.001], ["silence", quality.silence_share, 100],
    ["clipped", quality.clipped_share || null, 100], ["cer", cer, 100],
  ];
  return known
    .filter(([, value]) => typeof value === "number")
    .map(([name, value, factor]) => fill(words.units[name], { value: number(value * factor).replace("-", "−") }));
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

export function makeRow(clip) {
  const row = template.content.firstElementChild.cloneNode(true);
  const find = (selector) => row.querySelector(selector);
  row.dataset.source = clip.source;
  row.setAttribute("aria-label", clip.utt || clip.source);
  find(".choice").setAttribute("aria-label", clip.utt || clip.source);
  find(".play").disabled = find(".sound").hidden = !clip.playable;
  find(".state").textContent = clip.kept ? words.state_kept : words.state_quarantined;
  find(".name").textContent = [clip.utt, clip.source].filter(Boolean).join(" · ");
  find(".numbers").replaceChildren(...facts(clip).map((text) => element("span", text)));
  find(".reasons").replaceChildren(...clip.reasons.map((one) => {
    const item = document.createElement("li");
    const sentence = reasonWords(one);
    item.append(element("b", reasonName(one.reason)), sentence && ` ${sentence}`);
    return item;
  }));
  find("textarea").hidden = find(".choice").hidden = !clip.utt; // nothing was cut: there is nothing to decide
  find("textarea").value = clip.draft ?? clip.text;
  attach(find(".sound"), clip);
  update(row, clip);
  return row;
}

/** What may change while a row is shown. */
export function update(row, clip) {
  const find = (selector) => row.querySelector(selector);
  row.className = row.classList.contains("playing") ? "clip playing" : "clip";
  row.classList.toggle("quarantined", !clip.kept);
  row.classList.toggle("edited", clip.edited);
  if (clip.verdict) row.classList.add(`said-${clip.verdict}`);
  for (const verdict of ["keep", "drop"]) {
    find(`.${verdict}`).setAttribute("aria-pressed", String(clip.verdict === verdict));
  }
  for (const [name, text] of [["written", clip.written], ["heard", clip.asr_text]]) {
    find(`.${name}`).hidden = !text?.trim() || text.trim() === clip.text;  // a file ends with a line break
    find(`.${name} q`).textContent = text ?? "";
  }
  const field = find("textarea");
  field.classList.toggle("refused", Boolean(clip.problem));
  field.setAttribute("aria-invalid", String(Boolean(clip.problem)));
  find(".problem").textContent = clip.problem ?? "";
}
