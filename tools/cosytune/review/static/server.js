// Requests to the server; a failure becomes an Error whose message is in the page's language.

export const words = JSON.parse(document.getElementById("words").textContent);

export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error(words.errors.no_server);
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.message ?? words.errors[said.error] ?? fill(words.errors.other, { status: answer.status }));
}

function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) }).then((answer) => answer.json());
}

export const getClips = () => ask("clips").then((answer) => answer.json());
export const wavAddress = (clip) => `wav?source=${encodeURIComponent(clip.source)}`;
export const getPeaks = async (clip) =>
  new Uint8Array(await (await ask(`peaks?source=${encodeURIComponent(clip.source)}`)).arrayBuffer());
export const postVerdict = (clip, verdict) => post("verdict", { source: clip.source, verdict });
export const postText = (clip, text) => post("text", { source: clip.source, text, was: clip.text });
