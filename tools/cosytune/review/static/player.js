// One player for all clips, and their waves: an outline is fetched when its row comes into view.

import { getPeaks, wavAddress, words } from "./server.js";

const audio = document.getElementById("audio");
const outlines = new Map(); // source -> Uint8Array, 0 to 255
const rows = new Map(); // sound element -> clip, of the page that is shown
let playing = null; // the clip that the player has

export const player = { onerror: () => {} };

const soundOf = (clip) => [...rows].find(([, one]) => one === clip)?.[0];
const seconds = (value) => value.toFixed(1);

const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) show(target);
}, { rootMargin: "300px" });
const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => draw(target)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => [...rows.keys()].forEach(draw));

async function show(sound) {
  const clip = rows.get(sound);
  if (!clip?.playable) return;
  inView.unobserve(sound);
  if (!outlines.has(clip.source)) {
    try {
      outlines.set(clip.source, await getPeaks(clip));
    } catch (failure) {
      player.onerror(failure.message);
      return;
    }
  }
  draw(sound);
}

export function forget() {
  for (const sound of rows.keys()) {
    inView.unobserve(sound);
    resized.unobserve(sound);
  }
  rows.clear();
}

export function attach(sound, clip) {
  rows.set(sound, clip);
  inView.observe(sound);
  resized.observe(sound);
  sound.setAttribute("aria-valuemax", seconds(clip.duration_s ?? 0));
  sound.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const box = sound.getBoundingClientRect();
    seek(clip, ((event.clientX - box.left) / box.width) * clip.duration_s);
  });
  draw(sound);
}

function draw(sound) {
  const clip = rows.get(sound);
  if (!clip) return;
  const at = clip === playing ? audio.currentTime : 0;
  const row = sound.closest(".clip");
  const isPlaying = clip === playing && !audio.paused;
  row.classList.toggle("playing", isPlaying);
  row.querySelector(".play").setAttribute("aria-label", isPlaying ? words.pause : words.play);
  const length = clip.duration_s === null ? "–" : words.units.seconds.replace("{value}", seconds(clip.duration_s));
  row.querySelector(".time").textContent = at > 0 ? `${seconds(at)} / ${length}` : length;
  sound.setAttribute("aria-valuenow", seconds(at));
  paint(sound.firstElementChild, outlines.get(clip.source), clip.duration_s ? at / clip.duration_s : 0);
}

function paint(canvas, outline, share) {
  const scale = devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
  if (!outline || !width) return;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const brush = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  const step = 3 * scale, count = Math.floor(width / step), loudest = Math.max(64, ...outline);
  brush.clearRect(0, 0, width, height);
  for (let bar = 0; bar < count; bar++) {
    const from = Math.floor((bar * outline.length) / count);
    const to = Math.max(from + 1, Math.floor(((bar + 1) * outline.length) / count));
    const tall = Math.max(2 * scale, (Math.max(...outline.subarray(from, to)) / loudest) * height);
    brush.fillStyle = (bar + 0.5) / count <= share ? style.color : style.getPropertyValue("--wave");
    brush.fillRect(bar * step, (height - tall) / 2, 2 * scale, tall);
  }
  if (share > 0) {
    brush.fillStyle = style.color;
    brush.fillRect(Math.min(width - 2 * scale, share * width), 0, 2 * scale, height);
  }
}

function drawPlaying() {
  const sound = soundOf(playing);
  if (sound) draw(sound);
}

function follow() {
  drawPlaying();
  if (!audio.paused) requestAnimationFrame(follow);
}
audio.addEventListener("play", follow);
for (const event of ["pause", "seeked", "ended", "loadedmetadata"]) audio.addEventListener(event, drawPlaying);
audio.addEventListener("error", () => player.onerror(words.errors.no_sound));

function load(clip) {
  if (clip === playing) return;
  const before = soundOf(playing);
  audio.pause();
  playing = clip;
  audio.src = wavAddress(clip);
  if (before) draw(before);
}

function start() {
  audio.play().catch((failure) => {
    if (failure.name === "NotAllowedError") player.onerror(words.errors.no_sound); // others come as `error` events
  });
}

export function toggle(clip) {
  if (!clip.playable) return;
  if (clip === playing && !audio.paused) return void audio.pause();
  load(clip);
  start();
}

export function replay(clip) {
  if (!clip.playable) return;
  load(clip);
  audio.currentTime = 0;
  start();
}

export function seek(clip, second) {
  if (!clip.playable) return;
  load(clip);
  audio.currentTime = Math.max(0, Math.min(second, clip.duration_s - 0.01));
}

export const position = (clip) => (clip === playing ? audio.currentTime : 0);

export function stop() {
  audio.pause();
}
